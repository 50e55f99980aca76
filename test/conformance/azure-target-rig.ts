// A hub's own ARM front as the place where the Azure target lands, reached through a connector and by Microsoft's own clients.

import { readFile } from "node:fs/promises";
import { ClientSecretCredential } from "@azure/identity";
import { systemClock as clock, type Clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import { createConnector, type Connector } from "../../src/connectivity/connector.ts";
import { parseTopology } from "../../src/connectivity/topology.ts";
import type { EphemeralFacts } from "../../src/hub/hub-command.ts";
import { openAzureClients, throughAgent, type AzureClients } from "../../src/landing/azure/azure-clients.ts";
import type { AzurePlace } from "../../src/landing/azure/azure-machine.ts";
import { createFetch } from "../../src/landing/azure/fetch-bytes.ts";

export interface AzureFront extends AsyncDisposable {
  readonly azure: AzureClients;
  readonly place: AzurePlace;
  readonly connector: Connector;
  readonly clock: Clock;
  readonly fetchBytes: ReturnType<typeof createFetch>;
}

/** `network` is one that the hub's configuration names for landing; its subnet is made here. */
export async function openAzureFront(
  facts: EphemeralFacts,
  network: { readonly name: string; readonly cidr: string },
): Promise<AzureFront> {
  const { endpoint, authority, tenantId, clientId, clientSecret, subscriptionId, resourceGroup } = facts;
  const host = new URL(endpoint).hostname;
  const topology = parseTopology({ siteNames: [host], siteRanges: ["127.0.0.0/8"], hosts: [{ name: host, addresses: ["127.0.0.1"] }] });
  const connector = createConnector({ topology, clock, log, caPem: await readFile(facts.caFile, "utf8") });
  const agent = connector.httpsAgent;
  const credential = new ClientSecretCredential(tenantId, clientId, clientSecret, {
    authorityHost: authority,
    disableInstanceDiscovery: true,
    additionalPolicies: [throughAgent(agent)],
  });
  const azure = openAzureClients({ endpoint, subscriptionId, credential, agent });
  await azure.network.virtualNetworks.createOrUpdate(resourceGroup, network.name, {
    location: "local",
    addressSpace: { addressPrefixes: [network.cidr] },
    subnets: [{ name: "default", addressPrefix: network.cidr }],
  });
  const place: AzurePlace = {
    resourceGroup,
    location: "local",
    owner: random.uuid(),
    networks: {},
    isolatedSubnet: `/subscriptions/${subscriptionId}/resourceGroups/${resourceGroup}/providers/Microsoft.Network/virtualNetworks/${network.name}/subnets/default`,
    diskType: "Standard_LRS",
    isTrustedLaunch: false,
    tags: { made: "by a test" },
  };
  return {
    azure,
    place,
    connector,
    clock,
    fetchBytes: createFetch(connector),
    [Symbol.asyncDispose]: async () => await connector[Symbol.asyncDispose](),
  };
}
