// Jobs of a landed machine: power on, off and on again, release of its processors, removal.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, type JobKind, type JobStep, type Queryable, type StepContext } from "../jobs/job.ts";
import { findItemWithLanded } from "./item.ts";
import { authorityOf, findLanded, patchLanded, removeLandedRow, requireHere, type LandedMachine } from "./landed.ts";
import type { Replication } from "./world.ts";

export const powerWishes = ["start", "powerOff", "cut", "deallocate", "cutAndDeallocate", "restart"] as const;
export type PowerWish = (typeof powerWishes)[number];

const powerShape = z.object({ machineId: z.string(), wish: z.enum(powerWishes) });
const removalShape = z.object({ machineId: z.string() });

interface PowerState {
  readonly stopped?: boolean;
  readonly started?: boolean;
}

/** The order of the steps is the order of a restart; the other wishes leave one of them out. */
export function defineMachinePower(world: Replication): JobKind {
  type Parameters = z.infer<typeof powerShape>;
  const stop: JobStep<Parameters, PowerState> = {
    name: "stop",
    title: "switch the machine off",
    run: async (context) => {
      const { machineId, wish } = context.parameters;
      if (wish === "start") return {};
      const { launch } = await landedHere(world, machineId);
      await context.confirm();
      await world.target.under(authorityOf(context)).stop(launch.name, wish === "cut" || wish === "cutAndDeallocate" ? "cut" : "orderly");
      return { stopped: true };
    },
    undo: "the order was to switch it off; who wants it on starts it again",
  };
  const start: JobStep<Parameters, PowerState> = {
    name: "start",
    title: "switch the machine on",
    run: async (context) => {
      const { machineId, wish } = context.parameters;
      if (wish !== "start" && wish !== "restart") return {};
      const { launch } = await landedHere(world, machineId);
      await context.confirm();
      await world.target.under(authorityOf(context)).start(launch.name);
      return { started: true };
    },
    undo: "the order was to switch it on; who wants it off stops it again",
  };
  return defineJob<Parameters, PowerState>({
    kind: "MachinePower",
    title: "switch the machine",
    parameters: powerShape,
    steps: [stop, start],
    settle: async (db, { parameters: { machineId, wish }, outcome }) => {
      if (outcome.kind === "succeeded")
        await patchLanded(db, machineId, {
          isDeallocated: wish === "deallocate" || wish === "cutAndDeallocate",
          isSwitchedOff: wish !== "start" && wish !== "restart",
        });
      return undefined;
    },
  });
}

export function defineMachineRemoval(world: Replication): JobKind {
  return defineJob<z.infer<typeof removalShape>, { readonly removed?: string }>({
    kind: "MachineRemoval",
    title: "remove the machine",
    parameters: removalShape,
    steps: [
      {
        name: "remove",
        title: "remove the machine and its disks from the target",
        run: async (context) => await removeMachine(world, context),
        undo: "what is removed cannot be brought back; the removal is called again",
      },
    ],
    settle: async () => undefined,
  });
}

async function removeMachine(
  world: Replication,
  context: StepContext<z.infer<typeof removalShape>, { readonly removed?: string }>,
): Promise<{ readonly removed?: string }> {
  const { machineId } = context.parameters;
  const { database } = world.services;
  const landed = await findLanded(database.db, machineId);
  if (landed === undefined) return {}; // A run that was cut removed it.
  requireHere(landed, world.place);
  await refuseHeld(database.db, landed);
  await context.confirm();
  await world.landings.remove(authorityOf(context), landed.launch.name);
  await context.write(async (db) => await removeLandedRow(db, parseResourceId(machineId)));
  return { removed: landed.launch.name };
}

/** A machine that a protected item still counts on goes through that item: clean-up, cancel or completion. */
export async function refuseHeld(db: Queryable, landed: LandedMachine): Promise<void> {
  if (landed.purpose === "made") return;
  const { launch, itemId } = landed;
  const item = await findItemWithLanded(db, itemId);
  if (item === undefined || item.protectionState === "CommitFailoverCompleted") return;
  throw new Fault("StateConflict", `could not delete the machine ${launch.name}: the protected item ${item.machineName} counts on it`, {
    evidence: { protectedItemId: itemId, protectionState: item.protectionState },
    action: "clean up the test migration or cancel the failover of that item",
    retry: "never",
  });
}

async function landedHere(world: Replication, machineId: string): Promise<LandedMachine> {
  const landed = await findLanded(world.services.database.db, machineId);
  if (landed === undefined)
    throw new Fault("NotFound", "could not switch the machine: it was removed meanwhile", { evidence: { machineId } });
  requireHere(landed, world.place);
  return landed;
}
