// Jobs TestFailover and TestFailoverCleanup: a machine from a recovery point in a network of its own, probed; then no trace of it.

import { z } from "zod";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { parsePointId } from "../../contract/ids.ts";
import { upgradeTargets } from "../../contract/os-upgrade.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type JobStep, type StepContext } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { newestPoint, openPointOf } from "./choose-point.ts";
import { faultsOf, patchItem, readItem } from "./item.ts";
import { authorityOf, removeLandedRow, toNetwork } from "./landed.ts";
import { launchActionsShape, runActions, type ActionsState } from "./launch-actions.ts";
import { hydrationEvidence, launchFromPoint, probeLanded, probeShape, removeLaunched, type LaunchState } from "./launch-steps.ts";
import { forgetUnlockKeys, jobKeysOwner, jobLaunchOf, jobLaunchShape } from "./launch-settings.ts";
import { landedId, toLandedName, vaultOf } from "./names.ts";
import { chooseUpgradeDisk, upgradeStep, type UpgradeState } from "./os-upgrade.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const testParametersShape = z.object({
  itemId: z.string(),
  /** The latest unless given. */
  pointId: pointIdShape.optional(),
  /** Isolated unless given. */
  networkId: z.string().optional(),
  probe: probeShape.optional(),
  /** What it is asked after that, in order. */
  actions: launchActionsShape.default([]),
  osUpgradeVersion: z.enum(upgradeTargets).optional(),
  ...jobLaunchShape,
});
type TestParameters = z.infer<typeof testParametersShape>;

interface TestState extends LaunchState, ActionsState, UpgradeState {
  /** From the order to the probe's answer. */
  readonly orderToProbeSeconds?: number;
}

const testSuffix = "-test";

export function defineTestFailover(world: Replication): JobKind {
  return defineJob<TestParameters, TestState>({
    kind: "TestFailover",
    title: "test the migration",
    parameters: testParametersShape,
    steps: [
      {
        name: "choosePoint",
        title: "choose the recovery point",
        run: async (context) => await choosePoint(world, context),
        undo: "choosing only reads",
      },
      {
        name: "launch",
        title: "hydrate a clone and boot it",
        weight: 4,
        run: async (context) => {
          const { itemId, networkId } = context.parameters;
          const item = await readItem(world.services.database.db, itemId);
          const hydration = await launchFromPoint(world, context, {
            itemId,
            item,
            purpose: "test",
            name: toLandedName(item.target.name ?? item.machineName, testSuffix),
            pointId: parsePointId(stored(context.state, "pointId")),
            network: toNetwork(networkId),
            launch: jobLaunchOf(context.parameters),
            upgrade: context.state.upgrade,
          });
          return hydrationEvidence(world, hydration);
        },
        undo: async (context) => await removeLaunched(world, context, context.parameters.itemId),
      },
      upgradeStep<TestParameters, TestState>(world),
      {
        name: "probe",
        title: "probe the test machine",
        weight: 4,
        run: async (context) => {
          const evidence = await probeLanded(world, context, context.parameters.probe);
          const job = await readJob(world.services.database.db, context.jobId);
          const orderToProbeSeconds = (toMs(evidence.probedAt) - toMs(job?.createdAt)) / 1000;
          return { ...evidence, orderToProbeSeconds };
        },
        undo: "a probe leaves nothing",
      },
      actionsStep(world),
    ],
    settle: async (db, { jobId, parameters: { itemId }, state, outcome }) => {
      await forgetUnlockKeys(db, jobKeysOwner(itemId, jobId));
      const isDone = outcome.kind === "succeeded";
      await patchItem(db, itemId, {
        testFailoverState: isDone ? "TestMigrationSucceeded" : "TestMigrationFailed",
        faults: faultsOf(outcome),
        test: isDone
          ? {
              landedName: stored(state, "landedName"),
              pointId: parsePointId(stored(state, "pointId")),
              endedAt: toTimestamp(world.services.clock.nowMs()),
            }
          : undefined,
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

function actionsStep(world: Replication): JobStep<TestParameters, TestState> {
  return {
    name: "actions",
    title: "ask the test machine what the real one will be asked",
    weight: 2,
    run: async (context) => {
      const machine = stored(context.state, "landedName");
      await runActions(world, context, { machine, actions: context.parameters.actions });
      return {};
    },
    undo: "asking leaves nothing",
  };
}

async function choosePoint(world: Replication, context: StepContext<TestParameters, TestState>): Promise<TestState> {
  const { itemId } = context.parameters;
  const item = await readItem(world.services.database.db, itemId);
  const pointId = context.parameters.pointId ?? (await newestPoint(world.services, { itemId, item, type: "LatestProcessed" }));
  await openPointOf(world, { itemId, item, pointId });
  const { osUpgradeVersion: to } = context.parameters;
  return { pointId, ...(to === undefined ? {} : { upgrade: await chooseUpgradeDisk(world.upgradeFolder, to, context.signal) }) };
}

const cleanupParametersShape = z.object({ itemId: z.string(), landedName: z.string(), comments: z.string() });

export function defineTestFailoverCleanup(world: Replication): JobKind {
  return defineJob<z.infer<typeof cleanupParametersShape>, { readonly removed?: string; readonly leftovers?: readonly string[] }>({
    kind: "TestFailoverCleanup",
    title: "clean up the test migration",
    parameters: cleanupParametersShape,
    steps: [
      {
        name: "remove",
        title: "end the test machine and prove that nothing is left",
        run: async (context) => {
          const { itemId, landedName, comments } = context.parameters;
          if (comments !== "") await context.log(`comment: ${comments}`);
          await context.confirm();
          await world.landings.remove(authorityOf(context), landedName);
          await context.write(async (db) => await removeLandedRow(db, landedId(vaultOf(parseResourceId(itemId)), landedName)));
          return { removed: landedName, leftovers: [] };
        },
        undo: "nobody wants a test machine back; the clean-up is called again",
      },
    ],
    settle: async (db, { parameters: { itemId }, outcome }) => {
      const isDone = outcome.kind === "succeeded";
      await patchItem(db, itemId, {
        testFailoverState: isDone ? "None" : "TestMigrationSucceeded",
        faults: faultsOf(outcome),
        ...(isDone ? { test: undefined, lastSuccessfulTestFailoverTime: toTimestamp(world.services.clock.nowMs()) } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

function toMs(timestamp: string | undefined): number {
  if (timestamp === undefined) throw new Error("assertion failed: the time is known");
  return fromTimestamp(timestamp);
}
