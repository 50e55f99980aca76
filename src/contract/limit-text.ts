// Limits as people write them: rates ("200mbit", "25MB") and windows ("mon-fri", "08:00").

import { Fault } from "./errors.ts";
import { weekDays, type LimitWindow, type WeekDay } from "./line-limits.ts";

const rateUnits: Readonly<Record<string, number>> = {
  ...{ kbit: 125, mbit: 125_000, gbit: 125_000_000 },
  ...{ kb: 1e3, mb: 1e6, gb: 1e9, kib: 1024, mib: 2 ** 20, gib: 2 ** 30, b: 1 },
};

/** Bytes a second. */
export function parseRate(option: string, text: string): number | "unlimited" {
  if (text.toLowerCase() === "unlimited") return "unlimited";
  const [, number = "", unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]+?)(?:\/s|ps)?$/i.exec(text) ?? [];
  const factor = rateUnits[unit.toLowerCase()];
  if (factor === undefined)
    throw new Fault("InputInvalid", `could not read ${option} ${text}`, {
      action: "write a number with kbit, mbit, gbit, KB, MB, GB, KiB, MiB or GiB, or unlimited",
    });
  return Math.round(Number(number) * factor);
}

/** Undefined where nothing of a window is given. */
export function parseWindow(given: {
  readonly days?: string | undefined;
  readonly from?: string | undefined;
  readonly until?: string | undefined;
}): LimitWindow | undefined {
  const { days, from, until } = given;
  if (days === undefined && from === undefined && until === undefined) return undefined;
  return { days: days === undefined ? [...weekDays] : parseDays(days), from: from ?? "00:00", until: until ?? "00:00" };
}

/** "mon-fri,sun". */
function parseDays(text: string): WeekDay[] {
  const chosen = new Set<WeekDay>();
  for (const part of text.toLowerCase().split(",")) {
    const [first = "", last = first] = part.split("-");
    const begin = weekDays.findIndex((day) => day === first);
    const end = weekDays.findIndex((day) => day === last);
    if (begin < 0 || end < 0)
      throw new Fault("InputInvalid", `could not read --days ${text}`, {
        action: `write them as mon-fri or sat,sun; days are ${weekDays.join(", ")}`,
      });
    for (let index = begin; ; index = (index + 1) % weekDays.length) {
      const day = weekDays[index];
      if (day !== undefined) chosen.add(day);
      if (index === end) break;
    }
  }
  return weekDays.filter((day) => chosen.has(day));
}
