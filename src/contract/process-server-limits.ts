// The documented limits by which a process server is judged, for whoever shows one.

export type LimitLevel = "Healthy" | "Warning" | "Critical";

/** Processors and memory above, free space below, minutes until what waits is uploaded above, minutes of silence above. */
export const processServerLimits = {
  loadShare: { warning: 0.8, critical: 0.95 },
  freeShare: { warning: 0.3, critical: 0.25 },
  drainMinutes: { warning: 30, critical: 45 },
  silentMinutes: { critical: 15 },
};
/** What waits while one pack is on its way says nothing of the line. */
export const pendingBytesSmall = 64 << 20;

export function levelAbove(value: number, limit: { readonly warning: number; readonly critical: number }): LimitLevel {
  return value > limit.critical ? "Critical" : value > limit.warning ? "Warning" : "Healthy";
}

export function levelBelow(value: number, limit: { readonly warning: number; readonly critical: number }): LimitLevel {
  return value < limit.critical ? "Critical" : value < limit.warning ? "Warning" : "Healthy";
}
