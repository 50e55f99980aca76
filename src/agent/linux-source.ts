// The real source: this Linux machine, its disks, its change tracking and its filesystems.

import { availableParallelism, totalmem } from "node:os";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import type { MachineFacts } from "../contract/agent-control.ts";
import { granuleBytes } from "../disk/geometry.ts";
import { openBestTracker, removeTrackingExcept, type Rung } from "./changes/ladder.ts";
import { readMachineFacts } from "./disks/machine-facts.ts";
import { openLinuxDisk } from "./disks/open-disk.ts";
import { openBatchReads } from "./kernel/batch-reads.ts";
import { openCallThreads } from "./kernel/call-threads.ts";
import { allocatePageAligned } from "./kernel/page-aligned.ts";
import { openSystemCalls } from "./kernel/system-calls.ts";
import { armFreeze, thawLeftovers } from "./snapshot/freeze.ts";
import { endLeftRest, restApplications, systemScripts } from "./snapshot/scripts.ts";
import type { OpenDisk, Source } from "./source.ts";
import { removeInstallation } from "./unit.ts";

export interface LinuxSourceOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly stateFolder: string;
  /** The best rung of change tracking that may be used; all unless given. */
  readonly bestRung?: Rung;
}

export async function openLinuxSource(options: LinuxSourceOptions): Promise<Source> {
  const calls = openSystemCalls();
  const threads = openCallThreads(calls, options.clock);
  const batches = openBatchReads(calls, options.clock);
  // Pages of 2 MiB would make each of the agent's buffers that is used in part count as a whole (prctl(2), PR_SET_THP_DISABLE).
  calls.call("prctl", 41, 1);
  await thawLeftovers();
  await endLeftRest(systemScripts, options.clock);
  const devices = new WeakMap<OpenDisk, number>();
  let facts: MachineFacts | undefined;
  return {
    facts: async () => (facts = await readMachineFacts(calls)),
    openDisk: async (wanted) => {
      const disk = await openLinuxDisk(wanted, batches);
      devices.set(disk, disk.device);
      return disk;
    },
    openTracker: async (disk, request) => {
      const device = devices.get(disk);
      assert(device !== undefined, "the disk was opened by this source");
      const probe = allocatePageAligned(granuleBytes);
      const tracker = await openBestTracker({
        calls,
        clock: options.clock,
        memoryBytes: totalmem(),
        cpuCount: availableParallelism(),
        hasBase: request.hasBase,
        ...(options.bestRung === undefined ? {} : { bestRung: options.bestRung }),
        diskId: disk.facts.diskId,
        device,
        sizeBytes: disk.facts.sizeBytes,
        session: request.session === undefined ? undefined : Buffer.from(request.session, "hex"),
        newSession: options.random.bytes(16),
        readProbe: () => disk.read(0, probe),
      });
      return { tracker, session: Buffer.from(tracker.session).toString("hex") };
    },
    removeTrackersExcept: (diskIds) => removeTrackingExcept(new Set(diskIds)),
    sync: async () => {
      await threads.callTogether([{ name: "sync", values: [] }]);
    },
    restApplications: async (signal) => await restApplications(systemScripts, { clock: options.clock, signal }),
    armFreeze: (limits) => {
      const diskNames = new Set((facts?.disks ?? []).map((disk) => disk.deviceName));
      return armFreeze({ threads, clock: options.clock, diskNames, msMax: limits.msMax });
    },
    uninstall: () => removeInstallation(options.stateFolder),
  };
}
