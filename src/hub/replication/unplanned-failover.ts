// Job UnplannedFailover, the migration: a journaled cut-over in which source and target never run at once and a failure rolls back.

import { toTimestamp } from "../../base/clock.ts";
import { equalityReportType } from "../../contract/equality-report.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind } from "../jobs/job.ts";
import { buildEqualityReport, type ReportFacts } from "./equality-report.ts";
import { turnOnAutostart } from "./autostart.ts";
import { giveOrder, isWithdrawn, leaveOrder, settleOrder, type OrderDraft, type OrderWish } from "./give-order.ts";
import { openPointOf } from "./choose-point.ts";
import { beginHold, heldSeconds } from "./hold-time.ts";
import { faultsOf, patchItem, readItem } from "./item.ts";
import {
  failoverParametersShape,
  type FailoverContext,
  type FailoverParameters,
  type FailoverState,
  type FailoverStep,
} from "./failover-shape.ts";
import { landingSteps } from "./failover-landing.ts";
import { forgetUnlockKeys, jobKeysOwner } from "./launch-settings.ts";
import { openPoint } from "./launch-steps.ts";
import { landedId, toLandedName, vaultOf } from "./names.ts";
import { chooseUpgradeDisk } from "./os-upgrade.ts";
import { predictFor } from "./predict-downtime.ts";
import { requireSilentSource } from "./silent-source.ts";
import { waitForReport } from "./point-report.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

type Context = FailoverContext;
type Step = FailoverStep;

export function defineUnplannedFailover(world: Replication): JobKind {
  return defineJob<FailoverParameters, FailoverState>({
    kind: "UnplannedFailover",
    title: "migrate",
    parameters: failoverParametersShape,
    steps: (parameters) => [
      prepareStep(world),
      ofFinalSync(verifyStep(world)),
      ofFinalSync(roundsStep(world)),
      ofFinalSync(quiesceStep(world)),
      ofFinalSync(compareStep(world)),
      fenceStep(world),
      ...landingSteps(world, parameters),
    ],
    settle: async (db, { jobId, parameters, state, outcome }) => {
      await forgetUnlockKeys(db, jobKeysOwner(parameters.itemId, jobId));
      const { itemId } = parameters;
      const isDone = outcome.kind === "succeeded";
      const endedMs = world.services.clock.nowMs();
      const { commit } = parameters;
      const isCommitted = commit.mode !== "byHand";
      if (isDone && isCommitted) await turnOnAutostart(db, landedId(vaultOf(parseResourceId(itemId)), parameters.landedName).text);
      // With an undo that failed nobody knows which side runs; a person looks, and cancels the failover once more.
      const isRolledBack = !isDone && outcome.undoFaults.length === 0;
      await patchItem(db, itemId, {
        protectionState: isDone
          ? isCommitted
            ? "CommitFailoverCompleted"
            : "UnplannedFailoverCommitPending"
          : isRolledBack
            ? "Protected"
            : "UnplannedFailoverFailed",
        faults: faultsOf(outcome),
        failover:
          isDone || !isRolledBack
            ? {
                landedName: parameters.landedName,
                pointId: parsePointId(state.pointId ?? emptyPoint),
                endedAt: toTimestamp(endedMs),
                ...(isDone && commit.mode === "byHand" && commit.minutesMax !== undefined
                  ? { commitBy: toTimestamp(endedMs + commit.minutesMax * 60_000) }
                  : {}),
              }
            : undefined,
        ...(isDone ? { lastSuccessfulFailoverTime: toTimestamp(endedMs) } : {}),
        ...(state.testRemovedAt === undefined ? {} : { testFailoverState: "None" as const, test: undefined }),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

/** Stands for "no point yet" where a failover broke off before one was made. */
const emptyPoint = "00000000-0000-0000-0000-000000000000";

function orderTo(world: Replication, context: Context, draft: OrderDraft, label: string, waitSecondsMax: number): OrderWish {
  return { applianceId: context.parameters.applianceId, draft, label, waitSecondsMax, pollMs: world.limits.pollMs };
}

/** A step of the final synchronisation: nothing to do where the machine lands from a point that is there already. */
function ofFinalSync(step: Step): Step {
  const { run, undo } = step;
  return {
    ...step,
    run: async (context) => (context.parameters.pointId === undefined ? await run(context) : {}),
    undo: typeof undo === "string" ? undo : async (context) => (context.parameters.pointId === undefined ? await undo(context) : undefined),
  };
}

function prepareStep(world: Replication): Step {
  return {
    name: "prepare",
    title: "check that source, replica and target are ready",
    run: async (context) => {
      const { itemId, landedName, pointId: given, sourceSiteOperations } = context.parameters;
      const item = await readItem(world.services.database.db, itemId);
      if (given === undefined) await waitForDelta(world, context, item.machineName);
      const chosen = given === undefined ? undefined : await openPointOf(world, { itemId, item, pointId: given });
      const machineId = parseMachineId(context.parameters.machineId);
      const vaultKey = vaultOf(parseResourceId(itemId)).key;
      const prediction =
        context.state.prediction ?? (await predictFor(world.services, { vaultKey, itemId, machineId, hasFinalSync: given === undefined }));
      const { osUpgradeVersion: to } = context.parameters;
      const upgrade = to === undefined ? undefined : await chooseUpgradeDisk(world.upgradeFolder, to, context.signal);
      const silence = sourceSiteOperations === "Required" ? undefined : await requireSilentSource(world, { itemId, item });
      if ((await world.target.list()).includes(landedName))
        throw new Fault("StateConflict", `could not migrate ${item.machineName}: the target has a machine named ${landedName}`, {
          evidence: { landedName },
          action: "remove that machine, or give the item another target name",
          retry: "never",
        });
      return {
        prediction,
        ...(chosen === undefined ? {} : { pointId: chosen.pointId, pointTime: toTimestamp(chosen.timeMs) }),
        ...(silence === undefined ? {} : { sourceIsSilent: silence }),
        ...(upgrade === undefined ? {} : { upgrade }),
      };
    },
    undo: "the checks only read",
  };
}

/**
 * A source that was just switched on again reads its disks once more before its agent replicates changes. It is waited for as long as that goes
 * on; one that stands still is waited for as long as for a short order.
 */
async function waitForDelta(world: Replication, context: Context, machineName: string): Promise<void> {
  const { clock, appliances } = world.services;
  const vault = vaultOf(parseResourceId(context.parameters.itemId));
  const machineId = parseMachineId(context.parameters.machineId);
  const beganMs = clock.monotonicMs();
  let movedMs = beganMs;
  let readBefore = -1;
  for (;;) {
    const machine = await appliances.machine(vault.key, machineId);
    const { phase, readBytes = 0, disks = [] } = machine?.report.state ?? {};
    if (phase === "delta") return;
    const nowMs = clock.monotonicMs();
    if (readBytes !== readBefore) [movedMs, readBefore] = [nowMs, readBytes];
    if (nowMs - movedMs > world.limits.shortOrderSeconds * 1000 || nowMs - beganMs > world.limits.longOrderSeconds * 1000)
      throw new Fault("ReplicationNotReady", `could not migrate ${machineName}: its agent does not replicate changes`, {
        evidence: { phase: phase ?? "unknown", lastSeenAt: machine?.lastSeenAt ?? "never", readBytes },
      });
    const sum = (of: (disk: (typeof disks)[number]) => number): number => disks.reduce((total, disk) => total + of(disk), 0);
    const percent = Math.floor(
      (100 * sum((disk) => disk.copiedBytes)) /
        Math.max(
          1,
          sum((disk) => disk.sizeBytes),
        ),
    );
    const how = phase === "initial" ? `reads its disks, ${percent} %` : `is ${phase ?? "not heard of"}`;
    await context.progress(0, `waits until the agent replicates changes: it ${how}`);
    await clock.sleep(world.limits.pollMs, context.signal);
  }
}

function verifyStep(world: Replication): Step {
  return {
    name: "verify",
    title: "compare the whole source with the replica",
    weight: 4,
    run: async (context) => {
      const machineId = parseMachineId(context.parameters.machineId);
      const wish = orderTo(world, context, { kind: "verify", machineId }, "verify", world.limits.longOrderSeconds);
      const result = await giveOrder(world.services, context, wish);
      const repairedBlocks = result.repairedBlocks ?? [];
      return { repairedBlockCount: result.repairedBlockCount ?? 0, ...(repairedBlocks.length === 0 ? {} : { repairedBlocks }) };
    },
    undo: "it only read the source, and what it repaired in the replica is right",
  };
}

function roundsStep(world: Replication): Step {
  return {
    name: "rounds",
    title: "send changes until few are left",
    weight: 2,
    run: async (context) => {
      const machineId = parseMachineId(context.parameters.machineId);
      const vault = vaultOf(parseResourceId(context.parameters.itemId));
      const rounds: { pointId: string; sentBytes: number }[] = [];
      for (let round = 1; round <= world.limits.roundsMax; round++) {
        const wish = orderTo(world, context, { kind: "point", machineId }, `round-${round}`, world.limits.longOrderSeconds);
        const { pointId } = await giveOrder(world.services, context, wish);
        if (pointId === undefined) throw new Fault("Internal", "the appliance answered the order point without a point");
        const sentBytes = (await waitForReport(world, context, { vaultKey: vault.key, pointId: parsePointId(pointId) })).sentBytes;
        rounds.push({ pointId, sentBytes });
        await context.save({ rounds: [...rounds] });
        if (sentBytes <= world.limits.roundBytesSmall) break;
      }
      return { rounds };
    },
    undo: "the points that were made are ordinary recovery points",
  };
}

function quiesceStep(world: Replication): Step {
  const { services, limits } = world;
  return {
    name: "quiesce",
    title: "freeze the source and make the final point",
    run: async (context) => {
      const machineId = parseMachineId(context.parameters.machineId);
      // Kept from the first try: the hold counts from the first moment at which the source may have been frozen.
      if (context.state.quiesceOrderedAt === undefined) await context.save(await beginHold(services.database.db));
      const draft: OrderDraft = { kind: "quiesce", machineId, holdSecondsMax: limits.holdSeconds };
      const result = await giveOrder(services, context, orderTo(world, context, draft, "quiesce", limits.longOrderSeconds));
      if (result.pointId === undefined) throw new Fault("Internal", "the appliance answered the order quiesce without a point");
      return {
        pointId: result.pointId,
        quiescedAt: toTimestamp(services.clock.nowMs()),
        sourceRoots: result.sourceRoots ?? [],
        ...(result.frozenMs === undefined ? {} : { frozenMs: result.frozenMs }),
      };
    },
    undo: async (context) => {
      // A source that was switched off is not frozen any more; the fence's undo, which runs first, has switched it on again.
      if (context.state.fencedAt !== undefined) return;
      const machineId = parseMachineId(context.parameters.machineId);
      const wish = orderTo(world, context, { kind: "release", machineId }, "release", limits.shortOrderSeconds);
      await giveOrder(services, context, { ...wish, isRepeated: true });
      await context.log("the source was thawed");
    },
  };
}

function compareStep(world: Replication): Step {
  return {
    name: "compare",
    title: "prove that source and replica are equal",
    run: async (context) => {
      const { itemId } = context.parameters;
      const pointId = parsePointId(stored(context.state, "pointId"));
      const point = await openPoint(world, vaultOf(parseResourceId(itemId)).text, pointId);
      const sourceRoots = stored(context.state, "sourceRoots");
      const report = buildEqualityReport(await reportFactsOf(world, context), point, sourceRoots);
      await context.save({ equalityReport: await world.services.signer.sign(equalityReportType, report) });
      if (report.isEqual) return { equalRoots: [...sourceRoots] };
      throw new Fault("RootsDiffer", "the source's disks and the final recovery point are not equal", {
        evidence: {
          pointId,
          disks: report.disks.map(
            ({ diskId, sourceRoot, replicaRoot }) => `${diskId}: source ${sourceRoot ?? "not given"}, replica ${replicaRoot}`,
          ),
        },
      });
    },
    undo: "comparing only reads",
  };
}

async function reportFactsOf({ services }: Replication, { jobId, parameters, state }: Context): Promise<ReportFacts> {
  const { itemId } = parameters;
  const { frozenMs, repairedBlockCount = 0, repairedBlocks = [], rounds = [] } = state;
  return {
    jobId,
    itemId,
    vaultId: vaultOf(parseResourceId(itemId)).text,
    machineName: (await readItem(services.database.db, itemId)).machineName,
    machineId: parseMachineId(parameters.machineId),
    quiesceOrderedAt: stored(state, "quiesceOrderedAt"),
    quiescedAt: stored(state, "quiescedAt"),
    ...(frozenMs === undefined ? {} : { frozenMs }),
    verification: { repairedBlockCount, repairedBlocks },
    rounds: rounds.map(({ pointId, sentBytes }) => ({ pointId: parsePointId(pointId), sentBytes })),
  };
}

function fenceStep(world: Replication): Step {
  const { services, limits } = world;
  return {
    name: "fence",
    title: "switch the source off",
    run: async (context) => {
      const { itemId, pointId, sourceSiteOperations } = context.parameters;
      const machineId = parseMachineId(context.parameters.machineId);
      const wish = orderTo(world, context, { kind: "fence", machineId }, "fence", limits.shortOrderSeconds);
      if (sourceSiteOperations === "NotRequired") {
        // Whoever comes back finds this order before anything else: the source is switched off as soon as its site is heard of.
        await leaveOrder(services, context, wish);
        const item = await readItem(services.database.db, itemId);
        const sourceIsSilent = await requireSilentSource(world, { itemId, item });
        return { sourceIsSilent, fencedAt: toTimestamp(services.clock.nowMs()) };
      }
      if (pointId === undefined) await requireHold(world, context);
      if (context.parameters.fence === "byHand") {
        const fencedBy = await fenceByHand(world, context);
        if (pointId === undefined) await requireHold(world, context);
        return { fencedBy, fencedAt: toTimestamp(services.clock.nowMs()) };
      }
      await giveOrder(services, context, wish);
      if (pointId === undefined) await requireHold(world, context);
      return { fencedAt: toTimestamp(services.clock.nowMs()) };
    },
    undo: async (context) => {
      const { machineId: id, applianceId, landedName } = context.parameters;
      const machineId = parseMachineId(id);
      if ((await world.target.list()).includes(landedName))
        throw new Fault("LeftoverFound", "could not switch the source on again: its target still exists", {
          evidence: { landedName },
          action: "remove the landed machine by hand, then cancel the failover",
        });
      const wish = { applianceId, label: "fence", waitSecondsMax: limits.shortOrderSeconds, pollMs: limits.pollMs };
      const given = await settleOrder(services, context, wish);
      if (context.parameters.fence === "byHand" && context.state.fencedBy !== undefined) {
        await context.log("the source was switched off by hand: nobody but a person can switch it on again");
        await context.save({ rolledBack: "the source is off: switch it on by hand" });
        return;
      }
      // One that was off before is left off.
      if (given === "never given" || isWithdrawn(given) || context.state.sourceIsSilent?.kind === "off") return;
      const unfence = orderTo(world, context, { kind: "unfence", machineId }, "unfence", limits.shortOrderSeconds);
      await giveOrder(services, context, { ...unfence, isRepeated: true });
      await context.log("the source was switched on again");
      const wasOff = given.outcome === "done" ? { fencedAt: toTimestamp(services.clock.nowMs()) } : {};
      await context.save({ rolledBack: "the source runs", ...wasOff });
    },
  };
}

/** Asks a person, who must name the machine, and then waits whether its agent is heard of: who is, was not switched off. */
async function fenceByHand({ services, limits }: Replication, context: Context): Promise<string> {
  const { itemId, machineId } = context.parameters;
  const { machineName } = await readItem(services.database.db, itemId);
  const { by, comments } = await context.hold({
    name: "fence",
    title: `switch ${machineName} off`,
    instructions: `Switch the source ${machineName} off by its hypervisor or its power button, see that it is off, and resume this job with the comment "${machineName} is off". The filesystems are frozen meanwhile, for ${limits.holdSeconds} s at most; later the migration is taken back.`,
  });
  if (comments.trim() !== `${machineName} is off`)
    throw new Fault("FenceUnconfirmed", `could not take ${machineName} to be off: the comment does not say so`, {
      evidence: { expected: `${machineName} is off` },
      action: `begin the migration again, and resume it with exactly that comment once the machine is off`,
    });
  const vaultKey = vaultOf(parseResourceId(itemId)).key;
  const seen = async (): Promise<string | undefined> =>
    (await services.appliances.machine(vaultKey, parseMachineId(machineId)))?.lastSeenAt;
  const seenBefore = await seen();
  const endsAtMs = services.clock.monotonicMs() + limits.handFenceSeconds * 1000;
  while (services.clock.monotonicMs() < endsAtMs) {
    await context.progress(50, "listens whether the source's agent is heard of");
    await services.clock.sleep(Math.min(limits.pollMs, limits.handFenceSeconds * 1000), context.signal);
    if ((await seen()) !== seenBefore)
      throw new Fault("FenceUnconfirmed", `could not take ${machineName} to be off: its agent was heard of after ${by} said so`, {
        evidence: { saidBy: by },
      });
  }
  return by;
}

/** The final point is only final while the source is held: after the hold the agent may have thawed, and writes would be lost. */
async function requireHold({ services, limits }: Replication, { state }: Context): Promise<void> {
  const quiesceOrderedAt = stored(state, "quiesceOrderedAt");
  const { quiesceOrderedUp } = state;
  const begin = quiesceOrderedUp === undefined ? { quiesceOrderedAt } : { quiesceOrderedAt, quiesceOrderedUp };
  const seconds = await heldSeconds(services.database.db, begin);
  if (seconds < limits.holdSeconds && seconds >= 0) return;
  throw new Fault("QuiesceVoid", "the source was frozen longer ago than it is held", {
    evidence: { heldSeconds: seconds, holdSecondsMax: limits.holdSeconds },
  });
}

export function defaultLandedName(item: { readonly machineName: string; readonly target: { readonly name?: string | undefined } }): string {
  return toLandedName(item.target.name ?? item.machineName, "");
}
