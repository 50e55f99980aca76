// The upgrade of a landed copy's operating system: what the disk, the unit in the guest, and the hub agree on.

import { z } from "zod";
import { parseDiskId } from "./ids.ts";

/** Releases that one can be upgraded to, each from the one before it alone, as Debian asks. */
export const releases = {
  debian11: { codename: "bullseye", title: "Debian 11" },
  debian12: { codename: "bookworm", title: "Debian 12", from: "debian11" },
  debian13: { codename: "trixie", title: "Debian 13", from: "debian12" },
} as const;
export type Release = keyof typeof releases;
export const upgradeTargets = ["debian12", "debian13"] as const satisfies readonly Release[];
export type UpgradeTarget = (typeof upgradeTargets)[number];

export function isUpgradeTarget(text: string): text is UpgradeTarget {
  return upgradeTargets.some((each) => each === text);
}

/** Label of the filesystem on the disk; ext4 takes 16 letters. */
export const upgradeLabel = "WATARI-UPGRADE";
/** Where the unit mounts the disk in the guest. */
export const upgradeMount = "/run/watari-os-upgrade";
/** Name of the disk among those of the landed machine. */
export const upgradeDiskId = parseDiskId("watari-os-upgrade");

/** Beside the disk, as `<file>.json`. */
export const upgradeDiskShape = z.object({
  version: z.literal(1),
  from: z.enum(["debian11", "debian12"]),
  to: z.enum(upgradeTargets),
  /** Of the disk's file. */
  sizeBytes: z.number().int().positive(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** Package to version, all that lie on it. */
  packages: z.record(z.string(), z.string()),
});
export type UpgradeDisk = z.infer<typeof upgradeDiskShape>;

export interface UpgradeReport {
  readonly state: "running" | "done" | "failed";
  readonly percent: number;
  readonly text: string;
}

/** The newest word of the guest about its upgrade in a piece of its serial console; undefined when there is none. Other words may stand around it. */
export function findUpgradeReport(serial: string): UpgradeReport | undefined {
  // The line must have ended: half a line is not yet said.
  const found = [...serial.matchAll(/WATARI-OS-UPGRADE (running|done|failed) (\d{1,3})(?: ([^\r\n]{0,500}))?\r?\n/g)].at(-1);
  if (found === undefined) return undefined;
  const [, state, percent, text = ""] = found;
  return { state: state as UpgradeReport["state"], percent: Math.min(100, Number(percent)), text };
}

/** The releases that a machine could be upgraded to, by the name that its system gives itself ("Debian GNU/Linux 12 (bookworm)"). */
export function upgradesOf(osName: string): readonly UpgradeTarget[] {
  const version = /^Debian GNU\/Linux (\d+)\b/.exec(osName)?.[1];
  return upgradeTargets.filter((to) => releases[to].from === `debian${version ?? ""}`);
}
