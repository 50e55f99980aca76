// What a machine writes over a while, measured without replicating it, and what that asks of a line: from values alone.

import { z } from "zod";
import { countShape, diskIdShape } from "./shapes.ts";

export const profileSecondsMin = 10;
export const profileSecondsMax = 7 * 86_400;
/** Samples of one profile; trackers cannot tell many more moments apart. */
export const profileSamplesMax = 120;

export const churnProfileShape = z.object({
  /** Time between two samples. */
  sampleSeconds: z.number().positive(),
  /** Bytes in pieces of 4 KiB that changed in each sample; a piece written twice in a sample counts once. */
  samples: z.array(countShape).min(1).max(profileSamplesMax),
  /** The same over longer windows: what is written again and again has to be moved once a window. */
  windows: z.array(z.object({ seconds: z.number().positive(), meanBytes: z.number(), maxBytes: countShape })).max(16),
  disks: z.array(z.object({ diskId: diskIdShape, sizeBytes: countShape, rung: z.string().max(20), reason: z.string().max(400) })).max(64),
});
export type ChurnProfile = z.infer<typeof churnProfileShape>;

export interface LineWish {
  readonly lineBytesPerSecond: number;
  /** Between recovery points. */
  readonly intervalSeconds: number;
  /** Bytes on the wire for each byte that changed. */
  readonly wireShare: number;
}

export interface LinePrediction extends LineWish {
  /** Share of the line that the changes take on average. */
  readonly lineShare: number;
  /** Age of the newest point just before the next one is sealed: typical, and in the busiest window that was seen. */
  readonly typicalObjectiveSeconds: number | undefined;
  readonly worstObjectiveSeconds: number | undefined;
  /** Shortest interval that the line carries also in the busiest window; undefined: none that was measured. */
  readonly shortestIntervalSeconds: number | undefined;
  /** The first copy of all disks, when every block has content. */
  readonly initialCopySeconds: number;
}

/** A point shows its moment, and is sealed when its changes are moved: the objective is the interval and the time of the transfer. */
export function predictLine(profile: ChurnProfile, wish: LineWish): LinePrediction {
  const { lineBytesPerSecond: line, intervalSeconds, wireShare } = wish;
  const moveSeconds = (bytes: number): number => (bytes * wireShare) / line;
  const typical = moveSeconds(changedIn(profile, intervalSeconds, "meanBytes"));
  const worst = moveSeconds(changedIn(profile, intervalSeconds, "maxBytes"));
  const carried = profile.windows.find(({ seconds, maxBytes }) => moveSeconds(maxBytes) <= seconds);
  const sizeBytes = profile.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
  return {
    ...wish,
    lineShare: typical / intervalSeconds,
    typicalObjectiveSeconds: typical <= intervalSeconds ? intervalSeconds + typical : undefined,
    worstObjectiveSeconds: worst <= intervalSeconds ? intervalSeconds + worst : undefined,
    shortestIntervalSeconds: carried?.seconds,
    initialCopySeconds: moveSeconds(sizeBytes),
  };
}

/** Bytes that change within so many seconds: between two measured windows by a straight line, beyond them in proportion. */
function changedIn({ windows }: ChurnProfile, seconds: number, kind: "meanBytes" | "maxBytes"): number {
  const first = windows[0];
  const last = windows.at(-1);
  if (first === undefined || last === undefined) return 0;
  if (seconds <= first.seconds) return kind === "maxBytes" ? first.maxBytes : (first.meanBytes * seconds) / first.seconds;
  if (seconds >= last.seconds) return (last[kind] * seconds) / last.seconds;
  const place = windows.findIndex((window) => window.seconds >= seconds);
  const [below, above] = [windows[place - 1] ?? first, windows[place] ?? last];
  const share = (seconds - below.seconds) / (above.seconds - below.seconds);
  return below[kind] + share * (above[kind] - below[kind]);
}
