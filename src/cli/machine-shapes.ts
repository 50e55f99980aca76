// The parts of the replication resources that the command line reads; everything else passes through to --json untouched.

import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { machineFlowShape } from "../contract/machine-flow.ts";
import type { ArmClient } from "./arm-client.ts";
import { vaultPath } from "./vault.ts";

const namedShape = z.looseObject({ id: z.string(), name: z.string() });

export const protectableItemShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({
    friendlyName: z.string(),
    protectionStatus: z.string().optional(),
    customDetails: z
      .looseObject({
        ipAddress: z.string().optional(),
        osType: z.string().optional(),
        poweredOn: z.union([z.string(), z.boolean()]).optional(),
        diskDetails: z.array(z.looseObject({})).optional(),
      })
      .optional(),
  }),
});
export type ProtectableItem = z.infer<typeof protectableItemShape>;

export const protectedItemShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({
    friendlyName: z.string(),
    protectionState: z.string(),
    replicationHealth: z.string().optional(),
    testFailoverState: z.string().optional(),
    allowedOperations: z.array(z.string()).optional(),
    providerSpecificDetails: z.looseObject({ watari: z.looseObject({ flow: machineFlowShape.optional() }).optional() }).optional(),
  }),
});
export type ProtectedItem = z.infer<typeof protectedItemShape>;

export const recoveryPointShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({
    recoveryPointTime: z.string(),
    recoveryPointType: z.string().optional(),
    providerSpecificDetails: z
      .looseObject({ watari: z.looseObject({ verified: z.looseObject({ at: z.string() }).optional() }).optional() })
      .optional(),
  }),
});
export type RecoveryPointResource = z.infer<typeof recoveryPointShape>;

/** Path of every protection container of a vault: one for each registered appliance. */
async function containerPaths(arm: ArmClient, vault: string): Promise<readonly string[]> {
  const fabrics = z.array(namedShape).parse(await arm.list(`${vaultPath(arm.groupPath, vault)}/replicationFabrics`));
  const lists = await Promise.all(
    fabrics.map(async (fabric) => z.array(namedShape).parse(await arm.list(`${fabric.id}/replicationProtectionContainers`))),
  );
  return lists.flat().map((container) => container.id);
}

export async function listProtectable(arm: ArmClient, vault: string): Promise<readonly ProtectableItem[]> {
  const paths = await containerPaths(arm, vault);
  const lists = await Promise.all(
    paths.map(async (path) => z.array(protectableItemShape).parse(await arm.list(`${path}/replicationProtectableItems`))),
  );
  return lists.flat();
}

export async function listProtected(arm: ArmClient, vault: string): Promise<readonly ProtectedItem[]> {
  return z.array(protectedItemShape).parse(await arm.list(`${vaultPath(arm.groupPath, vault)}/replicationProtectedItems`));
}

/** The one item of this name; a name that fits none or several is a Fault that lists the choices. */
export function pickByName<Item extends { readonly name: string; readonly properties: { readonly friendlyName: string } }>(
  items: readonly Item[],
  name: string,
  what: string,
): Item {
  const fitting = items.filter((item) => item.name === name || item.properties.friendlyName === name);
  const [only] = fitting;
  if (only !== undefined && fitting.length === 1) return only;
  const choices = (fitting.length > 1 ? fitting : items).map((item) => `${item.properties.friendlyName} (${item.name})`);
  const fault = fitting.length > 1 ? "InputInvalid" : "NotFound";
  throw new Fault(fault, `could not pick the ${what} "${name}": ${fitting.length} have this name`, {
    evidence: { name, choices: choices.slice(0, 50) },
  });
}
