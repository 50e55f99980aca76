// Measures what a machine writes over a while: its trackers are on, nothing is read from the disks and nothing is sent.

import type { Clock } from "../../base/clock.ts";
import { profileSamplesMax, type ChurnProfile } from "../../contract/churn-profile.ts";
import { granuleBytes } from "../../disk/geometry.ts";
import { countGranules, type ChangeTracker, type Mark } from "../changes/tracker.ts";
import { withoutExcluded } from "../disks/ranges.ts";
import type { OpenDisk } from "../source.ts";

export interface ProfiledDisk {
  readonly open: OpenDisk;
  readonly tracker: ChangeTracker;
}

/** Windows of 1, 2, 4, … samples. */
const scaleCount = 7;

/** Nobody else may use the trackers meanwhile. Rejects when the signal ends, or when a tracker lost events. */
export async function profileChurn(
  disks: readonly ProfiledDisk[],
  { clock, seconds }: { readonly clock: Clock; readonly seconds: number },
  signal: AbortSignal,
): Promise<ChurnProfile> {
  const sampleCount = Math.min(profileSamplesMax, Math.floor(seconds));
  const sampleMs = (seconds * 1000) / sampleCount;
  const marks: (readonly Mark[])[] = [await Promise.all(disks.map(async ({ tracker }) => await tracker.compact()))];
  const startMs = clock.monotonicMs();
  const changed: number[][] = Array.from({ length: scaleCount }, () => []);
  for (let sample = 1; sample <= sampleCount; sample++) {
    await clock.sleep(Math.max(0, startMs + sample * sampleMs - clock.monotonicMs()), signal);
    marks.push(await Promise.all(disks.map(async ({ tracker }) => await tracker.tick())));
    for (const [scale, windows] of changed.entries())
      if (sample % 2 ** scale === 0) windows.push(bytesBetween(disks, marks[sample - 2 ** scale], marks[sample]));
  }
  return {
    sampleSeconds: sampleMs / 1000,
    samples: changed[0] ?? [],
    windows: changed.flatMap((windows, scale) => (windows.length === 0 ? [] : [windowOf(windows, (sampleMs * 2 ** scale) / 1000)])),
    disks: disks.map(({ open: { facts }, tracker }) => ({ diskId: facts.diskId, sizeBytes: facts.sizeBytes, ...tracker.tracking })),
  };
}

function bytesBetween(disks: readonly ProfiledDisk[], since: readonly Mark[] = [], until: readonly Mark[] = []): number {
  let granules = 0;
  for (const [index, { open, tracker }] of disks.entries()) {
    const [from, to] = [since[index], until[index]];
    if (from === undefined || to === undefined) throw new Error("assertion failed: every disk has a mark of each sample");
    granules += countGranules(withoutExcluded(tracker.changed({ since: from, until: to }), open.facts.excluded));
  }
  return granules * granuleBytes;
}

function windowOf(bytes: readonly number[], seconds: number): ChurnProfile["windows"][number] {
  return { seconds, meanBytes: bytes.reduce((sum, each) => sum + each, 0) / bytes.length, maxBytes: Math.max(...bytes) };
}
