// Job Rehearsal: a recovery point is booted where it reaches nothing, asked, looked at, taken away, and marked as verified.

import { z } from "zod";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { asFault } from "../../contract/errors.ts";
import { parsePointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { saveJobFile } from "../db/job-files.ts";
import { markPointVerified } from "../db/points.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type JobStep, type StepContext } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { newestPoint, openPointOf } from "./choose-point.ts";
import { faultsOf, patchItem, readItem } from "./item.ts";
import { launchActionsShape, runActions, type ActionsState } from "./launch-actions.ts";
import { forgetUnlockKeys, jobKeysOwner, jobLaunchOf, jobLaunchShape } from "./launch-settings.ts";
import { hydrationEvidence, launchFromPoint, probeLanded, removeLaunched, type LaunchState } from "./launch-steps.ts";
import { toLandedName, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

export const rehearsalKind = "Rehearsal";

const parametersShape = z.object({
  itemId: z.string(),
  /** The latest processed one unless given. */
  pointId: pointIdShape.optional(),
  actions: launchActionsShape,
  /** The machine stays as a test migration, for a person to look at and to clean up. */
  isKept: z.boolean(),
  ...jobLaunchShape,
});
type Parameters = z.infer<typeof parametersShape>;

interface RehearsalState extends LaunchState, ActionsState {
  /** From the order to the last answer. */
  readonly orderToAnswerSeconds?: number;
  /** Names of files kept with the job. */
  readonly files?: readonly string[];
  /** Why its console could not be kept. */
  readonly consoleFault?: string;
  readonly removedAt?: string;
}
type Context = StepContext<Parameters, RehearsalState>;
type Step = JobStep<Parameters, RehearsalState>;

const suffix = "-rehearsal";

export function defineRehearsal(world: Replication): JobKind {
  return defineJob<Parameters, RehearsalState>({
    kind: rehearsalKind,
    title: "rehearse the migration",
    parameters: parametersShape,
    steps: [choosePointStep(world), launchStep(world), askStep(world), removeStep(world)],
    settle: async (db, { jobId, parameters: { itemId, isKept }, state, outcome }) => {
      await forgetUnlockKeys(db, jobKeysOwner(itemId, jobId));
      const isPassed = outcome.kind === "succeeded";
      const endedAt = toTimestamp(world.services.clock.nowMs());
      const pointId = state.pointId === undefined ? undefined : parsePointId(state.pointId);
      const answered = (state.actions ?? []).filter((action) => action.isPassed).map(({ name }) => name);
      // A processor that runs is no proof that the machine works, so without an answer the point is not called verified.
      if (isPassed && pointId !== undefined && answered.length > 0)
        await markPointVerified(db, vaultOf(parseResourceId(itemId)).key, pointId, { at: endedAt, jobId, passed: answered });
      await patchItem(db, itemId, {
        busyWith: undefined,
        faults: faultsOf(outcome),
        rehearsal: { jobId, endedAt, isPassed, ...(pointId === undefined ? {} : { pointId }) },
        ...(isPassed && isKept && pointId !== undefined
          ? { testFailoverState: "TestMigrationSucceeded" as const, test: { landedName: stored(state, "landedName"), pointId, endedAt } }
          : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

function choosePointStep(world: Replication): Step {
  return {
    name: "choosePoint",
    title: "choose the recovery point",
    run: async ({ parameters }) => {
      const { itemId } = parameters;
      const item = await readItem(world.services.database.db, itemId);
      const pointId = parameters.pointId ?? (await newestPoint(world.services, { itemId, item, type: "LatestProcessed" }));
      await openPointOf(world, { itemId, item, pointId });
      return { pointId };
    },
    undo: "choosing only reads",
  };
}

function launchStep(world: Replication): Step {
  return {
    name: "launch",
    title: "hydrate a clone and boot it where it reaches nothing",
    weight: 4,
    run: async (context) => {
      const { itemId } = context.parameters;
      const item = await readItem(world.services.database.db, itemId);
      const hydration = await launchFromPoint(world, context, {
        itemId,
        item,
        purpose: "test",
        name: toLandedName(item.target.name ?? item.machineName, suffix),
        pointId: parsePointId(stored(context.state, "pointId")),
        network: { kind: "isolated" },
        launch: jobLaunchOf(context.parameters),
      });
      return hydrationEvidence(world, hydration);
    },
    undo: async (context) => await removeLaunched(world, context, context.parameters.itemId),
  };
}

function askStep(world: Replication): Step {
  return {
    name: "ask",
    title: "ask the machine what the real one will be asked, and keep what its console shows",
    weight: 4,
    run: async (context) => {
      const machine = stored(context.state, "landedName");
      try {
        const evidence = await probeLanded(world, context, undefined);
        await runActions(world, context, { machine, actions: context.parameters.actions });
        if (context.parameters.actions.length === 0) await context.log("nothing was asked: only that its processor runs is known");
        const job = await readJob(world.services.database.db, context.jobId);
        const nowMs = world.services.clock.nowMs();
        return { ...evidence, orderToAnswerSeconds: (nowMs - fromTimestamp(job?.createdAt ?? "")) / 1000 };
      } finally {
        // Above all when it failed: the machine is taken away then.
        if (!context.signal.aborted) await keepConsole(world, context, machine);
      }
    },
    undo: "asking leaves nothing",
  };
}

async function keepConsole({ target }: Replication, context: Context, machine: string): Promise<void> {
  try {
    const { serialLog, screenshot } = await target.look(machine);
    const files = [
      { name: "serial.log", contentType: "text/plain" as const, content: Buffer.from(serialLog, "utf8") },
      ...(screenshot === undefined ? [] : [{ name: "screen.png", contentType: "image/png" as const, content: screenshot }]),
    ];
    await context.write(async (db) => {
      for (const file of files) await saveJobFile(db, context.jobId, file);
    });
    await context.save({ files: files.map(({ name }) => name) });
  } catch (error) {
    context.signal.throwIfAborted();
    // A console that cannot be read must not hide what the machine answered.
    await context.save({ consoleFault: asFault(error, "look at the machine's console").message });
  }
}

function removeStep(world: Replication): Step {
  return {
    name: "remove",
    title: "end the machine and prove that nothing is left",
    run: async (context) => {
      if (context.parameters.isKept) return {};
      await removeLaunched(world, context, context.parameters.itemId);
      return { removedAt: toTimestamp(world.services.clock.nowMs()) };
    },
    undo: "nobody wants a rehearsal back",
  };
}
