// Gives a resource its private door: endpoint, DNS zone, link and records, the same four ARM calls for every kind.

import { z } from "zod";
import type { ArmClient } from "./arm-client.ts";
import { say } from "./output.ts";

export interface PrivateEndpointRequest {
  readonly name: string;
  /** Resource id that the endpoint leads to. */
  readonly resourceId: string;
  /** Sub-resource: "Default" (project), "AzureSiteRecovery" (vault) or "blob" (storage account). */
  readonly groupId: "Default" | "AzureSiteRecovery" | "blob";
  readonly network: string;
  readonly subnet: string;
  /** Private DNS zone that gets the records, for example "privatelink.blob.watari.test". */
  readonly zone: string;
}

const endpointShape = z.object({
  id: z.string(),
  properties: z.object({
    customDnsConfigs: z.array(z.object({ fqdn: z.string(), ipAddresses: z.array(z.string()) })),
  }),
});

export interface NamedAddress {
  readonly name: string;
  readonly addresses: readonly string[];
}

/** As openPrivateDoor, and says every name to the person who asked. */
export async function createPrivateEndpoint(arm: ArmClient, request: PrivateEndpointRequest): Promise<readonly NamedAddress[]> {
  const names = await openPrivateDoor(arm, request);
  for (const entry of names) say(`private name ${entry.name} → ${entry.addresses.join(", ")}`);
  return names;
}

/** Creates what is missing; safe to repeat. Answers every name with its private addresses. */
export async function openPrivateDoor(arm: ArmClient, request: PrivateEndpointRequest): Promise<readonly NamedAddress[]> {
  const { network, subnet, zone, name } = request;
  const networkId = `${arm.groupPath}/providers/Microsoft.Network/virtualNetworks/${network}`;
  const zoneId = `${arm.groupPath}/providers/Microsoft.Network/privateDnsZones/${zone}`;
  const endpointId = `${arm.groupPath}/providers/Microsoft.Network/privateEndpoints/${name}`;
  await arm.change("PUT", zoneId, { location: "global", properties: {} });
  await arm.change("PUT", `${zoneId}/virtualNetworkLinks/${network}`, {
    location: "global",
    properties: { virtualNetwork: { id: networkId }, registrationEnabled: false },
  });
  await arm.change("PUT", endpointId, {
    location: arm.location,
    properties: {
      subnet: { id: `${networkId}/subnets/${subnet}` },
      privateLinkServiceConnections: [{ name, properties: { privateLinkServiceId: request.resourceId, groupIds: [request.groupId] } }],
    },
  });
  await arm.change("PUT", `${endpointId}/privateDnsZoneGroups/default`, {
    properties: { privateDnsZoneConfigs: [{ name: zone.replaceAll(".", "-"), properties: { privateDnsZoneId: zoneId } }] },
  });
  const endpoint = endpointShape.parse(await arm.get(endpointId));
  return endpoint.properties.customDnsConfigs.map(({ fqdn, ipAddresses }) => ({ name: fqdn, addresses: ipAddresses }));
}

const recordSetShape = z.looseObject({ id: z.string() });

/** Takes a resource's private door away, then its zone when no other record is left in it. Safe to repeat. */
export async function removePrivateEndpoint(arm: ArmClient, request: Pick<PrivateEndpointRequest, "name" | "zone">): Promise<void> {
  const zoneId = `${arm.groupPath}/providers/Microsoft.Network/privateDnsZones/${request.zone}`;
  await arm.change("DELETE", `${arm.groupPath}/providers/Microsoft.Network/privateEndpoints/${request.name}`);
  if ((await arm.find(zoneId)) === undefined) return;
  const records = z.array(recordSetShape).parse(await arm.list(`${zoneId}/A`));
  if (records.length > 0) return;
  for (const link of z.array(recordSetShape).parse(await arm.list(`${zoneId}/virtualNetworkLinks`))) await arm.change("DELETE", link.id);
  await arm.change("DELETE", zoneId);
}
