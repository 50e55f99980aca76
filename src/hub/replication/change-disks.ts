// Jobs AddDisks and RemoveDisks: another choice of disks for a machine that is replicated, proved by a recovery point of just these.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { diskIdShape } from "../../contract/shapes.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, type JobKind, type StepContext } from "../jobs/job.ts";
import { giveOrder, type OrderDraft, type OrderWish } from "./give-order.ts";
import { faultsOf, patchItem, readItem } from "./item.ts";
import { vaultOf } from "./names.ts";
import { waitForReport } from "./point-report.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  machineId: z.string(),
  /** What is left out from now on, and what was before. */
  excludedDiskIds: z.array(diskIdShape),
  excludedBefore: z.array(diskIdShape),
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly pointId?: string;
  readonly replicatedDisks?: readonly string[];
}
type Context = StepContext<Parameters, State>;

export function defineAddDisks(world: Replication): JobKind {
  return defineChangeDisks(world, { kind: "AddDisks", title: "add disks" });
}

export function defineRemoveDisks(world: Replication): JobKind {
  return defineChangeDisks(world, { kind: "RemoveDisks", title: "remove disks" });
}

function defineChangeDisks(world: Replication, named: { readonly kind: string; readonly title: string }): JobKind {
  const { services, limits } = world;
  const orderTo = ({ parameters }: Context, draft: OrderDraft, label: string, waitSecondsMax: number): OrderWish => ({
    applianceId: parameters.applianceId,
    draft,
    label,
    waitSecondsMax,
    pollMs: limits.pollMs,
  });
  return defineJob<Parameters, State>({
    ...named,
    parameters: parametersShape,
    steps: [
      {
        name: "choose",
        title: "tell the agent which disks to replicate",
        run: async (context) => {
          const { machineId: id, excludedDiskIds } = context.parameters;
          const draft: OrderDraft = { kind: "setDisks", machineId: parseMachineId(id), excludedDiskIds };
          await giveOrder(services, context, orderTo(context, draft, "setDisks", limits.shortOrderSeconds));
          return {};
        },
        undo: async (context) => {
          const { machineId: id, excludedBefore } = context.parameters;
          const draft: OrderDraft = { kind: "setDisks", machineId: parseMachineId(id), excludedDiskIds: excludedBefore };
          const wish = orderTo(context, draft, "setDisksBack", limits.shortOrderSeconds);
          await giveOrder(services, context, { ...wish, isRepeated: true });
        },
      },
      {
        name: "point",
        title: "make a recovery point of these disks",
        weight: 8,
        run: async (context) => await provePoint(world, context, orderTo),
        undo: "the point that was made is an ordinary recovery point",
      },
    ],
    settle: async (db, { parameters: { itemId, excludedDiskIds }, outcome }) => {
      await patchItem(db, itemId, {
        busyWith: undefined,
        faults: faultsOf(outcome),
        ...(outcome.kind === "succeeded" ? { excludedDiskIds } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

/** An agent that does not know the choice would go on with all disks: the point shows it. */
async function provePoint(
  world: Replication,
  context: Context,
  orderTo: (context: Context, draft: OrderDraft, label: string, waitSecondsMax: number) => OrderWish,
): Promise<State> {
  const { services, limits } = world;
  const { itemId, excludedDiskIds } = context.parameters;
  const machineId = parseMachineId(context.parameters.machineId);
  const wish = orderTo(context, { kind: "point", machineId }, "point", limits.longOrderSeconds);
  const { pointId } = await giveOrder(services, context, wish);
  if (pointId === undefined) throw new Fault("Internal", "the appliance answered the order point without a point");
  const report = await waitForReport(world, context, { vaultKey: vaultOf(parseResourceId(itemId)).key, pointId: parsePointId(pointId) });
  const item = await readItem(services.database.db, itemId);
  const replicatedDisks = report.disks.map(({ diskId }) => diskId);
  requireDisks(replicatedDisks, excludedDiskIds, item.machineName);
  return { pointId, replicatedDisks };
}

/** Throws ProtocolVersionUnsupported when a point holds what was to be left out. */
function requireDisks(replicated: readonly string[], excludedDiskIds: readonly string[], machineName: string): void {
  const unwanted = replicated.filter((diskId) => excludedDiskIds.includes(diskId));
  if (unwanted.length === 0) return;
  throw new Fault(
    "ProtocolVersionUnsupported",
    `the agent of ${machineName} replicates disks that were left out: it is too old to choose`,
    {
      evidence: { unwanted },
      action: "update the agent (updateMobilityService), then call again",
    },
  );
}

/** Names of the disks that an addition or removal means, as the new list of what is left out. */
export function changedExclusion(
  change: { readonly kind: "AddDisks" | "RemoveDisks"; readonly diskIds: readonly string[] },
  item: { readonly machineName: string; readonly diskIds: readonly string[]; readonly excludedDiskIds: readonly string[] },
): readonly string[] {
  const { diskIds, kind } = change;
  const unknown = diskIds.filter((id) => !item.diskIds.includes(id));
  const without = diskIds.filter((id) => item.excludedDiskIds.includes(id) !== (kind === "AddDisks"));
  if (diskIds.length === 0 || unknown.length > 0 || without.length > 0)
    throw new Fault(
      "InputInvalid",
      `could not ${kind === "AddDisks" ? "add" : "remove"} disks of ${item.machineName}: ${
        diskIds.length === 0 ? "none was named" : unknown.length > 0 ? "it has none of these ids" : "they are as wanted already"
      }`,
      {
        evidence: { unknown, asWanted: without, disks: [...item.diskIds], excluded: [...item.excludedDiskIds] },
        action: "choose among the item's protectedDisks",
      },
    );
  return kind === "AddDisks"
    ? item.excludedDiskIds.filter((id) => !diskIds.includes(id))
    : [...item.excludedDiskIds, ...diskIds.filter((id) => !item.excludedDiskIds.includes(id))];
}
