// How full the spool is, looked at where the packs lie.

import { mkdir, readdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../../contract/errors.ts";

/** Less free space than this on the spool's disk, and no new point begins. */
const freeBytesMin = 128 << 20;

export interface Spool {
  readonly folder: string;
  readonly spoolBytesMax: number;
}

export async function spoolBytesOf({ folder }: Spool): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(folder).catch(() => [])) {
    bytes += await stat(join(folder, name)).then(
      (found) => found.size,
      () => 0, // Uploaded and removed in between.
    );
  }
  return bytes;
}

/** Throws Fault SpoolFull when no new point may begin. */
export async function checkSpool(spool: Spool): Promise<void> {
  const { folder, spoolBytesMax } = spool;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = bavail * bsize;
  const usedBytes = await spoolBytesOf(spool);
  if (freeBytes >= freeBytesMin && usedBytes < spoolBytesMax) return;
  throw new Fault("SpoolFull", "refused a new recovery point: the appliance's spool is full", {
    evidence: { folder, freeBytes, usedBytes, spoolBytesMax },
  });
}
