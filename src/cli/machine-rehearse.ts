// `watari machine rehearse` and `watari machine actions`: a migration tried where it reaches nothing, and what a landed machine is asked.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import type { ArmClient } from "./arm-client.ts";
import { listJobs } from "./job.ts";
import { withActionOption, type ActionWish } from "./launch-action.ts";
import { launchSettingsOf, withLaunchSettings, type LaunchSettingsOptions } from "./launch-settings.ts";
import { listProtected, pickByName } from "./machine-shapes.ts";
import { formatSeconds, formatTable, openProgress, printAnswer } from "./output.ts";
import { openSession } from "./session.ts";
import { vaultPath } from "./vault.ts";

interface VaultOptions {
  readonly vault: string;
  readonly json?: boolean;
  readonly profile?: string;
}

interface RehearseOptions extends VaultOptions, LaunchSettingsOptions {
  readonly action: readonly ActionWish[];
  readonly point?: string;
  readonly keep?: boolean;
  readonly out?: string;
}

const evidenceShape = z.looseObject({
  pointId: z.string().optional(),
  hydrationSeconds: z.number().optional(),
  orderToAnswerSeconds: z.number().optional(),
  actions: z
    .array(z.looseObject({ name: z.string(), isPassed: z.boolean(), isRequired: z.boolean(), seconds: z.number(), said: z.string() }))
    .default([]),
});
const jobShape = z.looseObject({
  properties: z.looseObject({
    state: z.string(),
    watari: z.looseObject({ evidence: evidenceShape, files: z.array(z.looseObject({ name: z.string() })).default([]) }),
  }),
});
type RehearsalJob = z.infer<typeof jobShape>;

export function registerMachineRehearse(verb: (usage: string, description: string) => Command): void {
  withLaunchSettings(
    withActionOption(
      verb(
        "rehearse <name>",
        "boot the newest recovery point where it reaches nothing, ask it, keep its console, take it away; the source is not touched",
      ),
    ),
  )
    .option("--point <id>", "recovery point (default: the newest)")
    .option("--keep", "leave the machine as a test migration; `machine test-cleanup` takes it away")
    .option("--out <dir>", "write its serial log and a picture of its screen there")
    .action(async (name: string, options: RehearseOptions) => {
      await using session = await openSession(options);
      const { arm } = session;
      const failure = await rehearse(arm, name, options).then(
        () => undefined,
        (error: unknown) => ({ error }),
      );
      const job = await readRehearsal(arm, name, options.vault);
      const files = options.out === undefined || job === undefined ? [] : await fetchFiles(arm, job, options.out);
      if (failure === undefined || files.length > 0)
        printAnswer(session.style, { job: job ?? {}, files }, () => describe(name, job?.shown, files));
      if (failure !== undefined) throw failure.error;
    });
  withActionOption(
    verb("actions <name>", "what the machine is asked once it has landed, in tests and rehearsals too; with --action it is set"),
  )
    .option("--none", "ask nothing")
    .action(async (name: string, options: VaultOptions & { readonly action: readonly ActionWish[]; readonly none?: boolean }) => {
      await using session = await openSession(options);
      const { arm } = session;
      const item = pickByName(await listProtected(arm, options.vault), name, "protected machine");
      if (options.action.length > 0 || options.none === true)
        await arm.change("PATCH", item.id, {
          properties: {
            providerSpecificDetails: { instanceType: "InMageAzureV2", postLaunchActions: options.none === true ? [] : options.action },
          },
        });
      const shown = itemShape.parse(await arm.get(item.id)).properties.providerSpecificDetails.watari.postLaunchActions;
      printAnswer(session.style, shown, () =>
        shown.length === 0 ? `${name} is asked nothing` : shown.map((each) => JSON.stringify(each)).join("\n"),
      );
    });
}

const itemShape = z.looseObject({
  properties: z.looseObject({
    providerSpecificDetails: z.looseObject({ watari: z.looseObject({ postLaunchActions: z.array(z.looseObject({})).default([]) }) }),
  }),
});

async function rehearse(arm: ArmClient, name: string, options: RehearseOptions): Promise<void> {
  const { vault, point, action, keep } = options;
  const item = pickByName(await listProtected(arm, vault), name, "protected machine");
  const properties = {
    ...(point === undefined ? {} : { recoveryPointId: point }),
    ...(action.length === 0 ? {} : { actions: action }),
    ...(await launchSettingsOf(options)),
    isKept: keep === true,
  };
  const progress = openProgress(`rehearse ${name}`);
  try {
    await arm.change("POST", `${item.id}/rehearse`, { properties }, (state) => progress.update(state.percent ?? 0, state.status));
  } finally {
    progress.finish();
  }
}

interface Read {
  readonly path: string;
  readonly shown: RehearsalJob;
}

async function readRehearsal(arm: ArmClient, name: string, vault: string): Promise<Read | undefined> {
  const job = (await listJobs(arm, vault)).find(
    ({ properties }) => properties.scenarioName === "Rehearsal" && properties.targetObjectName === name,
  );
  if (job === undefined) return undefined;
  const path = `${vaultPath(arm.groupPath, vault)}/replicationJobs/${job.name}`;
  return { path, shown: jobShape.parse(await arm.get(path)) };
}

async function fetchFiles(arm: ArmClient, { path, shown }: Read, folder: string): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true });
  const written: string[] = [];
  for (const { name } of shown.properties.watari.files) {
    const { url } = z.object({ url: z.string() }).parse(await arm.change("POST", `${path}/file`, { name }));
    const pieces: Uint8Array[] = [];
    await arm.download(url, async (piece) => void pieces.push(piece));
    const target = join(folder, name);
    await writeFile(target, Buffer.concat(pieces));
    written.push(target);
  }
  return written;
}

function describe(name: string, job: RehearsalJob | undefined, files: readonly string[]): string {
  if (job === undefined) return `${name} was rehearsed`;
  const { state, watari } = job.properties;
  const { actions, pointId, orderToAnswerSeconds } = watari.evidence;
  return [
    `rehearsal of ${name}: ${state}${orderToAnswerSeconds === undefined ? "" : `, ${formatSeconds(orderToAnswerSeconds)} from the order to the last answer`}`,
    actions.length === 0
      ? "nothing was asked: only that its processor runs is known, and the point is not called verified"
      : formatTable(
          ["ASKED", "PASSED", "AFTER", "HEARD"],
          actions.map((each) => [
            each.name,
            each.isPassed ? "yes" : each.isRequired ? "NO" : "no, need not",
            formatSeconds(each.seconds),
            (each.said.split("\n")[0] ?? "").slice(0, 60),
          ]),
        ),
    `recovery point ${pointId ?? ""}`,
    ...files.map((file) => `kept in ${file}`),
  ].join("\n");
}
