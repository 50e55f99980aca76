// Fabrics: each is an appliance. Removing one ends the appliance's registration.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import {
  defineAction,
  noBody,
  defineResource,
  type ActionDefinition,
  type ArmCall,
  type ResourceType,
  type WriteOutcome,
} from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import { openHealthErrors } from "../db/health-errors.ts";
import { healthLevel, presentHealthError, worseLevel } from "../health/present-health.ts";
import { requireSame } from "../resources/same-as-present.ts";
import type { HubServices } from "../services.ts";
import { applianceActions } from "./appliance-jobs.ts";
import { itemsServedBy } from "./item.ts";
import { applianceOf, fabricId, fabricType, itemType, vaultOf } from "./names.ts";
import { beginRefresh } from "./refresh-provider.ts";
import { loadOf, showProcessServer } from "./process-server.ts";
import { beginRenewal, renewBody } from "./renew-certificate.ts";
import { countItems, healthOf, isSilent, refusedAction, sourceOf } from "./site-appliances.ts";
import { beginReassociation, reassociateBody } from "./switch-begin.ts";
import type { ReplicationFront } from "./world.ts";

const namesMax = 20;

export function fabricResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  const source = sourceOf(
    services,
    async (vault, appliance) => await showFabric(services, vault, appliance),
    ({ applianceId }) => applianceId,
  );
  return defineResource({
    type: fabricType,
    isBare: true,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    source,
    onPut: async (call, { properties }) => answerPresent(call, properties, await source.get(call)),
    onDelete: async (call) => {
      await unregister(services, call.id);
      return { kind: "done" };
    },
    actions: actionsOf(front),
  });
}

function actionsOf(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  const { services } = front;
  const byKey = "register the appliance with a key of the vault (POST registrationKeys)";
  return {
    ...applianceActions(front),
    remove: removeAction(services),
    checkConsistency: defineAction({
      body: noBody,
      isLong: true,
      run: async (call) => await beginRefresh(front, call, async () => await findShown(services, call.id)),
    }),
    reassociateGateway: defineAction({
      body: reassociateBody,
      isLong: true,
      run: async (call, { properties }) =>
        await beginReassociation(front, call, properties, async () => await findShown(services, call.id)),
    }),
    renewCertificate: defineAction({
      body: renewBody,
      isLong: true,
      run: async (call, { properties }) =>
        await beginRenewal(front, call, properties?.renewCertificateType, async () => await findShown(services, call.id)),
    }),
    migratetoaad: refusedAction("change how the appliance signs in", "an appliance signs in by its certificate", byKey),
  };
}

/** Of fabrics and providers: a removal by POST. */
export function removeAction(services: HubServices): ActionDefinition {
  return defineAction({
    body: noBody,
    run: async ({ id }) => {
      await unregister(services, id);
      return { kind: "done" };
    },
  });
}

function answerPresent({ id }: ArmCall, wanted: JsonObject, present: JsonObject | undefined): WriteOutcome {
  if (present !== undefined) requireSame("the fabric", wanted, present["properties"]);
  if (present !== undefined) return { kind: "answered", body: present };
  throw new Fault(
    "OperationNotSupported",
    `could not create the fabric ${id.name}: a fabric is an appliance and comes by its registration`,
    {
      action: "make a registration key (POST registrationKeys on the vault) and register the appliance with it",
    },
  );
}

/**
 * From here on the appliance's certificate is not accepted. What it knew of vCenters and machines goes with it, mappings too. Refused
 * while one of its machines is protected. Repeatable.
 */
export async function unregister(services: HubServices, id: ResourceId): Promise<void> {
  const applianceId = applianceOf(id);
  const fabric = fabricId(vaultOf(id), applianceId);
  const items = await services.resources.list({ under: fabric.text, isDeep: true, type: itemType, countMax: namesMax });
  const held = [...new Set([...items.map((item) => item.id.text), ...(await itemsServedBy(services.database.db, applianceId, namesMax))])];
  if (held.length > 0)
    throw new Fault("StateConflict", `could not remove the fabric ${fabric.name}: machines of it are protected`, {
      evidence: { protectedItems: held },
      action: "complete or stop the replication of the machines that are named first",
      retry: "never",
    });
  await services.appliances.remove(applianceId);
  await services.resources.remove(fabric);
  services.log.info("appliance unregistered", { applianceId });
}

async function findShown(services: HubServices, id: ResourceId): Promise<JsonObject | undefined> {
  const appliance = await services.appliances.find(applianceOf(id));
  return appliance === undefined ? undefined : await showFabric(services, vaultOf(id), appliance);
}

async function showFabric(services: HubServices, vault: ResourceId, appliance: Appliance): Promise<JsonObject> {
  const { health, errors } = await fabricHealth(services, vault, appliance);
  return {
    id: fabricId(vault, appliance.applianceId).text,
    name: appliance.applianceId,
    type: fabricType,
    properties: {
      friendlyName: appliance.name,
      internalIdentifier: appliance.applianceId,
      bcdrState: "Valid",
      encryptionDetails: { kekState: "None" },
      health,
      healthErrorDetails: errors,
      customDetails: await showVMware(services, vault, appliance),
    },
  };
}

async function showVMware(services: HubServices, vault: ResourceId, appliance: Appliance): Promise<JsonObject> {
  const inventory = await services.appliances.inventory(appliance.applianceId);
  const { health, errors } = await fabricHealth(services, vault, appliance);
  const count = String(await countItems(services, vault, appliance));
  const common = {
    agentVersion: appliance.version,
    agentVersionDetails: { version: appliance.version, status: "Supported" },
    lastHeartbeat: appliance.lastSeenAt,
    versionStatus: "Supported",
    replicationPairCount: count,
    ...loadOf(services, appliance),
  };
  return {
    instanceType: "VMware",
    hostName: appliance.name,
    ...common,
    csServiceStatus: isSilent(services, appliance) ? "NotRunning" : "Running",
    processServerCount: "1",
    protectedServers: count,
    agentCount: count,
    processServers: [showProcessServer(services, appliance, { ...common, machineCount: count, health, healthErrors: errors })],
    masterTargetServers: [],
    runAsAccounts: (inventory?.runAsAccounts ?? []).map(({ accountId, name, kind }) => ({ accountId, accountName: name, kind })),
    vCenters: (inventory?.vcenters ?? []).map(({ vcenterId, name, host, status }) => ({ vcenterId, name, host, status })),
  };
}

/** What the appliance says and what can be seen at once, with what the hub has raised. */
async function fabricHealth(services: HubServices, vault: ResourceId, appliance: Appliance): Promise<ReturnType<typeof healthOf>> {
  const own = healthOf(services, appliance);
  const raised = await openHealthErrors(services.database.db, fabricId(vault, appliance.applianceId).key);
  const others = own.errors.filter(({ errorCode }) => !raised.some(({ code }) => code === errorCode));
  return { health: worseLevel(own.health, healthLevel(raised)), errors: [...raised.map(presentHealthError), ...others] };
}
