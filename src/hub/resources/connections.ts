// The private endpoint connections of a resource: shown with it, approved and rejected by its owner, gone with their endpoint.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { connectionStateOf, endpointType, type ConnectionState } from "../private-link/endpoint-plan.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { requireSame } from "./same-as-present.ts";

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
      privateLinkServiceConnectionState: connectionStateOf(endpoint),
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

const wishShape = z.looseObject({
  privateLinkServiceConnectionState: z.strictObject({
    status: z.enum(["Approved", "Rejected", "Pending", "Disconnected"]),
    description: z.string().max(400).optional(),
    actionsRequired: z.enum(["None", ""]).optional(),
  }),
});

/** What a deleted connection leaves on its endpoint: nothing but a new endpoint leads to the resource again. */
const removed: ConnectionState = { status: "Disconnected", description: "removed by the resource's owner", actionsRequired: "None" };

/** The connections of resources of a type. Only an approved one is served; the change is answered when it holds. */
export function connectionResource(wanted: {
  readonly targetType: string;
  readonly resources: ResourceStore;
  readonly privateLink: () => PrivateLink;
}): ResourceType {
  const { targetType, resources, privateLink } = wanted;
  const listOf = async (targetId: string): Promise<readonly JsonObject[]> => {
    const target = await resources.find(targetId);
    return target === undefined ? [] : await presentConnections(resources, target);
  };
  const get = async ({ id }: ArmCall): Promise<JsonObject | undefined> =>
    (await listOf(id.parentText)).find((connection) => String(connection["name"]).toLowerCase() === id.name.toLowerCase());
  const change = async (call: ArmCall, state: ConnectionState): Promise<JsonObject> => {
    const endpoint = (await endpointsOf(resources, await resources.get(call.id.parentText))).find(
      ({ id }) => id.name.toLowerCase() === call.id.name.toLowerCase(),
    );
    if (endpoint === undefined)
      throw new Fault("NotFound", `could not find the connection ${call.id.name}`, { evidence: { resourceId: call.id.text } });
    if (connectionStateOf(endpoint).status === removed.status && state.status !== removed.status)
      throw new Fault("StateConflict", `could not change the connection ${call.id.name}: it was removed`, {
        evidence: { privateEndpoint: endpoint.id.text },
        action: "delete the private endpoint and create it again",
        retry: "never",
      });
    await resources.update(endpoint.id, ({ properties }) => ({ properties: { ...properties, watariConnectionState: state } }));
    await privateLink().reconcile({ endpointId: endpoint.id.text, zones: "changed" });
    const fault = privateLink().faultOf(endpoint.id.text);
    if (fault !== undefined) throw fault;
    return (await get(call)) ?? {};
  };
  return defineResource({
    type: `${targetType}/privateEndpointConnections`,
    within: "parent",
    properties: wishShape,
    source: { get, list: async ({ id }) => ({ items: await listOf(id.text), next: undefined }) },
    onPut: async (call, { properties }) => {
      const { privateLinkServiceConnectionState, ...others } = properties;
      requireSame("the connection", others, (await get(call))?.["properties"]);
      const { status, description } = privateLinkServiceConnectionState;
      if (status === "Pending" || status === "Disconnected")
        throw new Fault("InputInvalid", `could not change the connection ${call.id.name}: it can be approved or rejected`, {
          evidence: { status, allowed: ["Approved", "Rejected"] },
        });
      const state = { status, description: description ?? `${status.toLowerCase()} by the resource's owner`, actionsRequired: "None" };
      return { kind: "answered", body: await change(call, state) };
    },
    onDelete: async (call) => {
      await change(call, removed);
      return { kind: "done" };
    },
  });
}

/** What endpoints to resources of a type can lead to. */
export function linkResourceType(targetType: string, link: { readonly groupId: string; readonly zone: string }): ResourceType {
  const type = `${targetType}/privateLinkResources`;
  const show = (targetId: string): JsonObject => ({
    id: `${targetId}/privateLinkResources/${link.groupId}`,
    name: link.groupId,
    type,
    properties: { groupId: link.groupId, requiredMembers: [link.groupId], requiredZoneNames: [link.zone] },
  });
  return defineResource({
    type,
    within: "parent",
    properties: z.looseObject({}),
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async ({ id }) => (id.name.toLowerCase() === link.groupId.toLowerCase() ? show(id.parentText) : undefined),
      list: async ({ id }) => ({ items: [show(id.text)], next: undefined }),
    },
  });
}
