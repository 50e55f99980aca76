// Says which limit holds on a line at an instant, why, and until when: from values alone.

import { weekDays, type LimitPlace, type LimitWindow, type LineLimit } from "../../contract/line-limits.ts";

export interface LimitInForce {
  readonly bytesPerSecond: number | undefined;
  readonly reason: string;
  /** When another answer may come; undefined when the limits have no windows. */
  readonly untilMs: number | undefined;
}

const dayMinutes = 24 * 60;
const weekMinutes = 7 * dayMinutes;
const minuteMs = 60_000;

/** A limit with a window outranks one without while its window lasts; of several windows the lowest limit holds. */
export function limitInForce(limits: readonly LineLimit[], at: { readonly nowMs: number; readonly timeZone: string }): LimitInForce {
  if (limits.length === 0) return { bytesPerSecond: undefined, reason: "no limit is set", untilMs: undefined };
  const local = localTime(at.nowMs, at.timeZone);
  const windowed = limits.flatMap((limit) => (limit.window === undefined ? [] : [{ limit, window: limit.window }]));
  const open = windowed
    .filter(({ window }) => isOpen(window, local.weekMinute))
    .toSorted((one, two) => rateOf(one.limit) - rateOf(two.limit));
  const untilMs = windowed.length === 0 ? undefined : at.nowMs + msToNextEdge(windowed, local);
  const strongest = open[0];
  if (strongest !== undefined) {
    const reason = `the window ${windowText(strongest.window)} (${at.timeZone}) is open`;
    return {
      bytesPerSecond: toRate(strongest.limit),
      reason: open.length > 1 ? `${reason}; the lowest of ${open.length}` : reason,
      untilMs,
    };
  }
  const always = limits.find((limit) => limit.window === undefined);
  if (always !== undefined) {
    const reason = windowed.length === 0 ? "set for all times" : "set for all times, and no window is open";
    return { bytesPerSecond: toRate(always), reason, untilMs };
  }
  return { bytesPerSecond: undefined, reason: "no window is open", untilMs };
}

/** Same place: one replaces the other. */
export function isSamePlace(one: LimitPlace, two: LimitPlace): boolean {
  const textOf = ({ scope, machineId, window }: LimitPlace): string =>
    JSON.stringify([scope, machineId, window === undefined ? undefined : windowText(window)]);
  return textOf(one) === textOf(two);
}

export function windowText({ days, from, until }: LimitWindow): string {
  return `${weekDays.filter((day) => days.includes(day)).join(",")} ${from}-${until}`;
}

/** Whether the system knows the zone. */
export function isTimeZone(name: string): boolean {
  try {
    return Intl.DateTimeFormat("en-US", { timeZone: name }).resolvedOptions().timeZone !== "";
  } catch {
    return false; // RangeError is how Intl says no.
  }
}

export function systemTimeZone(): string {
  return new Intl.DateTimeFormat("en-US").resolvedOptions().timeZone;
}

function toRate({ bytesPerSecond }: LineLimit): number | undefined {
  return bytesPerSecond === "unlimited" ? undefined : bytesPerSecond;
}

function rateOf({ bytesPerSecond }: LineLimit): number {
  return bytesPerSecond === "unlimited" ? Infinity : bytesPerSecond;
}

interface LocalTime {
  /** Minutes since Monday 00:00. */
  readonly weekMinute: number;
  /** Of the present minute. */
  readonly passedMs: number;
}

/** Formats are dear to make. */
const formats = new Map<string, Intl.DateTimeFormat>();

function localTime(nowMs: number, timeZone: string): LocalTime {
  const format =
    formats.get(timeZone) ??
    new Intl.DateTimeFormat("en-US", { timeZone, weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  formats.set(timeZone, format);
  const parts = new Map(format.formatToParts(nowMs).map(({ type, value }) => [type, value]));
  const day = weekDays.findIndex((each) => each === parts.get("weekday")?.toLowerCase());
  return { weekMinute: day * dayMinutes + Number(parts.get("hour")) * 60 + Number(parts.get("minute")), passedMs: nowMs % minuteMs };
}

/** Start and length within the week, one of each day. */
function spansOf({ days, from, until }: LimitWindow): readonly { readonly start: number; readonly length: number }[] {
  const length = (minuteOf(until) - minuteOf(from) + dayMinutes) % dayMinutes || dayMinutes;
  return days.map((day) => ({ start: weekDays.indexOf(day) * dayMinutes + minuteOf(from), length }));
}

function isOpen(window: LimitWindow, weekMinute: number): boolean {
  return spansOf(window).some(({ start, length }) => (weekMinute - start + weekMinutes) % weekMinutes < length);
}

/** A change of the clocks in between makes this an hour wrong; the limit is looked at again long before. */
function msToNextEdge(windowed: readonly { readonly window: LimitWindow }[], { weekMinute, passedMs }: LocalTime): number {
  let next = weekMinutes;
  for (const { window } of windowed)
    for (const { start, length } of spansOf(window))
      for (const edge of [start, start + length]) next = Math.min(next, (edge - weekMinute + 2 * weekMinutes) % weekMinutes || weekMinutes);
  return next * minuteMs - passedMs;
}

function minuteOf(timeOfDay: string): number {
  const [hour = "", minute = ""] = timeOfDay.split(":");
  return Number(hour) * 60 + Number(minute);
}
