// Name resolution and addresses by lease: one dnsmasq a zone, each with its own view of the same names.

import { writeFile } from "node:fs/promises";
import { runCommand } from "../src/base/run-command.ts";
import { domain, internet, landing, onprem, publicNames, siteDomain, splitZones } from "./addresses.ts";
import type { LabPlace, Zone } from "./place.ts";
import { daemonProcess, inZone, labExec, waitUntil } from "./processes.ts";

export interface Lease {
  readonly name: string;
  readonly mac: string;
  readonly address: string;
}

const common = ["no-resolv", "no-hosts", "bind-interfaces", "cache-size=0", "user=root", "domain-needed"] as const;

/** The site's view: its own names, the hub's private zones by forwarding, and no public name at all. */
function siteView(place: LabPlace, leases: readonly Lease[]): readonly string[] {
  return [
    `listen-address=${onprem.dns}`,
    `addn-hosts=${place.stateFolder}/dns-overrides`,
    `local=/${domain}/`,
    ...splitZones.map((zone) => `server=/${zone}/${landing.dns}`),
    `host-record=vcenter.${siteDomain},${onprem.vcenter}`,
    `host-record=appliance.${siteDomain},${onprem.appliance}`,
    ...leases.map((lease) => `host-record=${lease.name}.${siteDomain},${lease.address}`),
    "dhcp-range=10.10.0.100,static,255.255.255.0,12h",
    ...leases.map((lease) => `dhcp-host=${lease.mac},${lease.address}`),
    `dhcp-option=option:router,${onprem.gateway}`,
    `dhcp-option=option:dns-server,${onprem.dns}`,
    `dhcp-option=option:domain-name,${siteDomain}`,
    ...leaseSettings(place, "onprem"),
  ];
}

/** The public view: the hub's public names, and the public addresses of services that are meant to be used privately. */
function publicView(): readonly string[] {
  return [
    `listen-address=${internet.dns}`,
    `local=/${domain}/`,
    ...publicNames.map((name) => `host-record=${name},${internet.hub}`),
    ...splitZones.map((zone) => `address=/${zone}/${internet.services}`),
  ];
}

/** Landed machines get addresses here; their names are the hub's business. */
function landingLeases(place: LabPlace): readonly string[] {
  return [
    "port=0",
    "interface=br-land",
    `dhcp-range=${landing.machinesFirst},${landing.machinesLast},255.255.255.0,12h`,
    `dhcp-option=option:router,${landing.bridge}`,
    `dhcp-option=option:dns-server,${landing.dns}`,
    ...leaseSettings(place, "landing"),
  ];
}

function leaseSettings(place: LabPlace, zone: Zone): readonly string[] {
  return ["no-ping", "dhcp-authoritative", `dhcp-leasefile=${place.stateFolder}/leases-${zone}`];
}

export async function startNames(place: LabPlace, leases: readonly Lease[]): Promise<void> {
  await writeFile(`${place.stateFolder}/dns-overrides`, "");
  const views: readonly (readonly [Zone, readonly string[]])[] = [
    ["onprem", siteView(place, leases)],
    ["internet", publicView()],
    ["landing", landingLeases(place)],
  ];
  for (const [zone, view] of views) {
    const file = `${place.stateFolder}/dnsmasq-${zone}.conf`;
    const files = [`pid-file=${place.stateFolder}/dnsmasq-${zone}.pid`, `log-facility=${place.stateFolder}/dnsmasq-${zone}.log`];
    await writeFile(file, `${[...common, ...files, ...view].join("\n")}\n`);
    // It goes to the background by itself, after its sockets are bound.
    const [program, ...args] = inZone(place, zone, ["dnsmasq", `--conf-file=${file}`]);
    await runCommand(program, args);
  }
}

/** What a name resolves to in a zone, by that zone's own resolver. */
export async function resolveIn(place: LabPlace, zone: Zone, name: string): Promise<readonly string[]> {
  const result = await labExec(place, zone, ["dig", "+short", "+time=2", "+tries=1", name]);
  return result.stdout
    .split("\n")
    .map((row) => row.trim())
    .filter((row) => row !== "" && !row.startsWith(";"));
}

/** Replaces what the site's resolver answers for whole names; an empty list takes all replacements away. */
export async function overrideNames(place: LabPlace, records: Readonly<Record<string, string>>): Promise<void> {
  const rows = Object.entries(records).map(([name, address]) => `${address} ${name}\n`);
  await writeFile(`${place.stateFolder}/dns-overrides`, rows.join(""));
  const id = await daemonProcess(place, `${place.stateFolder}/dnsmasq-onprem.pid`);
  if (id === undefined) throw new Error("the site's resolver does not run");
  process.kill(id, "SIGHUP"); // Reads its host files again.
  const [name, address] = Object.entries(records)[0] ?? [];
  if (name === undefined || address === undefined) return;
  await waitUntil(`${name} as ${address}`, 5_000, async () => (await resolveIn(place, "onprem", name)).includes(address));
}
