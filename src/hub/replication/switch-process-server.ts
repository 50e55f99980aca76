// Job SwitchProcessServer: protected machines go from one appliance of the vault to another, each with its id, its points and its log of changes.

import { z } from "zod";
import { parseMachineId } from "../../contract/ids.ts";
import { replicationPolicyShape } from "../../contract/agent-control.ts";
import { defineJob, type JobKind, type StepContext } from "../jobs/job.ts";
import { giveOrder, leaveOrder, settleOrder, type OrderWish } from "./give-order.ts";
import { faultsOf, patchItem } from "./item.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

export const switchKind = "SwitchProcessServer";

const machineShape = z.object({
  itemId: z.string(),
  machineId: z.string(),
  infrastructureId: z.string(),
  /** Of the target. */
  runAsAccountId: z.string(),
  address: z.string().optional(),
  policy: replicationPolicyShape,
});
export type SwitchedMachine = z.infer<typeof machineShape>;

const parametersShape = z.object({
  sourceId: z.string(),
  targetId: z.string(),
  machines: z.array(machineShape).min(1),
  /** What the caller gets at the end; the item itself when one was asked for. */
  answer: z.record(z.string(), z.unknown()).optional(),
});
export type SwitchParameters = z.infer<typeof parametersShape>;
interface State {
  readonly movedMachineIds?: readonly string[];
}
type Context = StepContext<SwitchParameters, State>;

export function defineSwitchProcessServer(world: Replication): JobKind {
  return defineJob<SwitchParameters, State>({
    kind: switchKind,
    title: "switch the process server",
    parameters: parametersShape,
    steps: [
      {
        name: "move",
        title: "let the new appliance take each machine over",
        weight: 4,
        run: async (context) => await move(world, context),
        // A machine that has gone over works there: it stays, and what the hub knows follows it.
        undo: async (context) => await follow(world, context),
      },
      {
        name: "forget",
        title: "let the appliance before forget the machines",
        run: async (context) => {
          for (const machine of context.parameters.machines) {
            const draft = { kind: "forget", machineId: parseMachineId(machine.machineId) } as const;
            // It may be lost for good, which is a reason to switch: nothing waits for it.
            await leaveOrder(world.services, context, {
              ...wishOf(world, context, machine, "forget"),
              applianceId: context.parameters.sourceId,
              draft,
            });
          }
          return {};
        },
        undo: "the machines are the new appliance's; that the one before forgets them is right",
      },
    ],
    settle: async (db, { parameters: { machines, answer }, outcome }) => {
      for (const { itemId } of machines) await patchItem(db, itemId, { busyWith: undefined, faults: faultsOf(outcome) });
      return answer ?? (await presentAfter(world, db, machines[0]?.itemId ?? ""));
    },
  });
}

function wishOf(world: Replication, { parameters }: Context, { machineId }: SwitchedMachine, what: string): Omit<OrderWish, "draft"> {
  const { installSeconds: waitSecondsMax, pollMs } = world.limits;
  return { applianceId: parameters.targetId, label: `${what}/${machineId}`, waitSecondsMax, pollMs };
}

/** One after the other: each is the target's from the moment that its agent spoke there. */
async function move(world: Replication, context: Context): Promise<State> {
  const { machines } = context.parameters;
  const moved = new Set(context.state.movedMachineIds);
  for (const machine of machines) {
    if (moved.has(machine.machineId)) continue;
    const { machineId: id, infrastructureId, runAsAccountId, address, policy } = machine;
    const draft = { kind: "adopt", machineId: parseMachineId(id), infrastructureId, runAsAccountId, policy } as const;
    const wish = { ...wishOf(world, context, machine, "adopt"), draft: { ...draft, ...(address === undefined ? {} : { address }) } };
    await giveOrder(world.services, context, wish);
    await keepTarget(context, machine);
    moved.add(id);
    await context.save({ movedMachineIds: [...moved] });
    await context.progress((100 * moved.size) / machines.length, `${moved.size} of ${machines.length} machines have gone over`);
  }
  return { movedMachineIds: [...moved] };
}

/** An order may have been carried out whose answer the job did not live to see. */
async function follow(world: Replication, context: Context): Promise<void> {
  const moved = new Set(context.state.movedMachineIds);
  for (const machine of context.parameters.machines) {
    if (moved.has(machine.machineId)) continue;
    const result = await settleOrder(world.services, context, wishOf(world, context, machine, "adopt"));
    if (result !== "never given" && result.outcome === "done") await keepTarget(context, machine);
  }
}

async function keepTarget(context: Context, { itemId, runAsAccountId }: SwitchedMachine): Promise<void> {
  const { targetId: applianceId } = context.parameters;
  await context.write(async (db) => await patchItem(db, itemId, { applianceId, runAsAccountId }));
}
