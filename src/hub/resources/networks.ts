// Virtual networks and their subnets: each stands for a network of the hub's configuration, a real interface or loopback.

import { z } from "zod";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { childId, parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, noBody, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import type { PrivateAddresses, TakenAddress } from "../db/private-addresses.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { containsRange, endpointAddressCount, endpointAddresses, isEndpointAddress, type NetworkConfig } from "../hub-config.ts";
import { refuseFields } from "./refused-fields.ts";

const networkType = "Microsoft.Network/virtualNetworks";
const subnetType = `${networkType}/subnets`;
const freeShownMax = 5;
const subnetsMax = 64;

export interface NetworkDependencies {
  readonly resources: ResourceStore;
  readonly addresses: PrivateAddresses;
  readonly networks: readonly NetworkConfig[];
  /** Networks that machines land in and that hold no endpoints: their ranges are not the hub's. */
  readonly landingNetworks: readonly string[];
  readonly random: Random;
}

const subnetPropertiesShape = z.looseObject({
  addressPrefix: z.cidrv4().optional(),
  addressPrefixes: z.array(z.cidrv4()).max(1).optional(),
});
const subnetShape = z.looseObject({
  name: z.string().regex(/^[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?$/, "letters, digits, dot, dash and underscore"),
  properties: subnetPropertiesShape.default({}),
});
const networkShape = z.looseObject({
  addressSpace: z.looseObject({ addressPrefixes: z.array(z.cidrv4()).min(1).max(16) }),
  subnets: z.array(subnetShape).max(subnetsMax).optional(),
});
/** As stored: one prefix in one place. */
const storedNetworkShape = z.looseObject({
  addressSpace: z.looseObject({ addressPrefixes: z.array(z.string()) }),
  subnets: z.array(z.looseObject({ name: z.string(), properties: z.looseObject({ addressPrefix: z.string() }) })).default([]),
});
type StoredNetwork = z.infer<typeof storedNetworkShape>;
type StoredSubnet = StoredNetwork["subnets"][number];

const notRouted = "the network is the host's own; the hub routes and filters nothing in it";
const refusedOfNetworks = {
  virtualNetworkPeerings: notRouted,
  ddosProtectionPlan: notRouted,
  enableDdosProtection: notRouted,
  bgpCommunities: notRouted,
  ipAllocations: "addresses come from the subnet's range in the hub's configuration",
  dhcpOptions: "the hub's configuration names the resolver of the network",
};
const refusedOfSubnets = {
  networkSecurityGroup: notRouted,
  routeTable: notRouted,
  natGateway: notRouted,
  serviceEndpoints: "services are reached by private endpoints",
  serviceEndpointPolicies: "services are reached by private endpoints",
  delegations: "no service here takes over a subnet",
  ipAllocations: "addresses come from the subnet's range in the hub's configuration",
};

export function networkTypes(dependencies: NetworkDependencies): readonly ResourceType[] {
  return [networkResource(dependencies), subnetResource(dependencies)];
}

function networkResource(dependencies: NetworkDependencies): ResourceType {
  const { addresses, random } = dependencies;
  return defineResource({
    type: networkType,
    within: "resourceGroup",
    properties: networkShape,
    canPatch: true,
    onPut: async (call, { properties, existing }) => {
      refuseFields(`the network ${call.id.name}`, properties, refusedOfNetworks);
      requireKnown(dependencies, call.id.name);
      const before = existing === undefined ? undefined : storedNetworkShape.parse(existing.properties);
      // Clients that know nothing of the subnets leave them out; that removes none.
      const subnets = (properties.subnets ?? before?.subnets ?? []).map((subnet) => toStored(subnet));
      const prefixes = properties.addressSpace.addressPrefixes;
      for (const subnet of subnets) checkSubnet(dependencies, { network: call.id.name, prefixes, subnet, others: subnets });
      for (const { name } of before?.subnets ?? [])
        if (!subnets.some((subnet) => isNamed(subnet, name))) await refuseUsed(addresses, childId(call.id, "subnets", name));
      const resourceGuid = existing?.properties["resourceGuid"] ?? random.uuid();
      return { kind: "done", properties: { ...properties, subnets, resourceGuid } };
    },
    present: async (network) => ({
      enableDdosProtection: false,
      virtualNetworkPeerings: [],
      ...network.properties,
      subnets: await presentSubnets(addresses, network),
    }),
    onDelete: async (_call, network) => {
      for (const { name } of storedNetworkShape.parse(network.properties).subnets)
        await refuseUsed(addresses, childId(network.id, "subnets", name));
      return { kind: "done" };
    },
    actions: {
      checkIPAddressAvailability: defineAction({
        body: noBody,
        isRead: true,
        isGet: true,
        run: async (call, _body, network) => ({
          kind: "done",
          body: await checkAddress(dependencies, network, call.query["ipaddress"] ?? ""),
        }),
      }),
      usages: defineAction({
        body: noBody,
        isRead: true,
        isGet: true,
        run: async (_call, _body, network) => ({ kind: "done", body: { value: await usagesOf(dependencies, network) } }),
      }),
    },
  });
}

function subnetResource(dependencies: NetworkDependencies): ResourceType {
  const { resources, addresses } = dependencies;
  const subnetsOf = async (networkId: string): Promise<readonly JsonObject[]> => {
    const network = await resources.find(networkId);
    return network === undefined ? [] : await presentSubnets(addresses, network);
  };
  const find = async (id: ResourceId): Promise<JsonObject | undefined> => {
    const all = await subnetsOf(id.parentText);
    return all.find((subnet) => String(subnet["name"]).toLowerCase() === id.name.toLowerCase());
  };
  return defineResource({
    type: subnetType,
    within: "parent",
    properties: subnetPropertiesShape,
    source: {
      get: async (call) => await find(call.id),
      list: async (call) => ({ items: await subnetsOf(call.id.text), next: undefined }),
    },
    onPut: async (call, { properties, existing }): Promise<WriteOutcome> => {
      const subnet = toStored(subnetShape.parse({ name: call.id.name, properties }));
      await resources.update(call.id.parentText, (network) => {
        const stored = storedNetworkShape.parse(network.properties);
        const others = stored.subnets.filter((each) => !isNamed(each, subnet.name));
        const prefixes = stored.addressSpace.addressPrefixes;
        checkSubnet(dependencies, { network: network.id.name, prefixes, subnet, others });
        return { properties: { ...network.properties, subnets: [...others, subnet].slice(0, subnetsMax) } };
      });
      return { kind: "answered", isNew: existing === undefined, body: (await find(call.id)) ?? {} };
    },
    onDelete: async (call) => {
      await refuseUsed(addresses, call.id);
      await resources.update(call.id.parentText, (network) => {
        const { subnets } = storedNetworkShape.parse(network.properties);
        return { properties: { ...network.properties, subnets: subnets.filter((each) => !isNamed(each, call.id.name)) } };
      });
      return { kind: "done" };
    },
  });
}

function isNamed(subnet: { readonly name: string }, name: string): boolean {
  return subnet.name.toLowerCase() === name.toLowerCase();
}

/** Read-only members that clients send back are not stored: they are answered from what is so. */
function toStored({ name, properties }: z.infer<typeof subnetShape>): StoredSubnet {
  const {
    provisioningState: _state,
    privateEndpoints: _endpoints,
    ipConfigurations: _configurations,
    purpose: _purpose,
    ...rest
  } = properties;
  const addressPrefix = properties.addressPrefix ?? properties.addressPrefixes?.[0];
  if (addressPrefix === undefined)
    throw new Fault("InputInvalid", `could not save the subnet ${name}: addressPrefix is missing`, {
      evidence: { missing: "addressPrefix" },
    });
  refuseFields(`the subnet ${name}`, rest, refusedOfSubnets);
  return { name, properties: { ...rest, addressPrefix } };
}

async function presentSubnets(addresses: PrivateAddresses, network: Resource): Promise<readonly JsonObject[]> {
  const { subnets } = storedNetworkShape.parse(network.properties);
  return await Promise.all(
    subnets.map(async ({ name, properties }) => {
      const id = childId(network.id, "subnets", name);
      const endpoints = [...new Set((await addresses.ofSubnet(id.text)).map((taken) => taken.endpointId))];
      return {
        id: id.text,
        name,
        type: subnetType,
        etag: network.etag,
        properties: {
          privateEndpointNetworkPolicies: "Disabled",
          privateLinkServiceNetworkPolicies: "Enabled",
          delegations: [],
          ...properties,
          ...(endpoints.length === 0 ? {} : { privateEndpoints: endpoints.map((endpointId) => ({ id: endpointId })) }),
          provisioningState: "Succeeded",
        },
      };
    }),
  );
}

/** A network that the configuration does not name could carry nothing, so it is refused and not kept as a mere record. */
function requireKnown({ networks, landingNetworks }: NetworkDependencies, name: string): void {
  const known = [...new Set([...networks.map((network) => network.virtualNetwork), ...landingNetworks])];
  if (known.some((each) => each.toLowerCase() === name.toLowerCase())) return;
  throw new Fault("InputInvalid", `could not create the network ${name}: the hub's configuration has no such network`, {
    evidence: { network: name, configured: known },
    causes: ["a virtual network stands for a network of the hub's configuration; the hub makes none by itself"],
    action: "use a name of the evidence, or add this network to the hub's configuration and start it again",
  });
}

function checkSubnet(
  { networks, landingNetworks }: NetworkDependencies,
  wanted: {
    readonly network: string;
    readonly prefixes: readonly string[];
    readonly subnet: StoredSubnet;
    readonly others: readonly StoredSubnet[];
  },
): void {
  const { network, prefixes, subnet, others } = wanted;
  const range = subnet.properties.addressPrefix;
  const refuse = (reason: string, evidence: Readonly<Record<string, string | readonly string[]>>): never => {
    throw new Fault("InputInvalid", `could not save the subnet ${network}/${subnet.name}: ${reason}`, {
      evidence: { network, subnet: subnet.name, range, ...evidence },
      action: "use a range and a name that fit the evidence, or change the hub's configuration and start it again",
    });
  };
  if (!prefixes.some((prefix) => containsRange(prefix, range))) refuse("its range is not inside the network's", { addressSpace: prefixes });
  const overlapping = others.find(
    (other) =>
      !isNamed(other, subnet.name) &&
      (containsRange(other.properties.addressPrefix, range) || containsRange(range, other.properties.addressPrefix)),
  );
  if (overlapping !== undefined) refuse("its range overlaps another subnet's", { other: overlapping.name });
  const configured = networks.filter((each) => each.virtualNetwork.toLowerCase() === network.toLowerCase());
  if (configured.length === 0 && landingNetworks.some((name) => name.toLowerCase() === network.toLowerCase())) return;
  const found = configured.find((each) => each.subnet.toLowerCase() === subnet.name.toLowerCase());
  const known = configured.map((each) => `${each.subnet} ${each.cidr}`);
  if (found === undefined) refuse("the hub's configuration has no such subnet", { configured: known });
  else if (!containsRange(found.cidr, range)) refuse("its range is not inside the configured one", { configured: known });
}

async function refuseUsed(addresses: PrivateAddresses, subnet: ResourceId): Promise<void> {
  const taken = await addresses.ofSubnet(subnet.text);
  if (taken.length === 0) return;
  throw new Fault("StateConflict", `could not delete the subnet ${subnet.name}: private endpoints have addresses in it`, {
    evidence: { privateEndpoints: [...new Set(taken.map((each) => each.endpointId))].slice(0, 20) },
    action: "delete the private endpoints first",
    retry: "never",
  });
}

interface SubnetSpace {
  readonly id: ResourceId;
  readonly subnet: StoredSubnet;
  readonly taken: readonly TakenAddress[];
  /** Undefined: endpoints get no addresses in this subnet. */
  readonly config: NetworkConfig | undefined;
}

async function spacesOf({ addresses, networks }: NetworkDependencies, network: Resource): Promise<readonly SubnetSpace[]> {
  return await Promise.all(
    storedNetworkShape.parse(network.properties).subnets.map(async (subnet) => {
      const id = childId(parseResourceId(network.id.text), "subnets", subnet.name);
      const config = networks.find(
        (each) => isNamed({ name: each.virtualNetwork }, network.id.name) && isNamed({ name: each.subnet }, subnet.name),
      );
      return { id, subnet, config, taken: await addresses.ofSubnet(id.text) };
    }),
  );
}

async function usagesOf(dependencies: NetworkDependencies, network: Resource): Promise<readonly JsonObject[]> {
  return (await spacesOf(dependencies, network)).map(({ id, config, taken }) => ({
    id: id.text,
    currentValue: taken.length,
    limit: config === undefined ? 0 : endpointAddressCount(config),
    name: { value: "SubnetSpace", localizedValue: "Subnet size and usage" },
    unit: "Count",
  }));
}

async function checkAddress(dependencies: NetworkDependencies, network: Resource, address: string): Promise<JsonObject> {
  const spaces = await spacesOf(dependencies, network);
  const space = spaces.find(({ subnet }) => containsRange(subnet.properties.addressPrefix, `${address}/32`));
  if (space === undefined)
    throw new Fault("InputInvalid", `could not check the address: no subnet of ${network.id.name} contains it`, {
      evidence: { ipAddress: address, subnets: spaces.map(({ subnet }) => `${subnet.name} ${subnet.properties.addressPrefix}`) },
    });
  const { config } = space;
  const taken = await dependencies.addresses.taken();
  const isPlatformReserved = config === undefined || !isEndpointAddress(config, address);
  const available = !isPlatformReserved && !taken.has(address);
  return { available, ...(available ? {} : { availableIPAddresses: firstFree(config, taken) }), isPlatformReserved };
}

function firstFree(config: NetworkConfig | undefined, taken: ReadonlySet<string>): readonly string[] {
  const free: string[] = [];
  for (const address of config === undefined ? [] : endpointAddresses(config)) {
    if (free.length === freeShownMax) break;
    if (!taken.has(address)) free.push(address);
  }
  return free;
}
