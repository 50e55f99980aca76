// Protection container mappings: a policy associated with an appliance, as Azure's clients do before they enable machines.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, type ArmCall, type Desired, type ResourceType, type WriteOutcome } from "../api/resource-type.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { azureTarget, mappingsOf, storedMappingShape } from "./mapping.ts";
import { applianceOf, containerName, mappingType, policyType, provider, vaultOf } from "./names.ts";
import { itemsUnder, settingsOfPolicy } from "./policy.ts";

const inputShape = z.strictObject({ instanceType: z.literal(provider, `the provider must be ${provider}`) });
const createShape = z.strictObject({
  policyId: z.string().max(2048),
  targetProtectionContainerId: z.string().max(2048).default(azureTarget),
  providerSpecificInput: inputShape.optional(),
});
const changeShape = z.strictObject({ providerSpecificInput: inputShape.strict().optional() });
const removeBody = z.strictObject({
  properties: z
    .strictObject({ providerSpecificInput: z.strictObject({ instanceType: z.string().max(64).optional() }).optional() })
    .optional(),
});
const namesMax = 20;

export function mappingResource(services: HubServices): ResourceType {
  return defineResource({
    type: mappingType,
    isBare: true,
    within: "parent",
    isListedUnderAncestors: true,
    canPatch: true,
    properties: z.record(z.string(), z.unknown()),
    inputs: { put: createShape, patch: changeShape },
    onPut: async (call, desired) => await create(services, call, desired),
    // A mapping of this provider has nothing that can be changed: what is empty is answered, anything else is refused.
    onPatch: async (_call, desired, patch) => {
      parseInput(changeShape, patch, "the change of the mapping", "properties");
      return { kind: "done", properties: desired.existing?.properties ?? {} };
    },
    onDelete: async () => ({ kind: "done" }), // A purge: replication goes on, because each machine has its policy itself.
    present: async (resource) => await present(services, resource),
    actions: {
      remove: defineAction({
        body: removeBody,
        run: async (call, _body, resource) => {
          await refuseWhileUsed(services, resource);
          await services.resources.remove(call.id);
          return { kind: "done" };
        },
      }),
    },
  });
}

async function create(services: HubServices, call: ArmCall, desired: Desired<JsonObject>): Promise<WriteOutcome> {
  const wish = parseInput(createShape, desired.properties, "the mapping", "properties");
  const policyId = parseResourceId(wish.policyId);
  if (policyId.type.toLowerCase() !== policyType.toLowerCase() || vaultOf(policyId).key !== vaultOf(call.id).key)
    throw new Fault("InputInvalid", "could not associate the policy: it is not a replication policy of this vault", {
      evidence: { policyId: wish.policyId },
    });
  await settingsOfPolicy(services, policyId); // Throws NotFound.
  if (wish.targetProtectionContainerId.toLowerCase() !== azureTarget.toLowerCase())
    throw new Fault("InputInvalid", "could not associate the policy: machines of an appliance can only land at the hub's own target", {
      evidence: { targetProtectionContainerId: wish.targetProtectionContainerId, allowed: azureTarget },
    });
  await refuseOther(services, call.id, policyId);
  return { kind: "done", properties: { policyId: policyId.text, targetProtectionContainerId: azureTarget } };
}

/** A mapping keeps its policy, and a policy has one mapping in a container. */
async function refuseOther(services: HubServices, id: ResourceId, policyId: ResourceId): Promise<void> {
  const mappings = await mappingsOf(services, parseResourceId(id.parentText));
  const isSame = (mapping: { readonly id: string }): boolean => mapping.id.toLowerCase() === id.key;
  const clash = mappings.find((mapping) => isSame(mapping) !== (mapping.policyId.toLowerCase() === policyId.key));
  if (clash === undefined) return;
  throw new Fault(
    "StateConflict",
    isSame(clash)
      ? `could not change the mapping ${id.name}: its policy is fixed`
      : `could not associate the policy ${policyId.name}: another mapping of the container has it`,
    { evidence: { mapping: clash.id, policyId: clash.policyId }, action: "use that mapping, or remove it first", retry: "never" },
  );
}

async function present(services: HubServices, { id, properties }: Resource): Promise<JsonObject> {
  const { policyId, targetProtectionContainerId } = storedMappingShape.parse(properties);
  const applianceId = applianceOf(id);
  const appliance = await services.appliances.find(applianceId);
  return {
    policyId,
    policyFriendlyName: parseResourceId(policyId).name,
    state: "Paired",
    health: "Normal",
    healthErrorDetails: [],
    sourceFabricFriendlyName: appliance?.name ?? applianceId,
    sourceProtectionContainerFriendlyName: containerName(applianceId),
    targetFabricFriendlyName: targetProtectionContainerId,
    targetProtectionContainerId,
    targetProtectionContainerFriendlyName: targetProtectionContainerId,
    providerSpecificDetails: { instanceType: provider },
  };
}

async function refuseWhileUsed(services: HubServices, { id, properties }: Resource): Promise<void> {
  const policyId = parseResourceId(storedMappingShape.parse(properties).policyId);
  const container = `${id.parentKey}/`;
  const items = (await itemsUnder(services.database.db, policyId)).filter((item) => item.id.toLowerCase().startsWith(container));
  if (items.length === 0) return;
  throw new Fault("StateConflict", `could not remove the mapping ${id.name}: machines of the container replicate by its policy`, {
    evidence: { protectedItems: items.slice(0, namesMax).map((item) => item.id) },
    action: "stop their replication first, or delete the mapping (purge): replication goes on without it",
    retry: "never",
  });
}
