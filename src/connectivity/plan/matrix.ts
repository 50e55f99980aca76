// The matrix of a plan: for each role and endpoint by which way it goes, why, and what is wrong before anything is built.

import { decide, type Decision } from "../decision.ts";
import { parseTopology, type Topology, type TopologyDocument } from "../topology.ts";
import { endpointsOf, zoneOfAddress, type OuterEndpoint, type PlanEndpoint, type RoleName } from "./endpoints.ts";
import type { PlanDocument, Zone } from "./plan-document.ts";
import { cloudNames } from "./service-names.ts";

export interface PlanRole {
  /** "appliance", "process-server/ps2", "agent", "operator". */
  readonly id: string;
  readonly role: RoleName;
  readonly zone: string;
  /** Addresses or ranges from which it connects. */
  readonly sources: readonly string[];
}

export type PlanFindingCode =
  | "AddressMissing"
  | "AddressOutsideZone"
  | "AddressShared"
  | "NameShared"
  | "LineMissing"
  | "WayOutMissing"
  | "DatagramByProxy"
  | "NameUnresolved"
  | "ProxyAsksPassword"
  | "ProxyByTls"
  | "ProxyInspects"
  | "LineTranslates"
  | "PacketsSmall";

export interface PlanFinding {
  readonly code: PlanFindingCode;
  /** error: it cannot work as planned; warning: it works when what the text says is done. */
  readonly severity: "error" | "warning";
  readonly text: string;
  readonly action: string;
}

/** One role's way to one endpoint. */
export interface PlanCell {
  readonly role: PlanRole;
  readonly endpoint: PlanEndpoint;
  readonly decision: Decision["kind"];
  /** "directly over the line onprem → landing", "by http://10.10.0.1:3128". */
  readonly way: string;
  /** How the name becomes an address for this role. */
  readonly resolution: string;
  readonly because: string;
  readonly findings: readonly PlanFinding[];
}

export interface PlanMatrix {
  readonly roles: readonly PlanRole[];
  readonly endpoints: readonly PlanEndpoint[];
  readonly cells: readonly PlanCell[];
  /** What is wrong with the plan as a whole. */
  readonly findings: readonly PlanFinding[];
}

/** Pure: the same plan always gives the same matrix. */
export function planMatrix(plan: PlanDocument): PlanMatrix {
  const roles = rolesOf(plan);
  const endpoints = endpointsOf(plan);
  const cells = roles.flatMap((role) => {
    const topology = parseTopology(topologyOf(plan, role));
    return endpoints
      .filter((endpoint) => endpoint.roles.includes(role.role) && isAsked(plan, role, endpoint))
      .map((endpoint) => cellOf(plan, role, endpoint, topology));
  });
  return { roles, endpoints, cells, findings: findShared(endpoints) };
}

function rolesOf(plan: PlanDocument): readonly PlanRole[] {
  const { appliance, processServers, agents, operator } = plan.roles;
  const orZone = (ranges: readonly string[], zone: string): readonly string[] =>
    ranges.length > 0 ? ranges : (plan.zones[zone]?.ranges ?? []);
  return [
    { id: "appliance", role: "appliance", zone: appliance.zone, sources: [appliance.address] },
    ...processServers.map(({ name, zone, address }): PlanRole => ({
      ...{ id: `process-server/${name}`, role: "process-server", zone, sources: [address] },
    })),
    { id: "agent", role: "agent", zone: agents.zone, sources: orZone(agents.ranges, agents.zone) },
    ...(operator === undefined
      ? []
      : [{ id: "operator", role: "operator" as const, zone: operator.zone, sources: orZone(operator.ranges, operator.zone) }]),
  ];
}

/** A resolver is asked only by the zones that name it. */
function isAsked(plan: PlanDocument, role: PlanRole, endpoint: PlanEndpoint): boolean {
  if (endpoint.id.startsWith("dns/")) return plan.zones[role.zone]?.dnsServers.includes(endpoint.name) ?? false;
  return true;
}

/** The topology that the programs of this role obey: what `decide` answers there is what the plan shows. */
export function topologyOf(plan: PlanDocument, role: PlanRole): TopologyDocument {
  const zone = plan.zones[role.zone];
  const endpoints = endpointsOf(plan);
  const privates = endpoints.filter((endpoint) => endpoint.kind === "private");
  const sites = endpoints.filter((endpoint) => endpoint.kind === "site");
  const proxy = zone?.proxy === undefined ? undefined : plan.proxies[zone.proxy];
  const privateNames = unique(privates.map(({ name }) => name));
  return {
    privateNames,
    privateRanges: unique(privates.flatMap(({ zone: where }) => plan.zones[where]?.ranges ?? [])),
    siteNames: unique(sites.flatMap(({ name, hasName }) => (hasName ? [name] : []))),
    siteRanges: unique(
      sites.flatMap(({ zone: where, addresses }) => [
        ...(plan.zones[where]?.ranges ?? []),
        ...addresses.filter((address) => zoneOfAddress(plan, address.split("/")[0] ?? "") !== where),
      ]),
    ),
    publicNames: unique(endpoints.flatMap(({ kind, name }) => (kind === "public" ? [name] : []))).filter(
      (name) => !privateNames.includes(name),
    ),
    ...(proxy === undefined
      ? {}
      : {
          proxy: {
            url: proxy.url,
            ...(proxy.credentialsFile === undefined ? {} : { credentialsFile: proxy.credentialsFile }),
          },
        }),
    dnsServers: [...(zone?.dnsServers ?? [])],
    hosts: (zone?.dnsServers ?? []).length > 0 ? [] : hostEntries(endpoints),
  };
}

/** Names with known addresses, for hosts files: what is private, and what the site names. */
export function hostEntries(endpoints: readonly PlanEndpoint[]): { name: string; addresses: string[] }[] {
  const known = new Map<string, Set<string>>();
  for (const endpoint of endpoints) {
    if (endpoint.kind === "public" || (endpoint.kind === "site" && !endpoint.hasName)) continue;
    const addresses = endpoint.kind === "private" ? (endpoint.address === undefined ? [] : [endpoint.address]) : endpoint.addresses;
    if (addresses.length > 0) known.set(endpoint.name, new Set([...(known.get(endpoint.name) ?? []), ...addresses]));
  }
  return [...known].map(([name, addresses]) => ({ name, addresses: [...addresses] }));
}

function cellOf(plan: PlanDocument, role: PlanRole, endpoint: PlanEndpoint, topology: Topology): PlanCell {
  const [firstAddress] = endpoint.kind === "site" ? endpoint.addresses : [];
  const host = endpoint.kind === "site" && !endpoint.hasName ? (firstAddress?.split("/")[0] ?? endpoint.name) : endpoint.name;
  // A suffix is asked for by one of the names below it.
  const decision = decide(topology, host.startsWith(".") ? `any${host}` : host);
  const zone = plan.zones[role.zone];
  const findings = endpoint.kind === "public" ? judgeWayOut(plan, role, endpoint) : judgeWayIn(plan, role, endpoint);
  const proxy = decision.kind === "proxy";
  return {
    role,
    endpoint,
    decision: decision.kind,
    way: proxy ? `by ${decision.proxyUrl}` : wayWords(role, endpoint),
    resolution: proxy ? "the proxy asks" : resolutionWords(zone, endpoint),
    because: decision.because,
    findings,
  };
}

function wayWords(role: PlanRole, endpoint: PlanEndpoint): string {
  if (endpoint.kind === "public") return "directly";
  return endpoint.zone === role.zone ? `directly inside ${role.zone}` : `directly, line ${role.zone} → ${endpoint.zone}`;
}

function resolutionWords(zone: Zone | undefined, endpoint: PlanEndpoint): string {
  if (endpoint.kind === "site" && !endpoint.hasName) return endpoint.addresses.join(" ");
  const servers = zone?.dnsServers ?? [];
  const by = servers.length > 0 ? `DNS ${servers.join(" ")}` : endpoint.kind === "public" ? "no resolver" : "hosts file";
  const addresses = endpoint.kind === "private" ? [endpoint.address ?? "?"] : endpoint.kind === "site" ? endpoint.addresses : [];
  return addresses.length === 0 ? by : `${by} → ${addresses.join(" ")}`;
}

/** What stands against a direct connection to a private or site endpoint. */
function judgeWayIn(plan: PlanDocument, role: PlanRole, endpoint: Exclude<PlanEndpoint, OuterEndpoint>): readonly PlanFinding[] {
  const findings: PlanFinding[] = [];
  if (endpoint.kind === "private") {
    const { address } = endpoint;
    if (address === undefined)
      findings.push({
        ...{ code: "AddressMissing", severity: "error", text: `${endpoint.name} has no address yet` },
        action: "make the private endpoint, read its DNS settings, and put the address into the plan",
      });
    else if (zoneOfAddress(plan, address) !== endpoint.zone)
      findings.push({
        ...{ code: "AddressOutsideZone", severity: "error" },
        text: `${endpoint.name} is planned at ${address}, outside of zone ${endpoint.zone}`,
        action: "compare with the endpoint's DNS settings: an address outside of the zone may be a public one",
      });
  } else if (endpoint.hasName && endpoint.addresses.length === 0 && (plan.zones[role.zone]?.dnsServers ?? []).length === 0) {
    findings.push({
      ...{ code: "NameUnresolved", severity: "error", text: `nothing tells ${role.id} the address of ${endpoint.name}` },
      action: `give ${endpoint.name} an address, or zone ${role.zone} a resolver`,
    });
  }
  return [...findings, ...judgeLine(plan, role, endpoint)];
}

function judgeLine(plan: PlanDocument, role: PlanRole, endpoint: Exclude<PlanEndpoint, OuterEndpoint>): readonly PlanFinding[] {
  if (endpoint.zone === role.zone) return [];
  const line = plan.lines.find(({ from, to }) => from === role.zone && to === endpoint.zone);
  if (line === undefined)
    return [
      {
        ...{ code: "LineMissing", severity: "error" },
        text: `${role.id} stands in ${role.zone}, ${endpoint.name} in ${endpoint.zone}, and no line leads from there to here`,
        action: `order a line from ${role.zone} to ${endpoint.zone}, or move one of them`,
      },
    ];
  const findings: PlanFinding[] = [];
  if (line.nat && !cloudNames(plan.profile, plan.domain).limits.nat)
    findings.push({
      ...{ code: "LineTranslates", severity: "error" },
      text: `the line ${line.from} → ${line.to} translates addresses, which the classic appliance does not support`,
      action: "route without translation, or place the appliance behind the translation",
    });
  if (line.mtuBytes < 1280)
    findings.push({
      ...{ code: "PacketsSmall", severity: "warning" },
      text: `the line ${line.from} → ${line.to} passes packets of at most ${line.mtuBytes} bytes`,
      action: 'let ICMP "fragmentation needed" pass, or clamp the MSS of TCP on the line\'s router',
    });
  return findings;
}

/** What stands against a connection to the outer world. */
function judgeWayOut(plan: PlanDocument, role: PlanRole, endpoint: OuterEndpoint): readonly PlanFinding[] {
  const zone = plan.zones[role.zone];
  if (zone?.internet === true) return [];
  const proxy = zone?.proxy === undefined ? undefined : plan.proxies[zone.proxy];
  const severity = endpoint.need === "optional" ? "warning" : "error";
  if (proxy === undefined)
    return [
      {
        ...{ code: "WayOutMissing", severity, text: `${role.id} has no way from ${role.zone} to ${endpoint.name}` },
        action: `give zone ${role.zone} a proxy that lets ${endpoint.name} pass`,
      },
    ];
  if (endpoint.protocol === "udp")
    return [
      {
        ...{ code: "DatagramByProxy", severity, text: `${endpoint.name} is asked by UDP, which no proxy carries` },
        action: "name a time server of the site, with its zone",
      },
    ];
  const { limits } = cloudNames(plan.profile, plan.domain);
  const findings: PlanFinding[] = [];
  if (proxy.authentication !== "none" && role.role !== "operator" && !limits.proxyWithPassword)
    findings.push({
      ...{ code: "ProxyAsksPassword", severity: "error" },
      text: `the proxy ${proxy.url} asks for a password, which the classic appliance does not support`,
      action: `let ${role.sources.join(", ")} pass without a password, for the names of this plan only`,
    });
  if (proxy.authentication === "negotiate" && limits.proxyWithPassword)
    findings.push({
      ...{ code: "ProxyAsksPassword", severity: "error", text: `the proxy ${proxy.url} wants a Kerberos ticket` },
      action: "allow basic authentication, or let the appliance's address pass without a password",
    });
  if (proxy.url.startsWith("https:") && !limits.proxyByTls)
    findings.push({
      ...{
        code: "ProxyByTls",
        severity: "error",
        text: `the proxy ${proxy.url} is reached by TLS, which the classic appliance does not support`,
      },
      action: "open a plain HTTP door at the proxy for the appliance",
    });
  const exempt = proxy.inspection?.exempt ?? [];
  if (proxy.inspection !== undefined && !exempt.some((entry) => covers(entry, endpoint.name)))
    findings.push({
      ...{ code: "ProxyInspects", severity: "warning", text: `the proxy opens TLS to ${endpoint.name}` },
      action: `exempt ${endpoint.name}, or let ${role.id} trust ${proxy.inspection.authorityFile}`,
    });
  return findings;
}

function covers(entry: string, name: string): boolean {
  return entry.startsWith(".") ? name.endsWith(entry) || name === entry : name === entry;
}

/** Two endpoints with one name and different addresses, or two private ones at one address. */
function findShared(endpoints: readonly PlanEndpoint[]): readonly PlanFinding[] {
  const findings: PlanFinding[] = [];
  const addresses = new Map<string, string>();
  const names = new Map<string, string>();
  for (const endpoint of endpoints) {
    if (endpoint.kind !== "private") continue;
    const { name, address } = endpoint;
    const sameName = names.get(name);
    if (sameName !== undefined)
      findings.push({
        ...{ code: "NameShared", severity: "error", text: `${name} is planned twice: ${sameName} and ${endpoint.id}` },
        action: "remove one of them",
      });
    names.set(name, endpoint.id);
    if (address === undefined) continue;
    const sameAddress = addresses.get(address);
    if (sameAddress !== undefined && sameAddress !== name)
      findings.push({
        ...{ code: "AddressShared", severity: "error", text: `${address} is planned for ${sameAddress} and ${name}` },
        action: "each name of a private endpoint has an address of its own: compare with its DNS settings",
      });
    addresses.set(address, name);
  }
  return findings;
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}
