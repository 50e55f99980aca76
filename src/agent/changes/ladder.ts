// The ladder of tracking: the best rung that the machine allows, with the reason why no better one is used.

import type { Clock } from "../../base/clock.ts";
import { KernelRefused } from "../kernel/system-calls.ts";
import { BlindTracker } from "./blind-tracker.ts";
import { openEbpfTracker, removePinsExcept, type EbpfTrackerOptions } from "./ebpf-tracker.ts";
import { openTracefsTracker, removeTracesExcept, ringFactorOf } from "./tracefs-tracker.ts";
import type { ChangeTracker } from "./tracker.ts";

export const rungs = ["ebpf", "tracefs", "checksum"] as const;
export type Rung = (typeof rungs)[number];

export interface LadderOptions extends EbpfTrackerOptions {
  readonly clock: Clock;
  readonly memoryBytes: number;
  readonly cpuCount: number;
  readonly hasBase: boolean;
  /** The best rung that may be used; all unless given. */
  readonly bestRung?: Rung;
}

/** Rungs that see changes, best first. */
const seeing: readonly {
  readonly rung: Rung;
  readonly name: string;
  readonly open: (options: LadderOptions, why: string) => Promise<ChangeTracker>;
}[] = [
  { rung: "ebpf", name: "eBPF", open: (options) => openEbpfTracker(options) },
  {
    rung: "tracefs",
    name: "tracefs",
    open: (options, whyNotBetter) => openTracefsTracker({ ...options, whyNotBetter, ringKilobytes: ringKilobytesOf(options) }),
  },
];

/** Tries from the best rung down. The lowest always holds: there nothing is seen, and all is read. */
export async function openBestTracker(options: LadderOptions): Promise<ChangeTracker> {
  const refusals: string[] = [];
  for (const { rung, name, open } of seeing) {
    if (rungs.indexOf(rung) < rungs.indexOf(options.bestRung ?? "ebpf")) {
      refusals.push(`${name} is switched off`);
      continue;
    }
    try {
      return await open(options, refusals.join("; "));
    } catch (error) {
      refusals.push(`${name}: ${describeRefusal(error)}`);
    }
  }
  return new BlindTracker({ ...options, whyNotBetter: refusals.join("; ") });
}

/** Ends what tracks other disks than these, on every rung: it would go on for ever. */
export async function removeTrackingExcept(keep: ReadonlySet<string>): Promise<void> {
  await removePinsExcept(keep);
  await removeTracesExcept(keep);
}

const ringBytesMin = 1 << 20;
const ringBytesMax = 8 << 20;
const ringKilobytesMin = 64;

/** 1/512 of the memory for each disk, 1 to 8 MiB, more once it has overrun. */
function ringKilobytesOf(options: LadderOptions): number {
  const bytes = Math.min(Math.max(options.memoryBytes / 512, ringBytesMin), ringBytesMax) * ringFactorOf(options.diskId);
  return Math.max(ringKilobytesMin, Math.round(bytes / 1024 / options.cpuCount));
}

function describeRefusal(error: unknown): string {
  if (error instanceof KernelRefused && error.errorName === "EPERM")
    return "the kernel does not allow it here (lockdown or missing rights)";
  return (error instanceof Error ? error.message : String(error)).slice(0, 180);
}
