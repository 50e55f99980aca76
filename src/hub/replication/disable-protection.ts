// Job DisableProtection: replication ended, agent off, points out of the vault, the item gone. Also completes a migration.

import { sql } from "kysely";
import { z } from "zod";
import { parseMachineId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, type JobKind, type StepContext } from "../jobs/job.ts";
import { giveOrder } from "./give-order.ts";
import { openSecretStore } from "../db/secrets.ts";
import { faultsOf, patchItem } from "./item.ts";
import { itemType, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  /** Missing when enabling failed before the machine was known. */
  machineId: z.string().optional(),
  reason: z.enum(["NotSpecified", "MigrationComplete"]),
  /** The item goes though the appliance cannot be asked; what is on site stays there. */
  isPurge: z.boolean(),
});
type Parameters = z.infer<typeof parametersShape>;
interface State {
  readonly unprotected?: string;
  readonly leftovers?: readonly string[];
}

export function defineDisableProtection(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: "DisableProtection",
    title: "stop replication",
    parameters: parametersShape,
    steps: [
      {
        name: "unprotect",
        title: "end replication, remove the agent and the machine's points",
        weight: 4,
        run: async (context) => await unprotect(world, context),
        undo: "replication that was given up is not wanted back; the call is repeated until it ends",
      },
      {
        name: "forget",
        title: "forget the machine's points and state",
        run: async ({ parameters: { itemId, machineId: id } }) => {
          if (id === undefined) return {};
          const vault = vaultOf(parseResourceId(itemId));
          const machineId = parseMachineId(id);
          await world.services.points.removeMachine(vault.key, machineId);
          await world.services.appliances.removeMachine(vault.key, machineId);
          return {};
        },
        undo: "the rows spoke of points that are gone",
      },
    ],
    settle: async (db, { parameters: { itemId }, outcome }) => {
      if (outcome.kind === "succeeded") {
        await openSecretStore({ db, sealer: world.services.secrets.sealer }).removeAll(itemId);
        await sql`delete from resources where key = ${itemId.toLowerCase()} and type = ${itemType.toLowerCase()}`.execute(db);
        return undefined;
      }
      await patchItem(db, itemId, { protectionState: "DisablingFailed", faults: faultsOf(outcome) });
      return await presentAfter(world, db, itemId);
    },
  });
}

async function unprotect(world: Replication, context: StepContext<Parameters, State>): Promise<State> {
  const { applianceId, machineId: id, isPurge, reason } = context.parameters;
  if (id === undefined) return { unprotected: "nothing was installed", leftovers: [] };
  const machineId = parseMachineId(id);
  if (isPurge) {
    await context.log("purged: the agent and the machine's points were left where they are");
    return { unprotected: "purged", leftovers: [`agent of ${machineId}`, `points of ${machineId}`] };
  }
  await giveOrder(world.services, context, {
    applianceId,
    draft: { kind: "unprotect", machineId, removeAgent: true, removePoints: true },
    label: "unprotect",
    waitSecondsMax: world.limits.installSeconds,
    pollMs: world.limits.pollMs,
  });
  return { unprotected: reason === "MigrationComplete" ? "the migration is complete" : "replication was stopped", leftovers: [] };
}
