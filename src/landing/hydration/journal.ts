// Replays an ext journal on a clone, as the guest's own kernel would at its next mount.

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import type { Partition } from "./partition-table.ts";
import { openRawView } from "./raw-view.ts";

export interface ReplayOptions {
  readonly imagePath: string;
  readonly partition: Partition;
  readonly scratchFolder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

const replayMsMax = 300_000;

/** NOTE: e2fsck opens the image again after the replay and forgets an offset then, so it gets a view of the partition alone. */
export async function replayJournal(options: ReplayOptions): Promise<void> {
  const { imagePath, partition, clock, signal } = options;
  const folder = join(options.scratchFolder, "journal");
  const common = signal === undefined ? {} : { signal };
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const nodes = [
    { driver: "file", filename: imagePath, locking: "off", "node-name": "disk" },
    { driver: "raw", file: "disk", offset: partition.offset, size: partition.sizeBytes, "node-name": "partition" },
  ];
  {
    await using view = await openRawView({ graphs: [{ nodes, topNode: "partition" }], folder, clock, ...common });
    const [path = ""] = view.paths;
    const { exitCode, stdout, stderr } = await tryCommand("e2fsck", ["-p", "-E", "journal_only", path], {
      timeoutMs: replayMsMax,
      ...common,
    });
    // 0: nothing to do. 1: replayed.
    if (exitCode > 1) {
      const output = `${stdout}\n${stderr}`.slice(-2000);
      throw new Fault("DataDamaged", "could not replay the journal of the clone's filesystem", { evidence: { exitCode, output } });
    }
  }
  await rm(folder, { recursive: true });
}
