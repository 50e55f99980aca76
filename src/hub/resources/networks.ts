// Virtual networks and their subnets: each subnet stands for a network of the hub's configuration, a real interface or loopback.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { childId, parseResourceId } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import { containsRange, type NetworkConfig } from "../hub-config.ts";
import { endpointType } from "../private-link/endpoint-plan.ts";

const networkType = "Microsoft.Network/virtualNetworks";
const subnetType = `${networkType}/subnets`;

const subnetShape = z.looseObject({
  name: z.string().max(80),
  properties: z.looseObject({ addressPrefix: z.cidrv4() }),
});
const networkShape = z.looseObject({
  addressSpace: z.looseObject({ addressPrefixes: z.array(z.cidrv4()).min(1).max(16) }),
  subnets: z.array(subnetShape).max(64).default([]),
});
const endpointSubnetShape = z.looseObject({ subnet: z.looseObject({ id: z.string() }) });

export function networkTypes(dependencies: {
  readonly resources: ResourceStore;
  readonly networks: readonly NetworkConfig[];
}): readonly ResourceType[] {
  const { resources, networks } = dependencies;
  const subnetsOf = async (networkId: string): Promise<readonly JsonObject[]> => {
    const network = await resources.find(networkId);
    return network === undefined ? [] : presentSubnets(network);
  };
  return [
    defineResource({
      type: networkType,
      within: "resourceGroup",
      properties: networkShape,
      canPatch: true,
      onPut: async (call, desired) => {
        const subnets = desired.properties.subnets.map(({ name, properties }) => {
          const prefix = properties.addressPrefix;
          requireConfigured({ networks, virtualNetwork: call.id.name, subnet: name, prefix });
          return { name, properties: { ...properties, addressPrefix: prefix } };
        });
        return { kind: "done", properties: { ...desired.properties, subnets } };
      },
      present: async (network) => ({ ...network.properties, subnets: presentSubnets(network) }),
      onDelete: async (_call, network) => {
        for await (const endpoint of resources.all(endpointType)) {
          const subnetId = endpointSubnetShape.parse(endpoint.properties).subnet.id;
          if (subnetId.toLowerCase().startsWith(`${network.id.key}/`))
            throw new Fault("StateConflict", `could not delete the network ${network.id.name}: a private endpoint uses it`, {
              evidence: { privateEndpoint: endpoint.id.text },
              action: "delete the private endpoint first",
              retry: "never",
            });
        }
        return { kind: "done" };
      },
    }),
    defineResource({
      type: subnetType,
      within: "parent",
      properties: z.looseObject({}),
      source: {
        get: async (call) => {
          const all = await subnetsOf(call.id.parentText);
          return all.find((subnet) => String(subnet["name"]).toLowerCase() === call.id.name.toLowerCase());
        },
        list: async (call) => ({ items: await subnetsOf(call.id.text), next: undefined }),
      },
    }),
  ];
}

function presentSubnets(network: Resource): readonly JsonObject[] {
  const { subnets } = networkShape.parse(network.properties);
  return subnets.map(({ name, properties }) => ({
    id: childId(parseResourceId(network.id.text), "subnets", name).text,
    name,
    type: subnetType,
    properties: { ...properties, provisioningState: "Succeeded" },
  }));
}

function requireConfigured(wanted: {
  readonly networks: readonly NetworkConfig[];
  readonly virtualNetwork: string;
  readonly subnet: string;
  readonly prefix: string;
}): void {
  const { networks, virtualNetwork, subnet, prefix } = wanted;
  const known = networks.map((network) => `${network.virtualNetwork}/${network.subnet} ${network.cidr}`);
  const found = networks.find(
    (network) =>
      network.virtualNetwork.toLowerCase() === virtualNetwork.toLowerCase() && network.subnet.toLowerCase() === subnet.toLowerCase(),
  );
  const evidence = { network: virtualNetwork, subnet, range: prefix, configured: known };
  if (found === undefined)
    throw new Fault(
      "InputInvalid",
      `could not create the subnet ${virtualNetwork}/${subnet}: the hub's configuration has no such network`,
      {
        evidence,
        action: "use a network of the evidence, or add this one to the hub's configuration and start it again",
      },
    );
  if (!containsRange(found.cidr, prefix))
    throw new Fault("InputInvalid", `could not create the subnet ${virtualNetwork}/${subnet}: its range is not inside the configured one`, {
      evidence,
    });
}
