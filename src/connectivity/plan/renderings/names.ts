// Renderings of names: hosts files and the configuration of DNS servers, as own records or as conditional forwarders.

import { hostEntries } from "../matrix.ts";
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

const ttlSeconds = 300;

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
  if (input.dnsMode === "forward") return renderForwarders(input, "named.conf.watari", bindForwarder);
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

function bindForwarder(zone: string, servers: readonly string[]): readonly string[] {
  return [`zone "${zone}" { type forward; forward only; forwarders { ${servers.map((server) => `${server};`).join(" ")} }; };`];
}

/** Conditional forwarders for each zone, to the resolver of the zone where the endpoints live. */
function renderForwarders(
  input: RenderInput,
  fileName: string,
  write: (zone: string, servers: readonly string[]) => readonly string[],
  around: { readonly before: readonly string[] } = { before: [] },
): Rendered {
  const servers = privateResolvers(input);
  const zones = forwardedZones(input);
  if (servers.length === 0)
    return {
      files: [textFile(fileName, [])],
      omitted: zones.map((entry) => ({ entry, reason: "the zone of the private endpoints names no resolver to forward to" })),
    };
  return { files: [textFile(fileName, [...around.before, ...zones.flatMap((zone) => write(zone, servers))])], omitted: [] };
}

/** Names without an address are forwarded all the same: the resolver there will know them. */
function forwardedZones({ matrix }: RenderInput): readonly string[] {
  const zones = matrix.endpoints.flatMap((endpoint) => (endpoint.kind === "private" ? [endpoint.dnsZone ?? endpoint.name] : []));
  return [...new Set(zones)].toSorted();
}

export function renderUnbound(input: RenderInput): Rendered {
  // A validating resolver finds no chain of trust for a zone that is private, and unbound drops private answers by default.
  const zones = forwardedZones(input);
  const trusted = zones.flatMap((zone) => [`    domain-insecure: "${zone}."`, `    private-domain: "${zone}."`]);
  if (input.dnsMode === "forward")
    return renderForwarders(
      input,
      "watari.conf",
      (zone, servers) => ["forward-zone:", `    name: "${zone}."`, ...servers.map((server) => `    forward-addr: ${server}`)],
      // unbound answers some domains itself ("test.", "home.arpa."); a zone below them must be let through.
      { before: ["server:", ...trusted, ...zones.map((zone) => `    local-zone: "${zone}." transparent`)] },
    );
  const records = byDnsZone(placedNames(input.matrix.endpoints)).flatMap(([zone, names]) => [
    `    local-zone: "${zone}." static`,
    ...names.map(({ name, address }) => `    local-data: "${name}. ${ttlSeconds} IN ${recordKind(address)} ${address}"`),
  ]);
  return { files: [textFile("watari.conf", ["server:", ...trusted, ...records])], omitted: unplacedNames(input.matrix.endpoints) };
}

export function renderDnsmasq(input: RenderInput): Rendered {
  const zones = forwardedZones(input);
  const rebinding = zones.map((zone) => `rebind-domain-ok=/${zone}/`);
  if (input.dnsMode === "forward")
    return renderForwarders(input, "watari.conf", (zone, servers) => servers.map((server) => `server=/${zone}/${server}`), {
      before: rebinding,
    });
  const names = placedNames(input.matrix.endpoints);
  const lines = [
    // The zone is answered here alone: a name that is not listed does not exist, and no question leaves.
    ...byDnsZone(names).map(([zone]) => `local=/${zone}/`),
    ...names.map(({ name, address }) => `host-record=${name},${address},${ttlSeconds}`),
  ];
  return { files: [textFile("watari.conf", lines)], omitted: unplacedNames(input.matrix.endpoints) };
}

export function renderCoreDns(input: RenderInput): Rendered {
  if (input.dnsMode === "forward")
    return renderForwarders(input, "Corefile", (zone, servers) => [
      `${zone}:53 {`,
      "    errors",
      `    forward . ${servers.join(" ")}`,
      `    cache ${ttlSeconds}`,
      "}",
    ]);
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
  const head = ["#Requires -Modules DnsServer", "$ErrorActionPreference = 'Stop'"];
  if (input.dnsMode === "forward")
    return renderForwarders(
      input,
      "watari-dns.ps1",
      (zone, servers) => {
        const masters = servers.map((server) => `'${server}'`).join(",");
        return [
          `if (Get-DnsServerZone -Name '${zone}' -ErrorAction SilentlyContinue) {`,
          `  Set-DnsServerConditionalForwarderZone -Name '${zone}' -MasterServers ${masters}`,
          "} else {",
          `  Add-DnsServerConditionalForwarderZone -Name '${zone}' -MasterServers ${masters}`,
          "}",
        ];
      },
      { before: head },
    );
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
  return { files: [textFile("watari-dns.ps1", [...head, ...lines])], omitted: unplacedNames(input.matrix.endpoints) };
}
