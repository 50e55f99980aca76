// The Azure target as the hub's configuration wants it: who calls, by which way, where machines land and what they are given there.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ClientSecretCredential } from "@azure/identity";
import { z } from "zod";
import { createConnector } from "../connectivity/connector.ts";
import { parseTopology, topologyShape } from "../connectivity/topology.ts";
import { openAzureClients, throughAgent } from "../landing/azure/azure-clients.ts";
import { openAzureTarget } from "../landing/azure/azure-target.ts";
import { createFetch } from "../landing/azure/fetch-bytes.ts";
import { createPreparer } from "../landing/azure/prepare-disks.ts";
import { openDriverPlans } from "../landing/hydration/driver-plans.ts";
import { ensureHelperImage } from "../landing/helper/helper-image.ts";
import { probeHttp } from "../landing/qemu/http-probe.ts";
import type { ExportDisk, Target } from "../landing/target.ts";
import type { HubServices } from "./services.ts";

const idShape = z.string().startsWith("/subscriptions/").max(2048);
const textShape = z.string().min(1).max(256);

export const azureLandingShape = z.strictObject({
  endpoint: z.url({ protocol: /^https$/ }).default("https://management.azure.com"),
  authority: z.url({ protocol: /^https$/ }).default("https://login.microsoftonline.com"),
  tenantId: textShape,
  clientId: textShape,
  /** Of a service principal with Contributor on the resource group, and on the network; read at the start. */
  clientSecretFile: z.string().startsWith("/").max(4096),
  subscriptionId: z.uuid(),
  resourceGroup: z.string().min(1).max(90),
  location: textShape,
  /** Ids of subnets by the names of the virtual networks that orders name. */
  networks: z.record(z.string().max(80), idShape).default({}),
  isolatedSubnet: idShape.optional(),
  diskType: z.enum(["Standard_LRS", "StandardSSD_LRS", "Premium_LRS"]).default("StandardSSD_LRS"),
  size: textShape.optional(),
  zone: z.enum(["1", "2", "3"]).optional(),
  availabilitySetId: idShape.optional(),
  licenceType: textShape.optional(),
  isTrustedLaunch: z.boolean().default(false),
  diskAccessId: idShape.optional(),
  tags: z.record(z.string().max(512), z.string().max(256)).default({}),
  /** By which way the names of Azure are reached: closed-network.md. */
  topology: topologyShape,
  /** Authorities of private names, besides the system's. */
  caFile: z.string().startsWith("/").max(4096).optional(),
});
export type AzureLanding = z.infer<typeof azureLandingShape>;

/** Closing it closes the target and its connections, and leaves landed machines running. */
export async function openAzureLanding(
  { clock, random, log, stateDir }: HubServices,
  config: AzureLanding,
  parts: { readonly exportDisk: ExportDisk; readonly cacheFolder: string; readonly owner: string },
): Promise<{ readonly target: Target } & AsyncDisposable> {
  const { endpoint, authority, tenantId, clientId, clientSecretFile, subscriptionId, topology, caFile, networks, tags } = config;
  const caPem = caFile === undefined ? {} : { caPem: await readFile(caFile, "utf8") };
  await using opening = new AsyncDisposableStack();
  const connector = opening.use(createConnector({ topology: parseTopology(topology), clock, log, ...caPem }));
  const agent = connector.httpsAgent;
  const secret = (await readFile(clientSecretFile, "utf8")).trim();
  const credential = new ClientSecretCredential(tenantId, clientId, secret, {
    authorityHost: authority,
    disableInstanceDiscovery: true, // The authority is the configuration's word; asking about it would call another name.
    additionalPolicies: [throughAgent(agent)],
  });
  const { resourceGroup, location, diskType, isTrustedLaunch } = config;
  const wishes = Object.fromEntries(
    (["isolatedSubnet", "size", "zone", "availabilitySetId", "licenceType", "diskAccessId"] as const).flatMap((name) =>
      config[name] === undefined ? [] : [[name, config[name]]],
    ),
  );
  const target = opening.use(
    await openAzureTarget({
      stateFolder: join(stateDir, "landing", "azure"),
      azure: openAzureClients({ endpoint, subscriptionId, credential, agent }),
      place: { resourceGroup, location, owner: parts.owner, networks, diskType, isTrustedLaunch, tags, ...wishes },
      prepare: createPreparer({
        exportDisk: parts.exportDisk,
        helperImage: async () => await ensureHelperImage(parts.cacheFolder),
        plans: openDriverPlans(join(parts.cacheFolder, "driver-plans"), clock),
        clock,
      }),
      ask: async (order, signal) => await probeHttp(order, clock, signal),
      fetchBytes: createFetch(connector),
      ...{ clock, random, log },
    }),
  );
  const closing = opening.move();
  return { target, [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
}
