// What should listen where, and what DNS should say: read from the resources, nothing done yet.

import { z } from "zod";
import { parseResourceId } from "../api/resource-id.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
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
export const storedEndpointShape = z.looseObject({
  subnet: z.looseObject({ id: z.string() }),
  privateLinkServiceConnections: z
    .array(z.looseObject({ properties: z.looseObject({ privateLinkServiceId: z.string(), groupIds: z.array(z.string()) }) }))
    .min(1),
  customDnsConfigs: z.array(z.looseObject({ fqdn: z.string(), ipAddresses: z.array(z.string()) })),
});

const recordShape = z.looseObject({ aRecords: z.array(z.looseObject({ ipv4Address: z.string() })).default([]) });
const linkShape = z.looseObject({ virtualNetwork: z.looseObject({ id: z.string() }) });

/** The network of the configuration that a subnet's resource id stands for. */
export function findNetwork(networks: readonly NetworkConfig[], subnetId: string): NetworkConfig | undefined {
  const { names, type } = parseResourceId(subnetId);
  if (type.toLowerCase() !== "microsoft.network/virtualnetworks/subnets") return undefined;
  const [virtualNetwork, subnet] = names.map((name) => name.toLowerCase());
  return networks.find((network) => network.virtualNetwork.toLowerCase() === virtualNetwork && network.subnet.toLowerCase() === subnet);
}

/** The listeners of one endpoint; none while its target does not exist. */
export async function planEndpoint(
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
  const zones = new Map<string, DnsZone["records"][number][]>();
  for await (const link of resources.all(zoneLinkType)) {
    const network = parseResourceId(linkShape.parse(link.properties).virtualNetwork.id).name;
    if (network.toLowerCase() !== virtualNetwork.toLowerCase()) continue;
    const zone = parseResourceId(link.id.parentText).name.toLowerCase();
    zones.set(zone, zones.get(zone) ?? []);
  }
  for await (const record of resources.all(recordType)) {
    const zone = parseResourceId(record.id.parentText).name.toLowerCase();
    const addresses = recordShape.parse(record.properties).aRecords.map((entry) => entry.ipv4Address);
    zones.get(zone)?.push({ name: record.id.name.toLowerCase(), addresses });
  }
  return [...zones].map(([zone, records]) => ({ zone, records }));
}
