// The documented limits by which a process server is judged, for whoever shows one.

export type LimitLevel = "Healthy" | "Warning" | "Critical";

/** Processors and memory above, free space below, minutes until what waits is uploaded above, minutes of silence above. */
export const processServerLimits = {
  loadShare: { warning: 0.8, critical: 0.95 },
  freeShare: { warning: 0.3, critical: 0.25 },
  drainMinutes: { warning: 30, critical: 45 },
  silentMinutes: { critical: 15 },
};
/** Below the first share of free cache agents are slowed down, until the second is free again. */
export const cacheThrottle = { belowShare: 0.2, untilShare: processServerLimits.freeShare.critical };
/** So much of the cache's disk is left free: with less, no new point begins. */
export const cacheReserveBytes = 128 << 20;
/** What waits while one pack is on its way says nothing of the line. */
export const pendingBytesSmall = 64 << 20;

export function levelAbove(value: number, limit: { readonly warning: number; readonly critical: number }): LimitLevel {
  return value > limit.critical ? "Critical" : value > limit.warning ? "Warning" : "Healthy";
}

export function levelBelow(value: number, limit: { readonly warning: number; readonly critical: number }): LimitLevel {
  return value < limit.critical ? "Critical" : value < limit.warning ? "Warning" : "Healthy";
}

export interface CacheSpace {
  readonly totalBytes: number;
  readonly freeBytes: number;
  readonly freeShare: number;
}

/** What packs that wait for their upload may take; the disk may end before their own limit does. */
export function cacheSpaceOf(of: {
  readonly spoolBytes: number;
  readonly spoolBytesMax: number;
  readonly diskAvailableBytes: number | undefined;
}): CacheSpace {
  const { spoolBytes, spoolBytesMax, diskAvailableBytes = Infinity } = of;
  const roomBytes = Math.max(0, diskAvailableBytes - cacheReserveBytes);
  const freeBytes = Math.min(Math.max(0, spoolBytesMax - spoolBytes), roomBytes);
  const totalBytes = Math.min(spoolBytesMax, spoolBytes + roomBytes);
  return { totalBytes, freeBytes, freeShare: freeBytes / Math.max(1, totalBytes) };
}
