// Checks a launch order before anything is made: every target refuses the same mistakes in the same words.

import { isIPv4 } from "node:net";
import { Fault } from "../contract/errors.ts";
import type { LaunchSpec, NicAddressing } from "./target.ts";

const disksMax = 16;
const nicsMax = 8;
const keysMax = 8;
const nameServersMax = 4;
const memoryBytesMin = 64 * 2 ** 20;

/** Why a card cannot be given this address; undefined when it can. */
export function addressingProblem(addressing: NicAddressing): string | undefined {
  if (addressing.kind !== "fixed") return undefined;
  const { address, gateway, nameServers = [] } = addressing;
  const [host = "", prefix = ""] = address.split("/");
  if (!isIPv4(host) || !/^([1-9]|[12]\d|30)$/.test(prefix) || address !== `${host}/${prefix}`)
    return "a fixed address is IPv4 with a prefix of 1 to 30, as 10.0.0.5/24";
  const mask = (0xffff_ffff << (32 - Number(prefix))) >>> 0;
  const inSubnet = (text: string): boolean => ((toNumber(text) ^ toNumber(host)) & mask) === 0;
  const isEdge = (text: string): boolean => [0, ~mask >>> 0].includes((toNumber(text) & ~mask) >>> 0);
  if (isEdge(host)) return "a fixed address is neither the first nor the last of its subnet";
  if (gateway !== undefined && (!isIPv4(gateway) || !inSubnet(gateway) || isEdge(gateway) || gateway === host))
    return "a gateway is another address of the card's own subnet, as 10.0.0.1";
  if (nameServers.length > nameServersMax || !nameServers.every(isIPv4))
    return `name servers are up to ${nameServersMax} IPv4 addresses, as 10.0.0.1`;
  return undefined;
}

function toNumber(address: string): number {
  return address.split(".").reduce((sum, octet) => sum * 256 + Number(octet), 0);
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
  for (const { mac, addressing } of spec.nics) {
    const problem = addressing === undefined ? undefined : addressingProblem(addressing);
    if (problem !== undefined) refuse(problem, mac);
  }
  if ((spec.unlockKeys ?? []).length > keysMax) refuse(`it has more than ${keysMax} keys of encrypted disks`, keysMax);
  if (badMac !== undefined) refuse("a card's address is six pairs of hex digits with colons", badMac.mac.slice(0, 80));
}
