// Job ReverseEnd: the way back ends at the source, whose disks were written and which is switched on, or the landed machine is started again.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { digestShape, diskIdShape, pointIdShape } from "../../contract/shapes.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, type JobKind, type JobStep, type StepContext } from "../jobs/job.ts";
import { giveOrder, isWithdrawn, settleOrder, type OrderWish } from "./give-order.ts";
import { faultsOf, patchItem, readItem, type Reverse } from "./item.ts";
import { authorityOf } from "./landed.ts";
import { openPoint } from "./launch-steps.ts";
import { vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

export const reverseEndKind = "ReverseEnd";

export const writtenDisksShape = z.array(z.object({ diskId: diskIdShape, root: digestShape })).max(64);

const parametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  machineId: z.string(),
  landedName: z.string(),
  pointId: pointIdShape,
  side: z.enum(["source", "landed"]),
  /** Of the source's disks, as `reverse apply` read them after it had written. */
  disks: writtenDisksShape,
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly landedPower?: string;
  readonly sourceStartedAt?: string;
  readonly landedStartedAt?: string;
}
type Step = JobStep<Parameters, State>;
type Context = StepContext<Parameters, State>;

export function defineReverseEnd(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: reverseEndKind,
    title: "end the way back",
    parameters: parametersShape,
    steps: ({ side }) => (side === "source" ? [proveStep(world), sourceStep(world)] : [landedStep(world)]),
    settle: async (db, { parameters: { itemId, side }, state, outcome }) => {
      const { reverse } = await readItem(db, itemId);
      const returnedAt = state.sourceStartedAt ?? toTimestamp(world.services.clock.nowMs());
      const isDone = outcome.kind === "succeeded" && reverse !== undefined;
      await patchItem(db, itemId, {
        busyWith: undefined,
        faults: faultsOf(outcome),
        ...(isDone ? { reverse: side === "source" ? { ...reverse, returnedAt } : withoutFinal(reverse) } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

/** The landed machine writes again: the point is one like the others. */
function withoutFinal({ finalPointId: _final, returnPointId: _return, sourceOrderedAt: _ordered, ...reverse }: Reverse): Reverse {
  return reverse;
}

function proveStep(world: Replication): Step {
  const { target } = world;
  return {
    name: "prove",
    title: "compare what was written with the final point, and see that the landed machine is off and stays so",
    run: async (context) => {
      const { itemId, landedName, pointId, disks } = context.parameters;
      const point = await openPoint(world, vaultOf(parseResourceId(itemId)).text, parsePointId(pointId));
      const rootOf = (diskId: string): string | undefined => disks.find((disk) => disk.diskId === diskId)?.root;
      const differing = point.disks.filter(({ diskId, root }) => rootOf(diskId) !== root);
      if (differing.length > 0)
        throw new Fault("RootsDiffer", "could not switch the source on: its disks are not told to be the final point's", {
          evidence: {
            pointId,
            disks: differing.map(({ diskId, root }) => `${diskId}: told ${rootOf(diskId) ?? "nothing"}, point ${root}`),
          },
          action: "run `watari reverse apply` to its end, and give what it answers",
        });
      const { power } = await target.status(landedName);
      if (power === "running")
        throw new Fault("FenceUnconfirmed", `could not switch the source on: the landed machine ${landedName} runs`, {
          evidence: { power },
        });
      await context.confirm();
      // Once more, whatever was done to it meanwhile.
      if (power === "stopped") await target.under(authorityOf(context)).bar?.(landedName);
      return { landedPower: power };
    },
    undo: "the landed machine is barred as it was; it is started by ending the way back there",
  };
}

function sourceStep({ services, limits }: Replication): Step {
  return {
    name: "source",
    title: "switch the source on",
    run: async (context) => {
      const { itemId } = context.parameters;
      // Before the order: whatever becomes of it, the source counts as one that may run.
      await context.write(async (db) => {
        const { reverse } = await readItem(db, itemId);
        const sourceOrderedAt = toTimestamp(services.clock.nowMs());
        if (reverse !== undefined) await patchItem(db, itemId, { reverse: { ...reverse, sourceOrderedAt } });
      });
      await giveOrder(services, context, orderTo(context, limits, "unfence"));
      return { sourceStartedAt: toTimestamp(services.clock.nowMs()) };
    },
    undo: async (context) => {
      const { draft: _draft, ...wish } = orderTo(context, limits, "unfence");
      const given = await settleOrder(services, context, wish);
      if (given === "never given" || isWithdrawn(given)) return;
      await giveOrder(services, context, { ...orderTo(context, limits, "fence"), isRepeated: true });
      await context.log("the source is off again");
    },
  };
}

function orderTo({ parameters }: Context, { shortOrderSeconds, pollMs }: Replication["limits"], kind: "fence" | "unfence"): OrderWish {
  const { applianceId } = parameters;
  const draft = { kind, machineId: parseMachineId(parameters.machineId) } as const;
  return { applianceId, draft, label: kind, waitSecondsMax: shortOrderSeconds, pollMs };
}

function landedStep({ target, services, limits }: Replication): Step {
  return {
    name: "landed",
    title: "see that the source is off, and start the landed machine again",
    run: async (context) => {
      const { landedName, itemId } = context.parameters;
      const { reverse } = await readItem(services.database.db, itemId);
      if (reverse?.sourceOrderedAt !== undefined) await giveOrder(services, context, orderTo(context, limits, "fence"));
      const commands = target.under(authorityOf(context));
      await context.confirm();
      await commands.allow?.(landedName);
      await commands.start(landedName);
      return { landedStartedAt: toTimestamp(services.clock.nowMs()) };
    },
    undo: async (context) => {
      const { landedName } = context.parameters;
      const commands = target.under(authorityOf(context));
      await context.confirm();
      await commands.stop(landedName);
      await commands.bar?.(landedName);
    },
  };
}
