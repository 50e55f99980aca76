// How full the spool is, looked at where the packs lie.

import { mkdir, readdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../../contract/errors.ts";
import { cacheReserveBytes, cacheSpaceOf, type CacheSpace } from "../../contract/process-server-limits.ts";

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

export interface SeenSpool extends CacheSpace {
  readonly spoolBytes: number;
  readonly diskAvailableBytes: number;
}

/** Looks where the packs lie, and makes the folder if need be. */
export async function lookAtSpool(spool: Spool): Promise<SeenSpool> {
  const { folder, spoolBytesMax } = spool;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const { bavail, bsize } = await statfs(folder);
  const diskAvailableBytes = bavail * bsize;
  const spoolBytes = await spoolBytesOf(spool);
  return { ...cacheSpaceOf({ spoolBytes, spoolBytesMax, diskAvailableBytes }), spoolBytes, diskAvailableBytes };
}

/** Throws Fault SpoolFull when no new point may begin. */
export function checkSpool({ folder, spoolBytesMax }: Spool, { spoolBytes, diskAvailableBytes }: SeenSpool): void {
  if (diskAvailableBytes >= cacheReserveBytes && spoolBytes < spoolBytesMax) return;
  throw new Fault("SpoolFull", "refused a new recovery point: the appliance's spool is full", {
    evidence: { folder, freeBytes: diskAvailableBytes, usedBytes: spoolBytes, spoolBytesMax },
  });
}
