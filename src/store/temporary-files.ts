// Files of writes that are under way in a directory store, by names that tell whose they are: a crash's are removed, nobody else's.

import { randomUUID } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** A later process may get the same id, for example as the only one of a container; this tells them apart. */
const ownRun = randomUUID();

export function temporaryName(): string {
  return [encodeURIComponent(hostname()), process.pid, ownRun, randomUUID()].join("~");
}

/** Removes what ended processes of this host left, and files of no known form. A writer that lives, here or on another host, keeps its own. */
export async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) if (isAbandoned(name)) await rm(join(folder, name), { recursive: true, force: true });
}

function isAbandoned(name: string): boolean {
  const [host, pid, run, write] = name.split("~");
  if (write === undefined) return true;
  if (host !== encodeURIComponent(hostname())) return false; // Whether its writer lives cannot be seen from here.
  return Number(pid) === process.pid ? run !== ownRun : !isAlive(Number(pid));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"; // It lives, as another user.
  }
}
