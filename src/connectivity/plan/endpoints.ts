// Everything that somebody connects to in a planned network: each name with its address, port, owner, and who needs it.

import { parseAddressRanges } from "../address-range.ts";
import type { PlanDocument } from "./plan-document.ts";
import { cloudNames, type Need } from "./service-names.ts";

export type RoleName = "appliance" | "process-server" | "agent" | "operator";

interface EndpointCommon {
  /** Unique in the plan: "vault/rcm1", "blob/stwatari01", "public/login.watari.test". */
  readonly id: string;
  readonly name: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly why: string;
  readonly need: Need;
  /** Who opens connections to it. */
  readonly roles: readonly RoleName[];
}

/** A private endpoint's name; `address` is missing until the endpoint has been made. */
export interface PrivateEndpoint extends EndpointCommon {
  readonly kind: "private";
  readonly zone: string;
  readonly address?: string;
  /** The private DNS zone that holds the name, when it lies in one. */
  readonly dnsZone?: string;
}

/** Something on this side: the appliance, a vCenter, machines, a resolver. */
export interface SiteEndpoint extends EndpointCommon {
  readonly kind: "site";
  readonly zone: string;
  /** Addresses or ranges; empty when only the name is known. */
  readonly addresses: readonly string[];
  /** false: `name` is words for people, not a DNS name. */
  readonly hasName: boolean;
}

/** Exact name or suffix of the outer world. */
export interface OuterEndpoint extends EndpointCommon {
  readonly kind: "public";
}

export type PlanEndpoint = PrivateEndpoint | SiteEndpoint | OuterEndpoint;

const senders: readonly RoleName[] = ["appliance", "process-server"];
const everybody: readonly RoleName[] = ["appliance", "process-server", "agent", "operator"];

/** All endpoints of a plan, in the order in which a person meets them. Pure; ids are unique. */
export function endpointsOf(plan: PlanDocument): readonly PlanEndpoint[] {
  return [...privateEndpointsOf(plan), ...siteEndpointsOf(plan), ...outerEndpointsOf(plan)];
}

function privateEndpointsOf(plan: PlanDocument): readonly PrivateEndpoint[] {
  const { vaultServices, vaultZone, blobZone } = cloudNames(plan.profile, plan.domain);
  const common = { kind: "private", protocol: "tcp", port: 443, need: "always" } as const;
  return plan.privateEndpoints.flatMap((endpoint, index): readonly PrivateEndpoint[] => {
    const { zone } = endpoint;
    switch (endpoint.for) {
      case "vault":
        return vaultServices.map((service) => ({
          ...common,
          id: `vault-${index}/${service}`,
          name: `${endpoint.vaultId.toLowerCase()}-asr-pod01-${service}.${endpoint.geo}.${vaultZone}`,
          zone,
          why: `the vault: ${serviceWords[service] ?? service}`,
          roles: senders,
          ...(vaultZone === undefined ? {} : { dnsZone: vaultZone }),
          ...withAddress(endpoint.addresses[service]),
        }));
      case "storage":
        return [
          {
            ...common,
            id: `blob/${endpoint.account}`,
            name: `${endpoint.account}.${blobZone}`,
            zone,
            why: "the storage account that holds the copied data",
            roles: senders,
            ...withAddress(endpoint.address),
          },
        ];
      case "project":
      case "other":
        return endpoint.names.map(({ name, address }) => ({
          ...common,
          id: `${endpoint.for}-${index}/${name}`,
          name,
          zone,
          why: endpoint.why,
          roles: endpoint.for === "project" ? [...senders, "operator"] : senders,
          ...zoneOfName(name),
          ...withAddress(address),
        }));
    }
  });
}

const serviceWords: Readonly<Record<string, string>> = {
  id1: "identity",
  rcm1: "replication control",
  srs1: "site recovery",
  tel1: "telemetry",
  prot2: "protection",
};

function withAddress(address: string | undefined): { readonly address?: string } {
  return address === undefined ? {} : { address };
}

/** A name that carries "privatelink" lies in the zone that begins there. */
function zoneOfName(name: string): { readonly dnsZone?: string } {
  const start = name.indexOf("privatelink.");
  return start > 0 ? { dnsZone: name.slice(start) } : {};
}

function siteEndpointsOf(plan: PlanDocument): readonly SiteEndpoint[] {
  const { appliance, processServers, agents } = plan.roles;
  const site = { kind: "site", protocol: "tcp", need: "always" } as const;
  const sourceRanges = agents.ranges.length > 0 ? agents.ranges : (plan.zones[agents.zone]?.ranges ?? []);
  const dataDoor = (id: string, zone: string, name: string | undefined, address: string): SiteEndpoint => ({
    ...site,
    ...{ id: `${id}/data`, zone, port: 9443, addresses: [address], roles: ["agent"], why: "replication data" },
    ...namedOr(name, id),
  });
  return [
    {
      ...site,
      ...{ id: "appliance/control", zone: appliance.zone, port: 443, addresses: [appliance.address] },
      roles: ["agent", "process-server"],
      why: "registration, orders and health of agents and process servers",
      ...namedOr(appliance.name, "appliance"),
    },
    dataDoor("appliance", appliance.zone, appliance.name, appliance.address),
    ...processServers.map((server) => dataDoor(server.name, server.zone, server.name, server.address)),
    {
      ...site,
      ...{ id: "appliance/set-up", zone: appliance.zone, port: 44_315, addresses: [appliance.address], roles: ["operator"] },
      why: "the appliance's set-up page",
      ...namedOr(appliance.name, "appliance"),
    },
    {
      ...site,
      ...{ id: "machines/ssh", zone: agents.zone, port: 22, addresses: sourceRanges, roles: senders, hasName: false },
      name: "source machines",
      why: "the agent is installed and updated by SSH",
      need: "set-up",
    },
    ...plan.vcenters.map(({ zone, name, address, port }): SiteEndpoint => ({
      ...site,
      ...{ id: `vcenter/${name}`, zone, name, port, hasName: true, roles: senders },
      addresses: address === undefined ? [] : [address],
      why: "discovery of machines, power of sources",
    })),
    ...resolversOf(plan),
    ...plan.timeServers.flatMap(({ zone, name }): readonly SiteEndpoint[] =>
      zone === undefined
        ? []
        : [
            {
              ...site,
              ...{ id: `time/${name}`, zone, name, protocol: "udp", port: 123, addresses: [], hasName: true, roles: senders },
              why: "the clock",
            },
          ],
    ),
  ];
}

function namedOr(name: string | undefined, words: string): Pick<SiteEndpoint, "name" | "hasName"> {
  return name === undefined ? { name: words, hasName: false } : { name, hasName: true };
}

/** A resolver is an endpoint of the zone in which its address lies; of the asking zone when it lies in none. */
function resolversOf(plan: PlanDocument): readonly SiteEndpoint[] {
  const servers = new Set(Object.values(plan.zones).flatMap((zone) => zone.dnsServers));
  return [...servers].map((address) => ({
    kind: "site",
    id: `dns/${address}`,
    name: address,
    hasName: false,
    protocol: "udp",
    port: 53,
    why: "name resolution",
    need: "always",
    roles: everybody,
    zone: zoneOfAddress(plan, address) ?? Object.entries(plan.zones).find(([, zone]) => zone.dnsServers.includes(address))?.[0] ?? "",
    addresses: [address],
  }));
}

function outerEndpointsOf(plan: PlanDocument): readonly OuterEndpoint[] {
  const { publicServices } = cloudNames(plan.profile, plan.domain);
  const common = { kind: "public", protocol: "tcp" } as const;
  return [
    ...publicServices.map(({ name, port, why, need, roles }): OuterEndpoint => ({
      ...common,
      ...{ id: `public/${name}`, name, port, why, need },
      roles: roles.includes("appliance") ? [...senders, ...roles.filter((role) => role !== "appliance")] : roles,
    })),
    ...plan.publicNames.map(({ name, port, why }): OuterEndpoint => ({
      ...common,
      ...{ id: `public/${name}:${port}`, name, port, why, need: "always", roles: senders },
    })),
    ...plan.timeServers.flatMap(({ zone, name }): readonly OuterEndpoint[] =>
      zone === undefined
        ? [{ kind: "public", protocol: "udp", id: `time/${name}`, name, port: 123, why: "the clock", need: "always", roles: senders }]
        : [],
    ),
  ];
}

/** The first zone whose ranges hold an address. */
export function zoneOfAddress(plan: PlanDocument, address: string): string | undefined {
  return Object.entries(plan.zones).find(([, zone]) => parseAddressRanges(zone.ranges).contains(address))?.[0];
}
