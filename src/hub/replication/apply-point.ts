// Job ApplyRecoveryPoint: before the commit, the migrated machine is replaced by one from another recovery point.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parsePointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type StepContext } from "../jobs/job.ts";
import { openPointOf } from "./choose-point.ts";
import { faultsOf, patchItem, readItem } from "./item.ts";
import { authorityOf, landedShape, removeLandedRow, saveLanded, type Landed } from "./landed.ts";
import {
  fillLanded,
  hydrationEvidence,
  launchFromPoint,
  probeLanded,
  probeShape,
  removeLaunched,
  type LaunchState,
} from "./launch-steps.ts";
import { findUnlockKeys, forgetUnlockKeys, jobKeysOwner, type JobLaunch } from "./launch-settings.ts";
import { landedId, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  landedName: z.string(),
  pointId: pointIdShape,
  probe: probeShape.optional(),
});
type Parameters = z.infer<typeof parametersShape>;

interface State extends LaunchState {
  /** The machine that is replaced, for the way back. */
  readonly previous?: Landed;
  readonly pointTime?: string;
  readonly filledAt?: string;
  readonly restored?: string;
}
type Context = StepContext<Parameters, State>;

/** The source stays switched off throughout: this begins after a fence and ends before the commit. */
export function defineApplyPoint(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: "ApplyRecoveryPoint",
    title: "change the recovery point",
    parameters: parametersShape,
    steps: [
      {
        name: "prepare",
        title: "check the recovery point",
        run: async (context) => await prepare(world, context),
        undo: "the checks only read",
      },
      {
        name: "remove",
        title: "remove the machine of the earlier point",
        run: async (context) => {
          const { landedName, itemId } = context.parameters;
          await context.confirm();
          await world.landings.remove(authorityOf(context), landedName);
          await context.write(async (db) => await removeLandedRow(db, rowId(itemId, landedName)));
          return {};
        },
        undo: async (context) => await restore(world, context),
      },
      {
        name: "launch",
        title: "boot the machine from the point",
        weight: 2,
        run: async (context) => {
          const { itemId, landedName, pointId } = context.parameters;
          const item = await readItem(world.services.database.db, itemId);
          const previous = stored(context.state, "previous");
          const { network } = previous.launch;
          const wish = { itemId, item, purpose: "migrated", name: landedName, pointId: parsePointId(pointId), network } as const;
          return hydrationEvidence(world, await launchFromPoint(world, context, { ...wish, launch: asBefore(previous) }));
        },
        undo: async (context) => await removeLaunched(world, context, context.parameters.itemId),
      },
      {
        name: "probe",
        title: "probe the machine",
        weight: 2,
        run: async (context) => await probeLanded(world, context, context.parameters.probe),
        undo: "a probe leaves nothing",
      },
      {
        name: "fill",
        title: "copy what still depends on the recovery point",
        weight: 6,
        run: async (context) => await fillLanded(world, context, context.parameters.landedName),
        undo: "what was copied goes with the machine",
      },
    ],
    settle: async (db, { jobId, parameters: { itemId, landedName, pointId }, outcome }) => {
      await forgetUnlockKeys(db, jobKeysOwner(itemId, jobId));
      const isDone = outcome.kind === "succeeded";
      const isKnown = isDone || outcome.undoFaults.length === 0;
      const endedAt = toTimestamp(world.services.clock.nowMs());
      const commitBy = (await readItem(db, itemId)).failover?.commitBy;
      await patchItem(db, itemId, {
        protectionState: isKnown ? "UnplannedFailoverCommitPending" : "ChangeRecoveryPointFailed",
        faults: faultsOf(outcome),
        ...(isDone ? { failover: { ...(commitBy === undefined ? {} : { commitBy }), landedName, pointId, endedAt } } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

/** What the failover's call may have said alone. */
function asBefore({ launch: { hasSerialConsole, nics } }: Landed): JobLaunch {
  const nicAddressing = nics.flatMap(({ guestName, addressing }) => (addressing === undefined ? [] : [{ nicId: guestName, addressing }]));
  return { nicAddressing, ...(hasSerialConsole === undefined ? {} : { hasSerialConsole }) };
}

async function prepare(world: Replication, { parameters, state, jobId }: Context): Promise<State> {
  const { itemId, landedName, pointId } = parameters;
  const { database, resources } = world.services;
  const item = await readItem(database.db, itemId);
  const point = await openPointOf(world, { itemId, item, pointId });
  const row = await resources.find(rowId(itemId, landedName));
  const previous = state.previous ?? (row === undefined ? undefined : landedShape.parse(row.properties));
  if (previous === undefined)
    throw new Fault("NotFound", `could not change the recovery point of ${item.machineName}: the machine ${landedName} is gone`, {
      evidence: { landedName },
      action: "cancel the failover and migrate anew",
    });
  // Before the earlier machine is removed: without keys neither the new one nor the way back could be made.
  const unlockKeys = await findUnlockKeys(world.services.secrets, { itemId, jobId, ownCount: item.settings.unlockKeyCount });
  if ((previous.launch.unlockKeyCount ?? 0) > 0 && unlockKeys.length === 0)
    throw new Fault("InputInvalid", `could not change the recovery point of ${item.machineName}: its encrypted disks need keys`, {
      evidence: { landedName },
      action: "give unlockKeys with the call: those of the migration were kept no longer than it took",
    });
  // The machine keeps its identity for ARM clients.
  return { previous, vmId: previous.vmId, pointId, pointTime: toTimestamp(point.timeMs) };
}

/** Brings the machine of the earlier point back as that point has it: what it wrote since it landed was given up with it. */
async function restore(world: Replication, context: Context): Promise<void> {
  const { previous } = context.state;
  if (previous === undefined) return;
  const { itemId, landedName } = context.parameters;
  const id = rowId(itemId, landedName);
  await context.write(async (db) => await saveLanded(db, id, previous, "Creating"));
  await context.confirm();
  const { jobId, signal } = context;
  const { settings } = await readItem(world.services.database.db, itemId);
  const unlockKeys = await findUnlockKeys(world.services.secrets, { itemId, jobId, ownCount: settings.unlockKeyCount });
  await world.landings.launch(authorityOf(context), previous, { unlockKeys, signal });
  await context.write(async (db) => await saveLanded(db, id, previous, "Succeeded"));
  await fillLanded(world, context, landedName);
  await context.log("the machine of the earlier recovery point runs again");
  await context.save({ restored: previous.pointId });
}

function rowId(itemId: string, landedName: string): ReturnType<typeof landedId> {
  return landedId(vaultOf(parseResourceId(itemId)), landedName);
}
