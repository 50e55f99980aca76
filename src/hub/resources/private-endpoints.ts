// Private endpoints: addresses of a subnet that lead to one resource, their DNS zone groups and their interfaces.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { childId, parseResourceId } from "../api/resource-id.ts";
import {
  defineAction,
  defineResource,
  noBody,
  type ArmCall,
  type Desired,
  type ResourceType,
  type WriteOutcome,
} from "../api/resource-type.ts";
import type { PrivateAddresses } from "../db/private-addresses.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { endpointAddresses, type NetworkConfig } from "../hub-config.ts";
import {
  connectionStateOf,
  endpointType,
  findNetwork,
  membersOfEndpoint,
  recordType,
  zoneType,
  type ConnectionState,
} from "../private-link/endpoint-plan.ts";
import { groupIdOf, linkTargetOf } from "../private-link/link-target.ts";
import { membersOf, type LinkMember } from "../private-link/names.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { presentDnsSettings, type DnsSettings } from "./dns-settings.ts";
import { refuseFields } from "./refused-fields.ts";

export interface EndpointDependencies {
  readonly resources: ResourceStore;
  readonly addresses: PrivateAddresses;
  readonly networks: readonly NetworkConfig[];
  readonly domain: string;
  readonly privateLink: () => PrivateLink;
  readonly dnsSettings: DnsSettings;
}

const interfaceType = "Microsoft.Network/networkInterfaces";
const zoneGroupType = `${endpointType}/privateDnsZoneGroups`;

const connectionShape = z.looseObject({
  name: z.string().max(80),
  properties: z.looseObject({
    privateLinkServiceId: z.string().max(2048),
    groupIds: z.array(z.string().max(80)).length(1),
    requestMessage: z.string().max(140).nullish(),
  }),
});
const connectionsShape = z.array(connectionShape).max(1).default([]);
const endpointShape = z.looseObject({
  subnet: z.looseObject({ id: z.string().max(2048) }),
  privateLinkServiceConnections: connectionsShape,
  /** Wait for the owner of the resource to approve them. */
  manualPrivateLinkServiceConnections: connectionsShape,
  customNetworkInterfaceName: z
    .string()
    .regex(/^[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?$/, "letters, digits, dot, dash and underscore")
    .or(z.literal(""))
    .nullish(),
});
/** As stored: one connection, whichever way it was asked for. */
const storedShape = z.looseObject({
  subnet: z.looseObject({ id: z.string() }),
  privateLinkServiceConnections: z.array(connectionShape).length(1),
  watariIsManual: z.boolean().default(false),
  networkInterfaces: z.array(z.looseObject({ id: z.string() })).min(1),
});

const refusedFields = {
  ipConfigurations: "addresses are given from the subnet's range, lowest first",
  applicationSecurityGroups: "the network is the host's own; the hub filters nothing in it",
};
const zoneGroupShape = z.looseObject({
  privateDnsZoneConfigs: z
    .array(z.looseObject({ name: z.string().max(255), properties: z.looseObject({ privateDnsZoneId: z.string().max(2048) }) }))
    .min(1)
    .max(8),
});

export function endpointTypes(dependencies: EndpointDependencies): readonly ResourceType[] {
  const { resources, addresses, privateLink } = dependencies;
  const onChanged = async (call: ArmCall): Promise<void> => {
    await privateLink().reconcile({ endpointId: call.id.text, zones: "changed" });
    const fault = privateLink().faultOf(call.id.text);
    if (fault !== undefined) throw fault;
  };
  return [
    defineResource({
      type: endpointType,
      within: "resourceGroup",
      properties: endpointShape,
      canPatch: true,
      onPut: async (call, desired) => await putEndpoint(dependencies, call, desired),
      present: async (endpoint) => presentEndpoint(endpoint),
      onDelete: async (_call, endpoint) => {
        for (const group of await resources.list({ under: endpoint.id.text, type: zoneGroupType, countMax: 100 }))
          await removeRecords(resources, group.id.text);
        await resources.remove(storedShape.parse(endpoint.properties).networkInterfaces[0]?.id ?? "");
        await addresses.release(endpoint.id.text);
        return { kind: "done" };
      },
      onChanged,
      actions: {
        dnsSettings: defineAction({
          body: noBody,
          isRead: true,
          run: async (_call, _body, endpoint) => {
            const names = await dependencies.dnsSettings.ofEndpoint(endpoint);
            return { kind: "done", body: presentDnsSettings(names) };
          },
        }),
      },
    }),
    defineResource({
      type: zoneGroupType,
      within: "parent",
      properties: zoneGroupShape,
      onPut: async (call, desired) => await putZoneGroup(dependencies, call, desired.properties),
      onDelete: async (_call, group) => {
        await removeRecords(resources, group.id.text);
        return { kind: "done" };
      },
      onChanged: async () => await privateLink().reconcile({ zones: "changed" }),
    }),
  ];
}

async function putEndpoint(
  dependencies: EndpointDependencies,
  call: ArmCall,
  desired: Desired<z.infer<typeof endpointShape>>,
): Promise<WriteOutcome> {
  const { resources, networks, domain } = dependencies;
  const { subnet, privateLinkServiceConnections: direct, manualPrivateLinkServiceConnections: manual } = desired.properties;
  refuseFields(`the private endpoint ${call.id.name}`, desired.properties, refusedFields);
  const wanted = [...direct, ...manual];
  const connection = wanted[0];
  if (connection === undefined || wanted.length > 1)
    throw new Fault("InputInvalid", `could not save the private endpoint ${call.id.name}: it has one connection, no more and no less`, {
      evidence: { connections: wanted.length },
      action: "name one connection, in privateLinkServiceConnections or in manualPrivateLinkServiceConnections",
    });
  const { privateLinkServiceId, groupIds } = connection.properties;
  const groupId = groupIds[0] ?? "";
  const network = await requireSubnet(resources, networks, subnet.id);
  const target = await resources.get(privateLinkServiceId);
  const members = requireMembers(target, groupId, domain);
  refuseMove(desired.existing, { subnetId: subnet.id, targetId: target.id.text });
  const given = await dependencies.addresses.allocate({
    subnetId: subnet.id,
    endpointId: call.id.text,
    members: members.map((member) => member.member),
    candidates: endpointAddresses(network),
  });
  const placed = members.map((member) => ({ member, address: given.get(member.member) ?? "" }));
  const interfaceId = interfaceIdOf(desired.existing, call.id.text, desired.properties.customNetworkInterfaceName);
  await saveInterface(resources, {
    interfaceId,
    endpointId: call.id.text,
    subnetId: subnet.id,
    groupId,
    placed,
  });
  const isManual = direct.length === 0;
  const first: ConnectionState = isManual
    ? { status: "Pending", description: connection.properties.requestMessage ?? "awaits approval", actionsRequired: "None" }
    : { status: "Approved", description: "approved by the hub", actionsRequired: "None" };
  return {
    kind: "done",
    properties: {
      subnet: { id: subnet.id },
      privateLinkServiceConnections: [{ name: connection.name, properties: connection.properties }],
      customDnsConfigs: placed.map(({ member, address }) => ({ fqdn: member.fqdn, ipAddresses: [address] })),
      networkInterfaces: [{ id: interfaceId }],
      ...(desired.properties.customNetworkInterfaceName
        ? { customNetworkInterfaceName: desired.properties.customNetworkInterfaceName }
        : {}),
      watariIsManual: desired.existing === undefined ? isManual : storedShape.parse(desired.existing.properties).watariIsManual,
      // What the owner of the target said stays said.
      watariConnectionState: desired.existing === undefined ? first : connectionStateOf(desired.existing),
    },
  };
}

function presentEndpoint(endpoint: Resource): JsonObject {
  const { watariIsManual, watariConnectionState: _state, privateLinkServiceConnections, ...rest } = storedShape.parse(endpoint.properties);
  const list = watariIsManual ? "manualPrivateLinkServiceConnections" : "privateLinkServiceConnections";
  const connections = privateLinkServiceConnections.map(({ name, properties }) => ({
    id: `${endpoint.id.text}/${list}/${name}`,
    name,
    properties: { ...properties, provisioningState: "Succeeded", privateLinkServiceConnectionState: connectionStateOf(endpoint) },
  }));
  return { ...rest, privateLinkServiceConnections: [], manualPrivateLinkServiceConnections: [], [list]: connections };
}

async function requireSubnet(resources: ResourceStore, networks: readonly NetworkConfig[], subnetId: string): Promise<NetworkConfig> {
  const network = findNetwork(networks, subnetId);
  const stored = await resources.get(parseResourceId(subnetId).parentText);
  const subnets = z.looseObject({ subnets: z.array(z.looseObject({ name: z.string() })) }).parse(stored.properties).subnets;
  const name = parseResourceId(subnetId).name.toLowerCase();
  if (network !== undefined && subnets.some((subnet) => subnet.name.toLowerCase() === name)) return network;
  throw new Fault("NotFound", "could not create the private endpoint: the subnet does not exist", {
    evidence: { subnet: subnetId, configured: networks.map((known) => `${known.virtualNetwork}/${known.subnet}`) },
  });
}

function requireMembers(target: Resource, groupId: string, domain: string): readonly LinkMember[] {
  const linkTarget = linkTargetOf(target);
  if (linkTarget === undefined)
    throw new Fault("InputInvalid", "could not create the private endpoint: this resource cannot have one", {
      evidence: { resourceId: target.id.text, resourceType: target.id.type },
    });
  if (groupIdOf(linkTarget).toLowerCase() !== groupId.toLowerCase())
    throw new Fault("InputInvalid", "could not create the private endpoint: the resource has no such group id", {
      evidence: { resourceId: target.id.text, groupId, groupIds: [groupIdOf(linkTarget)] },
    });
  return membersOf(linkTarget, domain);
}

/** Addresses belong to a subnet and names to a target, so neither can change under an endpoint. */
function refuseMove(existing: Resource | undefined, wanted: { readonly subnetId: string; readonly targetId: string }): void {
  if (existing === undefined) return;
  const present = storedShape.parse(existing.properties);
  const targetId = present.privateLinkServiceConnections[0]?.properties.privateLinkServiceId ?? "";
  const isSame =
    present.subnet.id.toLowerCase() === wanted.subnetId.toLowerCase() && targetId.toLowerCase() === wanted.targetId.toLowerCase();
  if (isSame) return;
  throw new Fault("StateConflict", `could not change the private endpoint ${existing.id.name}: its subnet and its target are fixed`, {
    evidence: { subnet: present.subnet.id, target: targetId },
    action: "delete the private endpoint and create another one",
    retry: "never",
  });
}

/** Fixed with the endpoint's first write. */
function interfaceIdOf(existing: Resource | undefined, endpointId: string, wantedName: string | null | undefined): string {
  if (existing !== undefined) return storedShape.parse(existing.properties).networkInterfaces[0]?.id ?? "";
  const id = parseResourceId(endpointId);
  return `${id.parentText}/providers/${interfaceType}/${wantedName ? wantedName : `${id.name}.nic`}`;
}

async function saveInterface(
  resources: ResourceStore,
  wanted: {
    readonly interfaceId: string;
    readonly endpointId: string;
    readonly subnetId: string;
    readonly groupId: string;
    readonly placed: readonly { readonly member: LinkMember; readonly address: string }[];
  },
): Promise<void> {
  const there = await resources.find(wanted.interfaceId);
  const owner = z.looseObject({ privateEndpoint: z.looseObject({ id: z.string() }).optional() }).parse(there?.properties ?? {});
  if (there !== undefined && owner.privateEndpoint?.id.toLowerCase() !== wanted.endpointId.toLowerCase())
    throw new Fault("StateConflict", "could not create the private endpoint: the name of its network interface is taken", {
      evidence: { networkInterface: wanted.interfaceId, takenBy: owner.privateEndpoint?.id ?? "unknown" },
      action: "choose another customNetworkInterfaceName",
      retry: "never",
    });
  const ipConfigurations = wanted.placed.map(({ member, address }, index) => ({
    id: `${wanted.interfaceId}/ipConfigurations/${member.member}`,
    name: member.member,
    properties: {
      privateIPAddress: address,
      privateIPAllocationMethod: "Dynamic",
      privateIPAddressVersion: "IPv4",
      primary: index === 0,
      subnet: { id: wanted.subnetId },
      privateLinkConnectionProperties: { groupId: wanted.groupId, requiredMemberName: member.member, fqdns: [member.fqdn] },
    },
  }));
  await resources.save({
    id: parseResourceId(wanted.interfaceId),
    properties: { ipConfigurations, privateEndpoint: { id: wanted.endpointId } },
  });
}

async function putZoneGroup(
  dependencies: EndpointDependencies,
  call: ArmCall,
  properties: z.infer<typeof zoneGroupShape>,
): Promise<WriteOutcome> {
  const { resources } = dependencies;
  const endpoint = await resources.get(call.id.parentText);
  const planned = await membersOfEndpoint(dependencies, endpoint);
  const configs: JsonObject[] = [];
  const kept = new Set<string>();
  for (const config of properties.privateDnsZoneConfigs) {
    const zone = await resources.get(config.properties.privateDnsZoneId);
    const members = planned.filter(({ member }) => member.zone === zone.id.name.toLowerCase());
    if (zone.id.type.toLowerCase() !== zoneType.toLowerCase() || members.length === 0)
      throw new Fault("InputInvalid", "could not save the zone group: the zone does not fit the endpoint's names", {
        evidence: { zone: zone.id.name, zonesOfTheEndpoint: [...new Set(planned.map(({ member }) => member.zone))] },
        causes: ["the zone has another name than the names of the endpoint end with"],
      });
    for (const { member, address } of members) {
      const recordId = childId(zone.id, "A", member.recordName);
      kept.add(recordId.key);
      const record = { ttl: 10, aRecords: [{ ipv4Address: address }], fqdn: `${member.recordName}.${member.zone}.` };
      await resources.save({ id: recordId, properties: { ...record, metadata: { creator: call.id.text } } });
    }
    const recordSets = members.map(({ member, address }) => ({
      recordType: "A",
      recordSetName: member.recordName,
      fqdn: `${member.recordName}.${member.zone}`,
      ttl: 10,
      ipAddresses: [address],
      provisioningState: "Succeeded",
    }));
    configs.push({ name: config.name, properties: { privateDnsZoneId: zone.id.text, recordSets } });
  }
  await removeRecords(resources, call.id.text, kept);
  return { kind: "done", properties: { privateDnsZoneConfigs: configs } };
}

/** Removes the records that a zone group made, but for those whose keys are kept. */
async function removeRecords(resources: ResourceStore, zoneGroupId: string, kept: ReadonlySet<string> = new Set()): Promise<void> {
  for (const record of await resources.having({ type: recordType, property: "creator", value: zoneGroupId }))
    if (!kept.has(record.id.key)) await resources.remove(record.id);
}
