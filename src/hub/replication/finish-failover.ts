// Jobs CommitFailover and CancelFailover: the landed machine is kept for good, or removed and the source switched on again.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, type JobKind } from "../jobs/job.ts";
import { turnOnAutostart } from "./autostart.ts";
import { giveOrder } from "./give-order.ts";
import { faultsOf, patchItem } from "./item.ts";
import { authorityOf, removeLandedRow } from "./landed.ts";
import { landedId, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  machineId: z.string(),
  landedName: z.string(),
});
type Parameters = z.infer<typeof parametersShape>;

export function defineCommitFailover(world: Replication): JobKind {
  return defineJob<Parameters, { readonly power?: string }>({
    kind: "CommitFailover",
    title: "commit the migration",
    parameters: parametersShape,
    steps: [
      {
        name: "check",
        title: "check that the machine runs and stands by itself",
        run: async ({ parameters: { landedName } }) => {
          const { power, bytesToFill } = await world.target.status(landedName);
          if (power === "running" && bytesToFill === 0) return { power };
          throw new Fault("StateConflict", `could not commit the migration: the machine ${landedName} does not stand by itself`, {
            evidence: { landedName, power, bytesToFill },
            action: "start the machine, or cancel the failover",
          });
        },
        undo: "the check only reads",
      },
    ],
    settle: async (db, { parameters: { itemId, landedName }, outcome }) => {
      if (outcome.kind === "succeeded") await turnOnAutostart(db, landedId(vaultOf(parseResourceId(itemId)), landedName).text);
      const protectionState = outcome.kind === "succeeded" ? "CommitFailoverCompleted" : "CommitFailoverFailedOnRecovery";
      await patchItem(db, itemId, { protectionState, faults: faultsOf(outcome) });
      return await presentAfter(world, db, itemId);
    },
  });
}

export function defineCancelFailover(world: Replication): JobKind {
  const { services, limits, landings } = world;
  return defineJob<Parameters, { readonly removed?: string; readonly rolledBack?: string }>({
    kind: "CancelFailover",
    title: "cancel the migration",
    parameters: parametersShape,
    steps: [
      {
        name: "remove",
        title: "remove the machine from the target",
        run: async (context) => {
          const { itemId, landedName } = context.parameters;
          await context.confirm();
          await landings.remove(authorityOf(context), landedName);
          await context.write(async (db) => await removeLandedRow(db, landedId(vaultOf(parseResourceId(itemId)), landedName)));
          return { removed: landedName };
        },
        undo: "a target that was given up is not wanted back; the cancel is called again",
      },
      {
        name: "unfence",
        title: "switch the source on again",
        run: async (context) => {
          const { applianceId } = context.parameters;
          const machineId = parseMachineId(context.parameters.machineId);
          const draft = { kind: "unfence", machineId } as const;
          const wish = { applianceId, draft, label: "unfence", waitSecondsMax: limits.shortOrderSeconds, pollMs: limits.pollMs };
          await giveOrder(services, context, wish);
          return { rolledBack: "the source runs" };
        },
        undo: "the source is the only one that can run now; the cancel is called again",
      },
    ],
    settle: async (db, { parameters: { itemId }, outcome }) => {
      const isDone = outcome.kind === "succeeded";
      await patchItem(db, itemId, {
        protectionState: isDone ? "Protected" : "CancelFailoverFailedOnRecovery",
        faults: faultsOf(outcome),
        ...(isDone ? { failover: undefined } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}
