// Every name that must be private, with its address: for an endpoint, or for a vault with the storage account behind it.

import { z } from "zod";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import type { NetworkConfig } from "../hub-config.ts";
import { endpointType, planEndpoint, type PlannedListener } from "../private-link/endpoint-plan.ts";

export interface PrivateName {
  readonly name: string;
  readonly address: string;
  /** Address range of the subnet that the address is of. */
  readonly range: string;
  readonly member: string;
  readonly resourceId: string;
  readonly endpointId: string;
}

export interface DnsSettings {
  ofEndpoint(endpoint: Resource): Promise<readonly PrivateName[]>;
  /** Of every endpoint that leads to the resource. */
  ofTarget(targetId: string): Promise<readonly PrivateName[]>;
  /** The vault's own names and those of its storage account. */
  ofVault(vault: Resource): Promise<readonly PrivateName[]>;
}

const storageOfShape = z.looseObject({ watariStorageAccountId: z.string().optional() });

export function createDnsSettings(hub: {
  readonly resources: ResourceStore;
  readonly networks: readonly NetworkConfig[];
  readonly domain: string;
}): DnsSettings {
  const ofTarget = async (targetId: string): Promise<readonly PrivateName[]> => {
    const names: PrivateName[] = [];
    for (const endpoint of await hub.resources.having({ type: endpointType, property: "linkedTo", value: targetId }))
      for (const planned of await planEndpoint(hub, endpoint)) names.push(...toNames(planned));
    return names;
  };
  return {
    ofTarget,
    ofEndpoint: async (endpoint) => (await planEndpoint(hub, endpoint)).flatMap(toNames),
    ofVault: async (vault) => {
      const storageId = storageOfShape.parse(vault.properties).watariStorageAccountId;
      return [...(await ofTarget(vault.id.text)), ...(storageId === undefined ? [] : await ofTarget(storageId))];
    },
  };
}

/** Lists names and, for those who write hosts files, the lines. */
export function presentDnsSettings(names: readonly PrivateName[]): JsonObject {
  return { value: names, hostsLines: names.map(({ address, name }) => `${address} ${name}`) };
}

function toNames({ member, address, network, target, endpointId }: PlannedListener): readonly PrivateName[] {
  const common = { address, range: network.cidr, member: member.member, resourceId: target.id.text, endpointId };
  const targetName = `${member.recordName}.${member.zone}`;
  return [...new Set([member.fqdn, targetName])].map((name) => ({ name, ...common }));
}
