// The landing zone's names as a dnsmasq configuration: a pure function of zones and records.

export interface DnsZone {
  /** "privatelink.blob.example.test". */
  readonly zone: string;
  readonly records: readonly { readonly name: string; readonly addresses: readonly string[] }[];
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
    ...zones.flatMap(renderZone),
  ];
  return `${lines.join("\n")}\n`;
}

/** The name that public clients use for a record of a private link zone; undefined for other zones. */
export function aliasOf(zone: string, name: string): string | undefined {
  return zone.startsWith(privatePrefix) && name !== "@" ? `${name}.${zone.slice(privatePrefix.length)}` : undefined;
}

function renderZone(zone: DnsZone): readonly string[] {
  const records = [...zone.records].sort((left, right) => (left.name < right.name ? -1 : 1));
  const lines = [`local=/${zone.zone}/`];
  for (const { name, addresses } of records) {
    const full = name === "@" ? zone.zone : `${name}.${zone.zone}`;
    for (const address of addresses) lines.push(`host-record=${full},${address}`);
    const alias = aliasOf(zone.zone, name);
    if (alias !== undefined && addresses.length > 0) lines.push(`cname=${alias},${full}`);
  }
  return lines;
}
