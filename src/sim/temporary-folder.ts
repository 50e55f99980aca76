// The folder of an ephemeral hub: it names the process that it belongs to, so that a later hub removes what a killed one left.

import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";

const prefix = "watari-hub-";
const ownerFile = "owner.json";

const ownerShape = z.object({ pid: z.int().positive(), startTime: z.string() });

/** A new folder that belongs to this process. */
export async function makeTemporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  const startTime = await startTimeOf(process.pid);
  await writeFile(join(folder, ownerFile), JSON.stringify({ pid: process.pid, startTime }));
  await chmod(folder, 0o711); // The database's own account walks through it.
  return folder;
}

/** Removes the folders of this user whose process is gone. Their databases ended with it. */
export async function removeAbandoned(): Promise<void> {
  const names = (await readdir(tmpdir())).filter((name) => name.startsWith(prefix));
  for (const folder of names.map((name) => join(tmpdir(), name))) {
    const found = await stat(folder).catch(() => undefined); // Its own hub has just removed it.
    if (found?.isDirectory() !== true || found.uid !== process.getuid?.()) continue;
    if (await isAbandoned(folder)) await rm(folder, { recursive: true, force: true });
  }
}

/** A folder without an owner is one that is being made, or nobody's: it stays. */
async function isAbandoned(folder: string): Promise<boolean> {
  const text = await readFile(join(folder, ownerFile), "utf8").catch(() => undefined);
  if (text === undefined) return false;
  const owner = ownerShape.safeParse(parseOrUndefined(text)).data;
  return owner !== undefined && (await startTimeOf(owner.pid)) !== owner.startTime;
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // It is being written.
  }
}

/** proc(5), stat: the 22nd field, in ticks since the boot; a process id that was given again has another one. */
async function startTimeOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined); // It is gone.
  return text?.slice(text.lastIndexOf(")") + 2).split(" ")[19];
}
