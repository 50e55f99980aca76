// The hours in which a wave of a recovery plan may begin cut-overs: from and to by UTC, over midnight too, on the days on which it opens.

import { z } from "zod";

const days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"] as const;
const hour = z.string().regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/, 'a time of day by UTC, as "22:30"');

export const timeWindowShape = z
  .strictObject({
    from: hour,
    to: hour,
    /** Days on which it opens; every day unless told. */
    days: z.array(z.enum(days)).min(1).max(7).optional(),
  })
  .refine(({ from, to }) => from !== to, "a window from a time to the same time is none; leave it out to allow all hours");
export type TimeWindow = z.infer<typeof timeWindowShape>;

const minuteMs = 60_000;
const dayMinutes = 24 * 60;

export function isOpen({ from, to, days: opening }: TimeWindow, nowMs: number): boolean {
  const minutes = Math.floor(nowMs / minuteMs);
  const [begin, end, now] = [minutesOf(from), minutesOf(to), minutes % dayMinutes];
  const today = Math.floor(minutes / dayMinutes);
  const opensOn = (day: number): boolean => opening === undefined || opening.includes(days[(day + firstDay) % 7] ?? "Sun");
  if (begin < end) return now >= begin && now < end && opensOn(today);
  // Over midnight: the hours after it belong to the day before.
  return now >= begin ? opensOn(today) : now < end && opensOn(today - 1);
}

/** 1970 began on a Thursday. */
const firstDay = 4;

/** The minute at which it opens next; now, when it is open. */
export function nextOpening(window: TimeWindow, nowMs: number): number {
  if (isOpen(window, nowMs)) return nowMs;
  const first = (Math.floor(nowMs / minuteMs) + 1) * minuteMs;
  for (let at = first; at <= first + 8 * dayMinutes * minuteMs; at += minuteMs) if (isOpen(window, at)) return at;
  throw new Error("assertion failed: a window opens within eight days");
}

function minutesOf(text: string): number {
  return Number(text.slice(0, 2)) * 60 + Number(text.slice(3));
}
