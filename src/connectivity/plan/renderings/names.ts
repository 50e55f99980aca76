// Renderings of names: hosts files and the configuration of DNS servers, as own records or as conditional forwarders.

import { hostEntries } from "../matrix.ts";
import { dnsTtlSeconds as ttlSeconds, forwarderForms, powerShellHead, trustedByUnbound } from "./forwarders.ts";
import {
  byDnsZone,
  placedNames,
  privateResolvers,
  textFile,
  unplacedNames,
  type PlacedName,
  type RenderInput,
  type Rendered,
} from "./rendering.ts";

export function renderHostsFile(input: RenderInput): Rendered {
  const { endpoints } = input.matrix;
  const lines = hostEntries(endpoints).flatMap(({ name, addresses }) =>
    addresses.filter((address) => !address.includes("/")).map((address) => `${address}\t${name}`),
  );
  return { files: [textFile("hosts", [...new Set(lines)].toSorted())], omitted: unplacedNames(endpoints) };
}

/** One name of a zone: relative, or "@" when it is the zone itself. */
function ownerIn(zone: string, name: string): string {
  return name === zone ? "@" : name.slice(0, -zone.length - 1);
}

function recordKind(address: string): "A" | "AAAA" {
  return address.includes(":") ? "AAAA" : "A";
}

export function renderBind(input: RenderInput): Rendered {
  const zones = byDnsZone(placedNames(input.matrix.endpoints));
  if (input.dnsMode === "forward") return renderForwarders(input, "bind");
  const blocks = zones.map(([zone]) => `zone "${zone}" { type primary; file "/etc/bind/db.${zone}"; allow-update { none; }; };`);
  return {
    files: [textFile("named.conf.watari", blocks), ...zones.map(([zone, names]) => textFile(`db.${zone}`, zoneFile(zone, names)))],
    omitted: unplacedNames(input.matrix.endpoints),
  };
}

function zoneFile(zone: string, names: readonly PlacedName[]): readonly string[] {
  return [
    `$ORIGIN ${zone}.`,
    `$TTL ${ttlSeconds}`,
    // A server must own the zone; nobody outside asks for its own name, so "localhost." stands for it.
    `@ IN SOA localhost. hostmaster.${zone}. ( 1 3600 600 604800 ${ttlSeconds} )`,
    "@ IN NS localhost.",
    ...names.map(({ name, address }) => `${ownerIn(zone, name)} IN ${recordKind(address)} ${address}`),
  ];
}

/** Conditional forwarders for each zone, to the resolver of the zone where the endpoints live. */
function renderForwarders(input: RenderInput, form: keyof typeof forwarderForms): Rendered {
  const servers = privateResolvers(input);
  const zones = forwardedZones(input);
  const { fileName, write } = forwarderForms[form];
  if (servers.length > 0) return { files: [textFile(fileName, write({ zones, servers }))], omitted: [] };
  const reason = "the zone of the private endpoints names no resolver to forward to";
  return { files: [textFile(fileName, [])], omitted: zones.map((entry) => ({ entry, reason })) };
}

/** Names without an address are forwarded all the same: the resolver there will know them. */
function forwardedZones({ matrix }: RenderInput): readonly string[] {
  const zones = matrix.endpoints.flatMap((endpoint) => (endpoint.kind === "private" ? [endpoint.dnsZone ?? endpoint.name] : []));
  return [...new Set(zones)].toSorted();
}

export function renderUnbound(input: RenderInput): Rendered {
  if (input.dnsMode === "forward") return renderForwarders(input, "unbound");
  const records = byDnsZone(placedNames(input.matrix.endpoints)).flatMap(([zone, names]) => [
    `    local-zone: "${zone}." static`,
    ...names.map(({ name, address }) => `    local-data: "${name}. ${ttlSeconds} IN ${recordKind(address)} ${address}"`),
  ]);
  const trusted = trustedByUnbound(forwardedZones(input));
  return { files: [textFile("watari.conf", ["server:", ...trusted, ...records])], omitted: unplacedNames(input.matrix.endpoints) };
}

export function renderDnsmasq(input: RenderInput): Rendered {
  if (input.dnsMode === "forward") return renderForwarders(input, "dnsmasq");
  const names = placedNames(input.matrix.endpoints);
  const lines = [
    // The zone is answered here alone: a name that is not listed does not exist, and no question leaves.
    ...byDnsZone(names).map(([zone]) => `local=/${zone}/`),
    ...names.map(({ name, address }) => `host-record=${name},${address},${ttlSeconds}`),
  ];
  return { files: [textFile("watari.conf", lines)], omitted: unplacedNames(input.matrix.endpoints) };
}

export function renderCoreDns(input: RenderInput): Rendered {
  if (input.dnsMode === "forward") return renderForwarders(input, "coredns");
  const blocks = byDnsZone(placedNames(input.matrix.endpoints)).flatMap(([zone, names]) => [
    `${zone}:53 {`,
    "    errors",
    `    hosts {`,
    ...names.map(({ name, address }) => `        ${address} ${name}`),
    `        ttl ${ttlSeconds}`,
    "        no_reverse",
    "    }",
    "}",
  ]);
  return { files: [textFile("Corefile", blocks)], omitted: unplacedNames(input.matrix.endpoints) };
}

/** PowerShell for a Windows DNS server. May be run again: what is there already is left or replaced. */
export function renderWindowsDns(input: RenderInput): Rendered {
  if (input.dnsMode === "forward") return renderForwarders(input, "windows-dns");
  const lines = byDnsZone(placedNames(input.matrix.endpoints)).flatMap(([zone, names]) => [
    `if (-not (Get-DnsServerZone -Name '${zone}' -ErrorAction SilentlyContinue)) {`,
    `  Add-DnsServerPrimaryZone -Name '${zone}' -ZoneFile '${zone}.dns' -DynamicUpdate None`,
    "}",
    ...names.flatMap(({ name, address }) => {
      const owner = ownerIn(zone, name);
      const kind = recordKind(address);
      const parameter = kind === "A" ? "-A -IPv4Address" : "-AAAA -IPv6Address";
      return [
        `Get-DnsServerResourceRecord -ZoneName '${zone}' -Name '${owner}' -RRType ${kind} -ErrorAction SilentlyContinue |`,
        `  Remove-DnsServerResourceRecord -ZoneName '${zone}' -Force`,
        `Add-DnsServerResourceRecord -ZoneName '${zone}' -Name '${owner}' ${parameter} '${address}' -TimeToLive 00:05:00`,
      ];
    }),
  ]);
  return { files: [textFile("watari-dns.ps1", [...powerShellHead, ...lines])], omitted: unplacedNames(input.matrix.endpoints) };
}
