// The private endpoint connections of a resource, as the resource shows them.

import { Fault } from "../../contract/errors.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { endpointType } from "../private-link/endpoint-plan.ts";

async function endpointsOf(resources: ResourceStore, target: Resource): Promise<readonly Resource[]> {
  return await resources.having({ type: endpointType, property: "linkedTo", value: target.id.key });
}

export async function presentConnections(resources: ResourceStore, target: Resource): Promise<readonly JsonObject[]> {
  return (await endpointsOf(resources, target)).map((endpoint) => ({
    id: `${target.id.text}/privateEndpointConnections/${endpoint.id.name}`,
    name: endpoint.id.name,
    type: `${target.id.type}/privateEndpointConnections`,
    properties: {
      provisioningState: "Succeeded",
      privateEndpoint: { id: endpoint.id.text },
      privateLinkServiceConnectionState: { status: "Approved", description: "approved by the hub", actionsRequired: "None" },
    },
  }));
}

export async function refuseWhileConnected(resources: ResourceStore, target: Resource): Promise<void> {
  const endpoints = await endpointsOf(resources, target);
  if (endpoints.length === 0) return;
  throw new Fault("StateConflict", `could not delete ${target.id.name}: private endpoints lead to it`, {
    evidence: { privateEndpoints: endpoints.map((endpoint) => endpoint.id.text) },
    action: "delete the private endpoints first",
    retry: "never",
  });
}
