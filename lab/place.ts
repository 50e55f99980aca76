// Where one lab lives on this machine: its prefix, its folders and its namespaces' names.

import { join } from "node:path";
import { Fault } from "../src/contract/errors.ts";

export const zones = ["onprem", "dmz", "internet", "landing"] as const;
export type Zone = (typeof zones)[number];

export interface LabPlace {
  readonly prefix: string;
  /** Facts, sockets, logs, secrets; gone after a reboot. */
  readonly stateFolder: string;
  /** The machines' disks, on a real file system so that a flush is a flush. */
  readonly diskFolder: string;
  readonly cacheFolder: string;
}

export const stateRoot = "/run/watari-lab";
export const diskRoot = "/var/lib/watari-lab";
const prefixPattern = /^[a-z][a-z0-9]{0,7}$/;

export function labPlace(options: { readonly prefix?: string | undefined } = {}): LabPlace {
  const prefix = options.prefix ?? "wtr";
  if (!prefixPattern.test(prefix)) {
    throw new Fault(
      "InputInvalid",
      `could not use ${JSON.stringify(prefix)} as a lab prefix: it takes 1 to 8 of a-z and 0-9, a letter first`,
    );
  }
  return {
    prefix,
    stateFolder: join(stateRoot, prefix),
    diskFolder: join(diskRoot, prefix),
    cacheFolder: process.env["WATARI_CACHE"] ?? "/var/cache/watari",
  };
}

export function namespaceOf(place: LabPlace, zone: Zone): string {
  return `${place.prefix}-${zone}`;
}
