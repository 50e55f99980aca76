// The real source: this Linux machine, its disks, its change tracking and its filesystems.

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import { runCommand } from "../base/run-command.ts";
import type { MachineFacts, SourceDisk } from "../contract/agent-control.ts";
import { asFault, Fault } from "../contract/errors.ts";
import { granuleBytes } from "../disk/geometry.ts";
import { openBestTracker, removeTrackingExcept, type Rung } from "./changes/ladder.ts";
import { readMachineFacts } from "./disks/machine-facts.ts";
import { listPhysicalDisks } from "./disks/sysfs.ts";
import { allocatePageAligned } from "./kernel/page-aligned.ts";
import { openSystemCalls } from "./kernel/system-calls.ts";
import { freezeFilesystems, thawLeftovers } from "./snapshot/freeze.ts";
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
  await thawLeftovers();
  await endLeftRest(systemScripts, options.clock);
  let facts: MachineFacts | undefined;
  return {
    facts: async () => (facts = await readMachineFacts()),
    openDisk: openDirect,
    openTracker: async (disk, request) => {
      const physical = (await listPhysicalDisks()).find((one) => one.name === disk.facts.deviceName);
      if (physical === undefined) throw new Fault("StateConflict", `could not track the disk ${disk.facts.diskId}: it is gone`);
      const probe = allocatePageAligned(granuleBytes);
      const tracker = await openBestTracker({
        calls,
        clock: options.clock,
        memoryBytes: totalmem(),
        cpuCount: availableParallelism(),
        hasBase: request.hasBase,
        ...(options.bestRung === undefined ? {} : { bestRung: options.bestRung }),
        diskId: disk.facts.diskId,
        device: physical.device,
        sizeBytes: physical.sizeBytes,
        session: request.session === undefined ? undefined : Buffer.from(request.session, "hex"),
        newSession: options.random.bytes(16),
        readProbe: () => disk.read(0, probe),
      });
      return { tracker, session: Buffer.from(tracker.session).toString("hex") };
    },
    removeTrackersExcept: (diskIds) => removeTrackingExcept(new Set(diskIds)),
    sync: async () => {
      await runCommand("sync", []);
    },
    restApplications: async (signal) => await restApplications(systemScripts, { clock: options.clock, signal }),
    freeze: (limits) => {
      const diskNames = new Set((facts?.disks ?? []).map((disk) => disk.deviceName));
      return freezeFilesystems({ calls, clock: options.clock, diskNames, msMax: limits.msMax });
    },
    uninstall: () => removeInstallation(options.stateFolder),
  };
}

async function openDirect(facts: SourceDisk): Promise<OpenDisk> {
  const file = await open(join("/dev", facts.deviceName), constants.O_RDONLY | constants.O_DIRECT);
  return {
    facts,
    read: async (offset, into) => {
      const wanted = Math.max(0, Math.min(into.length, facts.sizeBytes - offset));
      let done = 0;
      while (done < wanted) {
        const { bytesRead } = await file.read(into, done, into.length - done, offset + done).catch((error: unknown) => {
          throw new Fault("DataDamaged", `could not read the disk ${facts.deviceName} at ${offset}: ${asFault(error, "read").message}`, {
            evidence: { diskId: facts.diskId, offset },
            cause: error,
          });
        });
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      if (done < wanted)
        throw new Fault("DataDamaged", `the disk ${facts.deviceName} ended at ${offset + done}, before its size`, {
          evidence: { diskId: facts.diskId },
        });
      into.fill(0, wanted);
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}
