// Checks a launch order before anything is made: every target refuses the same mistakes in the same words.

import { isIPv4 } from "node:net";
import { Fault } from "../contract/errors.ts";
import type { LaunchSpec, NicAddressing } from "./target.ts";

const disksMax = 16;
const nicsMax = 8;
const keysMax = 8;
const nameServersMax = 4;
const memoryBytesMin = 64 * 2 ** 20;

function isAddress({ address, gateway, nameServers = [] }: Extract<NicAddressing, { readonly kind: "fixed" }>): boolean {
  const [host = "", prefix = ""] = address.split("/");
  const isPrefix = /^\d{1,2}$/.test(prefix) && Number(prefix) <= 32 && address === `${host}/${prefix}`;
  return (
    isPrefix && nameServers.length <= nameServersMax && [host, ...(gateway === undefined ? [] : [gateway]), ...nameServers].every(isIPv4)
  );
}

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
  const badAddressing = spec.nics.find(({ addressing }) => addressing?.kind === "fixed" && !isAddress(addressing));
  if (badAddressing !== undefined)
    refuse("a card's fixed address is as 10.0.0.5/24, its gateway and name servers as 10.0.0.1", badAddressing.mac);
  if ((spec.unlockKeys ?? []).length > keysMax) refuse(`it has more than ${keysMax} keys of encrypted disks`, keysMax);
  if (badMac !== undefined) refuse("a card's address is six pairs of hex digits with colons", badMac.mac.slice(0, 80));
}
