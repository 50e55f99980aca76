// Checks a launch order before anything is made: every target refuses the same mistakes in the same words.

import { Fault } from "../contract/errors.ts";
import type { LaunchSpec } from "./target.ts";

const disksMax = 16;
const nicsMax = 8;
const memoryBytesMin = 64 * 2 ** 20;

/** Throws Fault InputInvalid that names the first value that is wrong. */
export function checkSpec(spec: LaunchSpec): void {
  const refuse = (what: string, value: string | number): never => {
    throw new Fault("InputInvalid", `could not land machine ${JSON.stringify(spec.name.slice(0, 80))}: ${what}`, { evidence: { value } });
  };
  if (!/^[a-z0-9-]{1,60}$/.test(spec.name)) refuse("a name has 1 to 60 of a-z, 0-9 and -", spec.name.slice(0, 80));
  if (!Number.isInteger(spec.cpuCount) || spec.cpuCount < 1 || spec.cpuCount > 256) refuse("it needs 1 to 256 processors", spec.cpuCount);
  if (!Number.isSafeInteger(spec.memoryBytes) || spec.memoryBytes < memoryBytesMin)
    refuse("it needs at least 64 MiB of memory", spec.memoryBytes);
  if (spec.disks.length > disksMax) refuse(`it has more than ${disksMax} disks`, spec.disks.length);
  const bootCount = spec.disks.filter(({ isBoot }) => isBoot).length;
  if (bootCount !== 1) refuse("exactly one disk is the boot disk", bootCount);
  if (spec.nics.length > nicsMax) refuse(`it has more than ${nicsMax} cards`, spec.nics.length);
  const badMac = spec.nics.find(({ mac }) => !/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(mac));
  if (badMac !== undefined) refuse("a card's address is six pairs of hex digits with colons", badMac.mac.slice(0, 80));
}
