// Rates as people write and read them: "200mbit", "25MB", "23.8 MiB/s".

import { formatBytes } from "../../cli/output.ts";
import { Fault } from "../../contract/errors.ts";

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

export function rateText(bytesPerSecond: number | undefined): string {
  return bytesPerSecond === undefined ? "unlimited" : `${formatBytes(Math.round(bytesPerSecond))}/s`;
}
