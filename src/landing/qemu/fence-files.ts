// The highest fencing number of each machine as one small file, kept when the machine goes; the oldest are dropped.

import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";
import type { FenceLedger } from "../fence-ledger.ts";

/** Far more machines than a host lands while a hub may be paused. */
const filesMax = 10_000;

export function openFenceFiles(folder: string): FenceLedger {
  return {
    highest: async (name) => {
      const text = await readFile(join(folder, name), "utf8").catch((error: unknown) => {
        if (error instanceof Error && "code" in error && error.code === "ENOENT") return "0";
        throw error;
      });
      const fence = Number(text);
      if (Number.isSafeInteger(fence)) return fence;
      throw new Fault("DataDamaged", `could not read the fencing number of machine ${name}`, { evidence: { path: join(folder, name) } });
    },
    raise: async (name, fence) => {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await writeFileAtomic(join(folder, name), `${fence}\n`);
      await dropOldest(folder);
    },
  };
}

async function dropOldest(folder: string): Promise<void> {
  const names = await readdir(folder);
  if (names.length <= filesMax) return;
  const aged = await Promise.all(names.map(async (name) => ({ name, changedMs: (await stat(join(folder, name))).mtimeMs })));
  aged.sort((left, right) => left.changedMs - right.changedMs);
  for (const { name } of aged.slice(0, names.length - filesMax)) await rm(join(folder, name), { force: true });
}
