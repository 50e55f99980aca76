// Job DiscoverProtectableItem: the appliance takes in a machine that no vCenter shows, by its address.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { ActionOutcome, ArmCall } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { defineJob, stored, type JobKind } from "../jobs/job.ts";
import { requireAccount } from "./enable-protection.ts";
import { giveOrder, requireKnownOrder } from "./give-order.ts";
import { jobTarget } from "./item-start.ts";
import { applianceOf } from "./names.ts";
import type { Replication, ReplicationFront } from "./world.ts";

export const discoverBody = z.strictObject({
  properties: z.strictObject({
    friendlyName: z.string().min(1).max(255),
    ipAddress: z.string().min(1).max(253),
    osType: z.string().max(40),
    /** Ours: the machine is looked at over SSH with it; without, it is what the three others say until its agent speaks. */
    runAsAccountId: z.string().min(1).max(64).optional(),
  }),
});
export type DiscoverBody = z.infer<typeof discoverBody>["properties"];

const parametersShape = z.object({
  applianceId: z.string(),
  name: z.string(),
  address: z.string(),
  runAsAccountId: z.string().optional(),
  /** What the caller gets at the end. */
  answer: z.record(z.string(), z.unknown()),
});
type Parameters = z.infer<typeof parametersShape>;

export function defineDiscoverMachine(world: Replication): JobKind {
  return defineJob<Parameters, { readonly infrastructureId?: string }>({
    kind: "DiscoverProtectableItem",
    title: "add a machine by its address",
    parameters: parametersShape,
    steps: [
      {
        name: "add",
        title: "let the appliance look at the machine",
        run: async (context) => {
          const { applianceId, name, address, runAsAccountId } = context.parameters;
          const { infrastructureId } = await giveOrder(world.services, context, {
            applianceId,
            draft: { kind: "addMachine", name, address, ...(runAsAccountId === undefined ? {} : { runAsAccountId }) },
            label: "addMachine",
            waitSecondsMax: world.limits.shortOrderSeconds,
            pollMs: world.limits.pollMs,
          });
          if (infrastructureId === undefined)
            throw new Fault("Internal", "the appliance answered the order addMachine without the machine's id");
          return { infrastructureId };
        },
        undo: "a machine that answered stays in the list of what can be protected; nothing was changed on it",
      },
    ],
    settle: async (_db, { parameters, state, outcome }) => {
      if (outcome.kind !== "succeeded") return undefined;
      return { ...parameters.answer, protectableItemName: stored(state, "infrastructureId") };
    },
    restart: async () => undefined,
  });
}

export async function beginDiscovery(
  { services, engine }: ReplicationFront,
  { id, caller }: ArmCall,
  wish: DiscoverBody,
  answer: JsonObject,
): Promise<ActionOutcome> {
  const { friendlyName: name, ipAddress: address, osType, runAsAccountId } = wish;
  const applianceId = applianceOf(id);
  await requireKnownOrder(services, applianceId, "addMachine");
  if (osType.toLowerCase() !== "linux")
    throw new Fault("OperationNotSupported", `could not add the machine ${name}: its operating system is ${osType}`, {
      evidence: { osType },
      action: "add machines with Linux; the list of supported operating systems tells which",
    });
  const inventory = await services.appliances.inventory(applianceId);
  if (runAsAccountId !== undefined) requireAccount(inventory, runAsAccountId);
  const present = inventory?.machines.find((machine) => machine.addresses.includes(address));
  if (present !== undefined)
    throw new Fault("StateConflict", `could not add the machine ${name}: ${present.name} has the address ${address}`, {
      evidence: { protectableItemId: `${id.text}/replicationProtectableItems/${present.infrastructureId}` },
      causes: ["the machine was added before", "a vCenter of the appliance shows it"],
      action: "protect the protectable item that is named",
      retry: "never",
    });
  const parameters: Parameters = { applianceId, name, address, answer, ...(runAsAccountId === undefined ? {} : { runAsAccountId }) };
  const target = { ...jobTarget(id, name, caller.name), lockKey: `discover:${applianceId}:${address.toLowerCase()}` };
  return { kind: "accepted", operationId: await engine.submit({ kind: "DiscoverProtectableItem", ...target, parameters }) };
}
