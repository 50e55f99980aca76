// A small volume in memory for a database, which can be filled to its last byte and freed again. Needs root.

import { mkdtemp, rm, statfs, truncate, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import type { Volume } from "../../src/hub/replication/kill-trial.ts";

export interface SmallVolume extends Volume, AsyncDisposable {
  readonly folder: string;
}

const sizeMib = 640;

/** Undefined where this machine allows no mount. */
export async function mountSmallVolume(): Promise<SmallVolume | undefined> {
  const folder = await mkdtemp(join(tmpdir(), "wv-"));
  const mounted = await tryCommand("mount", ["-t", "tmpfs", "-o", `size=${sizeMib}m,mode=0711`, "watari-proof", folder], {
    timeoutMs: 10_000,
  });
  if (mounted.exitCode !== 0) {
    await rm(folder, { recursive: true });
    return undefined;
  }
  const ballast = join(folder, "ballast");
  return {
    folder,
    fill: async () => {
      const { bavail, bsize } = await statfs(folder);
      await using file = await open(ballast, "w");
      const chunk = new Uint8Array(1 << 20);
      // Until it refuses: what others free meanwhile is taken too.
      for (let left = bavail * bsize + chunk.length; left > 0; left -= chunk.length) {
        const isFull = await file.write(chunk).then(
          ({ bytesWritten }) => bytesWritten < chunk.length,
          () => true, // No space left on device, which is what is wanted.
        );
        if (isFull) return;
      }
    },
    free: async () => await truncate(ballast, 0),
    [Symbol.asyncDispose]: async () => {
      await runCommand("umount", ["-l", folder]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
