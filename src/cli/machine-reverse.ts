// `watari machine reverse…`: the way back after the commit: points of the landed machine, down to the final one; its delta; its end.

import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { act, findProtected, type VaultOptions } from "./machine-act.ts";
import { formatTable, printAnswer } from "./output.ts";
import { openSession } from "./session.ts";

interface PointOptions extends VaultOptions {
  readonly final?: boolean;
  readonly yes?: boolean;
}

const reverseShape = z.looseObject({
  basisPointId: z.string(),
  points: z.array(
    z.looseObject({
      pointId: z.string(),
      time: z.string(),
      isFinal: z.boolean(),
      readBytes: z.number(),
      storedBytes: z.number(),
      wholeDisks: z.number(),
    }),
  ),
  finalPointId: z.string().optional(),
  returnedAt: z.string().optional(),
});
const itemShape = z.looseObject({
  properties: z.looseObject({
    providerSpecificDetails: z.looseObject({ watari: z.looseObject({ reverse: reverseShape.optional() }) }),
  }),
});
type Reverse = z.infer<typeof reverseShape>;

export function registerMachineReverse(verb: (usage: string, description: string) => Command): void {
  verb("reverse <name>", "the points of the landed machine since the commit").action(async (name: string, options: VaultOptions) => {
    await using session = await openSession(options);
    const { id } = await findProtected(session.arm, options.vault, name);
    const { reverse } = itemShape.parse(await session.arm.get(id)).properties.providerSpecificDetails.watari;
    printAnswer(session.style, reverse ?? {}, () => describe(name, reverse));
  });
  verb("reverse-point <name>", "store what the landed machine has written since the commit, on the chain of its source's final point")
    .option("--final", "switch the landed machine off for good, read all of its disks, and sign that the point is equal to them")
    .option("--yes", "with --final: do it without asking")
    .action(async (name: string, { final = false, yes = false, ...options }: PointOptions) => {
      requireYes(name, { final, yes });
      await act(name, options, { action: "reversePoint", properties: { isFinal: final } });
    });
  registerEnd(verb);
}

function registerEnd(verb: (usage: string, description: string) => Command): void {
  verb(
    "reverse-delta <name>",
    "write what the source's disks lack into the hub's export folder, as one signed file for `reverse apply`",
  ).action(
    async (name: string, options: VaultOptions) =>
      await act(name, options, {
        action: "reverseDelta",
        moreText: (job) =>
          jobShape
            .parse(job)
            .properties.watari.evidence.files.map(({ path }) => path)
            .join("\n"),
      }),
  );
  const end = verb("reverse-end <name>", "end the way back: switch the source on, or start the landed machine again");
  end
    .addOption(end.createOption("--side <side>", "who has the machine then").choices(["source", "landed"]).makeOptionMandatory())
    .option("--applied <file>", "for the source: what `reverse apply --json` answered after it had written")
    .action(async (name: string, { side, applied, ...options }: EndOptions) => {
      if (side === "landed") return await act(name, options, { action: "reverseEnd", properties: { side } });
      if (applied === undefined)
        throw new Fault("InputInvalid", `could not switch the source ${name} on: it was not told what was written to its disks`, {
          action: "give --applied with the answer of `watari reverse apply --json`",
        });
      const { disks } = appliedShape.parse(JSON.parse(await readFile(applied, "utf8")));
      const told = disks.map(({ diskId, root }) => ({ diskId, root }));
      await act(name, options, { action: "reverseEnd", properties: { side, disks: told } });
    });
}

interface EndOptions extends VaultOptions {
  readonly side: "source" | "landed";
  readonly applied?: string;
}

const appliedShape = z.looseObject({
  isDryRun: z.literal(false),
  disks: z.array(z.looseObject({ diskId: z.string(), root: z.string() })),
});
const jobShape = z.looseObject({
  properties: z.looseObject({
    watari: z.looseObject({ evidence: z.looseObject({ files: z.array(z.looseObject({ path: z.string() })).default([]) }) }),
  }),
});

function requireYes(name: string, { final, yes }: { readonly final: boolean; readonly yes: boolean }): void {
  if (!final || yes) return;
  throw new Fault("InputInvalid", `did not make the final point of ${name}: its landed machine would be switched off and barred`, {
    evidence: { flag: "--yes" },
    action: `watari machine reverse-point ${name} --final --yes`,
  });
}

function describe(name: string, reverse: Reverse | undefined): string {
  if (reverse === undefined) return `${name}: no point of the landed machine was made yet (watari machine reverse-point ${name})`;
  const table = formatTable(
    ["POINT", "TIME", "READ", "STORED", "KIND"],
    reverse.points.map((each) => [
      each.pointId,
      each.time,
      String(each.readBytes),
      String(each.storedBytes),
      [each.isFinal ? "final" : "", each.wholeDisks > 0 ? `${each.wholeDisks} disks read whole` : ""].filter(Boolean).join(", "),
    ]),
  );
  const end =
    reverse.returnedAt === undefined
      ? reverse.finalPointId === undefined
        ? "the landed machine may run"
        : `the landed machine is off and barred; final point ${reverse.finalPointId}`
      : `the source has the machine again since ${reverse.returnedAt}`;
  return [`${name}, since its source's final point ${reverse.basisPointId}:`, table, end].join("\n");
}
