// The set-up page as files: what the appliance serves to a browser, and nothing else.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../../contract/errors.ts";

export interface SetupFiles {
  /** The script that the page starts with, and its parts, by their names: "main-1A2B.js". */
  readonly scripts: ReadonlyMap<string, Uint8Array>;
  /** The name of the first. */
  readonly entry: string;
}

let kept: SetupFiles | undefined;

/** From a package, read once. */
export async function readSetupFiles(folder: string): Promise<SetupFiles> {
  if (kept !== undefined) return kept;
  const names = await readdir(folder);
  const entry = names.find((name) => name.startsWith("main-"));
  if (entry === undefined) throw new Fault("NotFound", "the set-up page is not in this package", { evidence: { folder } });
  const scripts = new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))] as const)));
  kept = { scripts, entry };
  return kept;
}
