// What should listen where, and what DNS should say: read from the resources, nothing done yet.

import { z } from "zod";
import { parseResourceId } from "../api/resource-id.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import { recordKinds, recordTypeOf, toDnsZone, type RecordSet } from "../dns/dns-records.ts";
import type { DnsZone } from "../dns/render-dnsmasq.ts";
import type { NetworkConfig } from "../hub-config.ts";
import { linkTargetOf } from "./link-target.ts";
import { membersOf, type LinkMember } from "./names.ts";

export const endpointType = "Microsoft.Network/privateEndpoints";
export const zoneType = "Microsoft.Network/privateDnsZones";
export const zoneLinkType = "Microsoft.Network/privateDnsZones/virtualNetworkLinks";
export const recordType = "Microsoft.Network/privateDnsZones/A";

/** One address of one endpoint. */
export interface PlannedListener {
  readonly endpointId: string;
  readonly address: string;
  readonly network: NetworkConfig;
  readonly target: Resource;
  readonly member: LinkMember;
}

/** What is stored of an endpoint, as far as the plan reads it. */
const storedEndpointShape = z.looseObject({
  subnet: z.looseObject({ id: z.string() }),
  privateLinkServiceConnections: z
    .array(z.looseObject({ properties: z.looseObject({ privateLinkServiceId: z.string(), groupIds: z.array(z.string()) }) }))
    .min(1),
  customDnsConfigs: z.array(z.looseObject({ fqdn: z.string(), ipAddresses: z.array(z.string()) })),
});

/** As Azure writes it. */
export interface ConnectionState extends Readonly<Record<string, unknown>> {
  readonly status: "Approved" | "Rejected" | "Pending" | "Disconnected";
  readonly description: string;
  readonly actionsRequired: string;
}

const stateShape = z.looseObject({
  watariConnectionState: z
    .object({
      status: z.enum(["Approved", "Rejected", "Pending", "Disconnected"]),
      description: z.string(),
      actionsRequired: z.string(),
    })
    .default({ status: "Approved", description: "approved by the hub", actionsRequired: "None" }),
});

/** What the owner of an endpoint's target said of it; approved unless something was said. */
export function connectionStateOf(endpoint: Resource): ConnectionState {
  return stateShape.parse(endpoint.properties).watariConnectionState;
}

const linkShape = z.looseObject({ virtualNetwork: z.looseObject({ id: z.string() }) });

/** The network of the configuration that a subnet's resource id stands for. */
export function findNetwork(networks: readonly NetworkConfig[], subnetId: string): NetworkConfig | undefined {
  const { names, type } = parseResourceId(subnetId);
  if (type.toLowerCase() !== "microsoft.network/virtualnetworks/subnets") return undefined;
  const [virtualNetwork, subnet] = names.map((name) => name.toLowerCase());
  return networks.find((network) => network.virtualNetwork.toLowerCase() === virtualNetwork && network.subnet.toLowerCase() === subnet);
}

/** The listeners of one endpoint; none while its target does not exist or its connection is not approved. */
export async function planEndpoint(
  hub: { readonly resources: ResourceStore; readonly networks: readonly NetworkConfig[]; readonly domain: string },
  endpoint: Resource,
): Promise<readonly PlannedListener[]> {
  return connectionStateOf(endpoint).status === "Approved" ? await membersOfEndpoint(hub, endpoint) : [];
}

/** As planEndpoint, whatever the connection's state: names and addresses stay an endpoint's until it is deleted. */
export async function membersOfEndpoint(
  hub: { readonly resources: ResourceStore; readonly networks: readonly NetworkConfig[]; readonly domain: string },
  endpoint: Resource,
): Promise<readonly PlannedListener[]> {
  const { subnet, privateLinkServiceConnections, customDnsConfigs } = storedEndpointShape.parse(endpoint.properties);
  const target = await hub.resources.find(privateLinkServiceConnections[0]?.properties.privateLinkServiceId ?? "");
  const network = findNetwork(hub.networks, subnet.id);
  const linkTarget = target === undefined ? undefined : linkTargetOf(target);
  if (target === undefined || linkTarget === undefined || network === undefined) return [];
  return membersOf(linkTarget, hub.domain).flatMap((member) => {
    const address = customDnsConfigs.find((config) => config.fqdn === member.fqdn)?.ipAddresses[0];
    return address === undefined ? [] : [{ endpointId: endpoint.id.text, address, network, target, member }];
  });
}

/** The zones that are linked to a network, with their records. */
export async function planZones(resources: ResourceStore, virtualNetwork: string): Promise<readonly DnsZone[]> {
  const zoneIds = new Map<string, string>();
  for await (const link of resources.all(zoneLinkType)) {
    const network = parseResourceId(linkShape.parse(link.properties).virtualNetwork.id).name;
    if (network.toLowerCase() === virtualNetwork.toLowerCase()) zoneIds.set(link.id.parentKey, link.id.parentText);
  }
  const sets = new Map<string, RecordSet[]>([...zoneIds.keys()].map((key) => [key, []]));
  if (sets.size > 0)
    for (const kind of recordKinds)
      for await (const record of resources.all(recordTypeOf(kind)))
        sets.get(record.id.parentKey)?.push({ name: record.id.name.toLowerCase(), kind, properties: record.properties });
  return [...sets].map(([key, records]) => toDnsZone(parseResourceId(zoneIds.get(key) ?? "").name.toLowerCase(), records));
}
