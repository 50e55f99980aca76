// `watari vault keys|rotate-key|destroy-key`: the generations of a vault's key, how much each still seals, and how they change.

import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { formatBytes, formatTable, openProgress, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface Options {
  readonly json?: boolean;
  readonly profile?: string;
}

const generationShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    generation: z.number(),
    state: z.string(),
    destroyWhenUnused: z.boolean(),
    usedFrom: z.string().optional(),
    usedUntil: z.string().optional(),
    sealed: z.object({ countedAt: z.string(), packCount: z.number(), packBytes: z.number(), recoveryPointCount: z.number() }).optional(),
  }),
});
type Generation = z.infer<typeof generationShape>;

/** `pathOf` gives the path of a vault of a group. */
export function registerVaultKeyCommands(noun: Command, pathOf: (groupPath: string, name: string) => string): void {
  const keysPath = (arm: ArmClient, vault: string): string => `${pathOf(arm.groupPath, vault)}/watariKeyGenerations`;
  withHubOptions(noun.command("keys").argument("<vault>"))
    .description("generations of the vault's key, and how much of the vault each still seals")
    .option("--count", "look at every pack and recovery point first; otherwise the last count is shown, an hour old at most")
    .action(async (vault: string, options: Options & { readonly count?: boolean }) => {
      await using session = await openSession(options);
      const path = keysPath(session.arm, vault);
      if (options.count === true) {
        const current = (await listKeys(session.arm, path)).find(({ properties }) => properties.state === "Current");
        await change(session.arm, "counting", "POST", `${path}/${current?.name ?? "1"}/count`);
      }
      const keys = await listKeys(session.arm, path);
      printAnswer(session.style, keys, () => tableOf(keys));
    });
  withHubOptions(noun.command("rotate-key").argument("<vault>"))
    .description("make a new key, let every appliance have it, and seal with it from then on; safe to repeat after a failure")
    .option("--destroy-former", "destroy each earlier key by itself as soon as nothing is sealed with it")
    .action(async (vault: string, options: Options & { readonly destroyFormer?: boolean }) => {
      await using session = await openSession(options);
      const path = keysPath(session.arm, vault);
      const next = Math.max(...(await listKeys(session.arm, path)).map(({ properties }) => properties.generation)) + 1;
      const properties = options.destroyFormer === true ? { destroyWhenUnused: true } : {};
      const made = await change(session.arm, `key ${next}`, "PUT", `${path}/${next}`, { properties });
      printAnswer(
        session.style,
        made,
        () => `the vault ${vault} seals with key ${next}; \`watari vault keys ${vault}\` shows what is left of earlier ones`,
      );
    });
  withHubOptions(noun.command("destroy-key").argument("<vault>").argument("<generation>"))
    .description("destroy a former key that nothing is sealed with; refused while something is")
    .option("--yes", "do it without asking: a destroyed key never comes back")
    .action(async (vault: string, generation: string, options: Options & { readonly yes?: boolean }) => {
      if (options.yes !== true)
        throw new Fault("InputInvalid", `did not destroy key ${generation} of the vault ${vault}: it would be gone for good`, {
          action: `watari vault destroy-key ${vault} ${generation} --yes`,
        });
      await using session = await openSession(options);
      await change(session.arm, `key ${generation}`, "DELETE", `${keysPath(session.arm, vault)}/${generation}`);
      printAnswer(session.style, { destroyed: Number(generation) }, () => `key ${generation} of the vault ${vault} is destroyed`);
    });
}

async function listKeys(arm: ArmClient, path: string): Promise<readonly Generation[]> {
  return z.array(generationShape).parse(await arm.list(path));
}

async function change(arm: ArmClient, title: string, method: "PUT" | "POST" | "DELETE", path: string, body?: object): Promise<unknown> {
  const progress = openProgress(title);
  try {
    return await arm.change(method, path, body, ({ status, percent = 0 }) => progress.update(percent, status));
  } finally {
    progress.finish();
  }
}

function tableOf(keys: readonly Generation[]): string {
  return formatTable(
    ["KEY", "STATE", "SEALS FROM", "UNTIL", "PACKS", "BYTES", "POINTS", "COUNTED", "GOES BY ITSELF"],
    keys.map(({ name, properties: { state, usedFrom, usedUntil, sealed, destroyWhenUnused } }) => [
      name,
      state,
      usedFrom ?? "-",
      usedUntil ?? "-",
      ...(sealed === undefined
        ? ["-", "-", "-", "-"]
        : [String(sealed.packCount), formatBytes(sealed.packBytes), String(sealed.recoveryPointCount), sealed.countedAt]),
      destroyWhenUnused ? "yes" : "no",
    ]),
  );
}
