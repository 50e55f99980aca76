// What the hub shows of the one machine that a move is about, read anew for each decision.

import { z } from "zod";
import type { ArmClient } from "../arm-client.ts";
import { listProtectable, protectedItemShape } from "../machine-shapes.ts";
import { vaultPath } from "../vault.ts";
import { hubNames } from "./hub-settings.ts";
import type { SeenItem } from "./next-step.ts";

const itemShape = protectedItemShape.extend({
  properties: protectedItemShape.shape.properties.extend({
    testFailoverState: z.string(),
    lastSuccessfulTestFailoverTime: z.string().optional(),
    failoverRecoveryPointId: z.string().optional(),
    currentScenario: z.looseObject({ jobId: z.string() }).optional(),
    providerSpecificDetails: z.looseObject({
      protectedDisks: z
        .array(
          z.looseObject({
            diskId: z.string(),
            diskCapacityInBytes: z.number(),
            resyncProcessedBytes: z.number(),
            progressStatus: z.string(),
          }),
        )
        .default([]),
      watari: z
        .looseObject({ phase: z.string(), lagSeconds: z.number().optional(), dirtyBytes: z.number(), pointCount: z.number() })
        .optional(),
    }),
  }),
});
export type MoveItem = z.infer<typeof itemShape>;

const landedShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    instanceView: z.looseObject({ statuses: z.array(z.looseObject({ code: z.string() })) }),
    watari: z.looseObject({ purpose: z.string(), addresses: z.array(z.string()).default([]) }),
  }),
});

export interface LandedMachine {
  readonly name: string;
  readonly isRunning: boolean;
  readonly addresses: readonly string[];
}

/** Undefined while the machine is not protected, and after completion. */
export async function findItem(arm: ArmClient, infrastructureId: string): Promise<MoveItem | undefined> {
  const items = z.array(itemShape).parse(await arm.list(`${vaultPath(arm.groupPath, hubNames.vault)}/replicationProtectedItems`));
  return items.find((item) => item.name.toLowerCase() === infrastructureId.toLowerCase());
}

/** The machine that landed for good; a test machine is not meant. */
export async function findLanded(arm: ArmClient): Promise<LandedMachine | undefined> {
  const machines = z.array(landedShape).parse(await arm.list(landedPath(arm)));
  const found = machines.find(({ properties }) => properties.watari.purpose === "migrated");
  if (found === undefined) return undefined;
  const isRunning = found.properties.instanceView.statuses.some(({ code }) => code === "PowerState/running");
  return { name: found.name, isRunning, addresses: found.properties.watari.addresses };
}

export function landedPath(arm: ArmClient, name?: string): string {
  return `${arm.groupPath}/providers/Microsoft.Compute/virtualMachines${name === undefined ? "" : `/${name}`}`;
}

/** Ids of the discovered machine and of the item that protects it, once the appliance has told the hub of it. */
export async function findProtectable(
  arm: ArmClient,
  infrastructureId: string,
): Promise<{ readonly protectableId: string; readonly itemId: string } | undefined> {
  const all = await listProtectable(arm, hubNames.vault);
  const found = all.find((each) => each.name.toLowerCase() === infrastructureId.toLowerCase());
  if (found === undefined) return undefined;
  const container = found.id.slice(0, found.id.lastIndexOf("/replicationProtectableItems/"));
  return { protectableId: found.id, itemId: `${container}/replicationProtectedItems/${found.name}` };
}

export function toSeenItem({ properties }: MoveItem): SeenItem {
  return {
    protectionState: properties.protectionState,
    testFailoverState: properties.testFailoverState,
    isTested: properties.lastSuccessfulTestFailoverTime !== undefined,
    jobId: properties.currentScenario?.jobId,
    finalPointId: properties.failoverRecoveryPointId?.split("/").at(-1),
  };
}
