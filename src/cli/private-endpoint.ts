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

/** Creates what is missing; safe to repeat. Answers every name with its private addresses. */
export async function createPrivateEndpoint(arm: ArmClient, request: PrivateEndpointRequest): Promise<readonly NamedAddress[]> {
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
  const names = endpoint.properties.customDnsConfigs.map(({ fqdn, ipAddresses }) => ({ name: fqdn, addresses: ipAddresses }));
  for (const entry of names) say(`private name ${entry.name} → ${entry.addresses.join(", ")}`);
  return names;
}
