// The landing zone's names as a dnsmasq configuration: a pure function of zones and records.

import { encodeRecordData, recordTypeNumbers } from "./record-data.ts";

export interface DnsZone {
  /** "privatelink.blob.example.test". */
  readonly zone: string;
  /** IPv4 and IPv6 addresses. */
  readonly records: readonly { readonly name: string; readonly addresses: readonly string[]; readonly ttlSeconds?: number }[];
  readonly aliases?: readonly { readonly name: string; readonly target: string; readonly ttlSeconds?: number }[];
  /** Records of other types, as bytes. */
  readonly others?: readonly { readonly name: string; readonly typeNumber: number; readonly data: Uint8Array }[];
}

export interface DnsServing {
  readonly address: string;
  readonly port: number;
  readonly zones: readonly DnsZone[];
  /** Answered as TXT of readyName, so that a restart can be seen to have happened. */
  readonly serial: string;
}

export const readyName = "ready.watari.internal";
const timeToLiveSeconds = 10;
const privatePrefix = "privatelink.";

/** Zones of private link also answer for the public name in front of them: blob.x leads by CNAME to privatelink.blob.x. */
export function renderDnsmasq(serving: DnsServing): string {
  const zones = [...serving.zones].sort((left, right) => (left.zone < right.zone ? -1 : 1));
  const known = new Set(zones.flatMap(namesOf));
  const lines = [
    "# Written by the Watari hub from its private DNS zones; changes here are lost.",
    "keep-in-foreground",
    "log-facility=-",
    "no-resolv",
    "no-hosts",
    "no-poll",
    "bind-interfaces",
    "pid-file=",
    `listen-address=${serving.address}`,
    `port=${serving.port}`,
    `local-ttl=${timeToLiveSeconds}`,
    `txt-record=${readyName},${serving.serial}`,
    ...zones.flatMap((zone) => renderZone(zone, known)),
  ];
  return `${lines.join("\n")}\n`;
}

/** The name that public clients use for a record of a private link zone; undefined for other zones. */
export function aliasOf(zone: string, name: string): string | undefined {
  return zone.startsWith(privatePrefix) && name !== "@" ? `${name}.${zone.slice(privatePrefix.length)}` : undefined;
}

function renderZone(zone: DnsZone, known: ReadonlySet<string>): readonly string[] {
  const lines = [`local=/${zone.zone}/`];
  for (const { name, addresses, ttlSeconds } of zone.records.toSorted(byName)) {
    const full = fullName(zone, name);
    for (const address of addresses) lines.push(`host-record=${full},${address}${ttlOf(ttlSeconds)}`);
    const alias = aliasOf(zone.zone, name);
    if (alias !== undefined && addresses.length > 0) lines.push(`cname=${alias},${full}`);
  }
  for (const { name, target, ttlSeconds } of (zone.aliases ?? []).toSorted(byName)) {
    const full = fullName(zone, name);
    // dnsmasq follows an alias only to names that it knows itself; of others it can tell the alias alone.
    if (known.has(target.toLowerCase())) lines.push(`cname=${full},${target}${ttlOf(ttlSeconds)}`);
    else lines.push(dnsRecord(full, recordTypeNumbers.CNAME, encodeRecordData({ kind: "CNAME", target })));
  }
  const others = (zone.others ?? []).map(({ name, typeNumber, data }) => dnsRecord(fullName(zone, name), typeNumber, data));
  return [...lines, ...others.sort()];
}

function dnsRecord(name: string, typeNumber: number, data: Uint8Array): string {
  return `dns-rr=${name},${typeNumber},${Buffer.from(data).toString("hex")}`;
}

/** Names that this configuration answers with an address or an alias. */
function namesOf(zone: DnsZone): readonly string[] {
  return [...zone.records, ...(zone.aliases ?? [])].map(({ name }) => fullName(zone, name));
}

function fullName({ zone }: DnsZone, name: string): string {
  return name === "@" ? zone : `${name}.${zone}`;
}

function ttlOf(seconds: number | undefined): string {
  return seconds === undefined || seconds === timeToLiveSeconds ? "" : `,${seconds}`;
}

function byName(left: { readonly name: string }, right: { readonly name: string }): number {
  return left.name < right.name ? -1 : 1;
}
