// Job UnplannedFailover, the migration: a journaled cut-over in which source and target never run at once and a failure rolls back.

import { z } from "zod";
import type { BootTime } from "../../base/boot-time.ts";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { equalityReportType, type EqualityReport } from "../../contract/equality-report.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { diskIdShape, digestShape, pointIdShape } from "../../contract/shapes.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type JobStep, type StepContext } from "../jobs/job.ts";
import { buildEqualityReport, type ReportFacts } from "./equality-report.ts";
import { giveOrder, isWithdrawn, leaveOrder, settleOrder, type OrderDraft, type OrderWish } from "./give-order.ts";
import { openPointOf } from "./choose-point.ts";
import { beginHold, heldSeconds } from "./hold-time.ts";
import { faultsOf, patchItem, readItem } from "./item.ts";
import { toNetwork } from "./landed.ts";
import {
  fillLanded,
  hydrationEvidence,
  launchFromPoint,
  openPoint,
  probeLanded,
  probeShape,
  removeLaunched,
  type LaunchState,
} from "./launch-steps.ts";
import { toLandedName, vaultOf } from "./names.ts";
import { requireSilentSource, type SourceSilence } from "./silent-source.ts";
import { waitForReport } from "./point-report.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({
  itemId: z.string(),
  applianceId: z.string(),
  machineId: z.string(),
  networkId: z.string(),
  landedName: z.string(),
  probe: probeShape.optional(),
  /** The machine lands from this point, and what was written since is given up; absent: a final point is made of the frozen source. */
  pointId: pointIdShape.optional(),
  /** NotRequired: the site is lost. The source is proved silent in place of being switched off, and is switched off should it come back. */
  sourceSiteOperations: z.enum(["Required", "NotRequired"]).default("Required"),
});
type Parameters = z.infer<typeof parametersShape>;

const diskRootsShape = z.array(z.object({ diskId: diskIdShape, root: digestShape }));
type DiskRoots = z.infer<typeof diskRootsShape>;

export interface FailoverState extends LaunchState {
  readonly repairedBlockCount?: number;
  readonly repairedBlocks?: EqualityReport["verification"]["repairedBlocks"];
  readonly rounds?: readonly { readonly pointId: string; readonly sentBytes: number }[];
  /** When the hub asked for the freeze: the source's downtime begins after it. */
  readonly quiesceOrderedAt?: string;
  readonly quiesceOrderedUp?: BootTime;
  /** Of a migration to an earlier point: the time of that point, after which everything is given up. */
  readonly pointTime?: string;
  /** Why the source was taken to be off where it could not be asked. */
  readonly sourceIsSilent?: SourceSilence;
  readonly quiescedAt?: string;
  readonly frozenMs?: number;
  readonly sourceRoots?: DiskRoots;
  readonly equalRoots?: DiskRoots;
  /** What was compared, equal or not, signed by the hub. */
  readonly equalityReport?: string;
  readonly fencedAt?: string;
  readonly downtimeSeconds?: number;
  readonly filledAt?: string;
  readonly rolledBack?: string;
}
type Context = StepContext<Parameters, FailoverState>;
type Step = JobStep<Parameters, FailoverState>;

export function defineUnplannedFailover(world: Replication): JobKind {
  return defineJob<Parameters, FailoverState>({
    kind: "UnplannedFailover",
    title: "migrate",
    parameters: parametersShape,
    steps: [
      prepareStep(world),
      ofFinalSync(verifyStep(world)),
      ofFinalSync(roundsStep(world)),
      ofFinalSync(quiesceStep(world)),
      ofFinalSync(compareStep(world)),
      fenceStep(world),
      launchStep(world),
      probeStep(world),
      fillStep(world),
    ],
    settle: async (db, { parameters, state, outcome }) => {
      const { itemId } = parameters;
      const isDone = outcome.kind === "succeeded";
      // With an undo that failed nobody knows which side runs; a person looks, and cancels the failover once more.
      const isRolledBack = !isDone && outcome.undoFaults.length === 0;
      await patchItem(db, itemId, {
        protectionState: isDone ? "UnplannedFailoverCommitPending" : isRolledBack ? "Protected" : "UnplannedFailoverFailed",
        faults: faultsOf(outcome),
        failover:
          isDone || !isRolledBack
            ? {
                landedName: parameters.landedName,
                pointId: parsePointId(state.pointId ?? emptyPoint),
                endedAt: toTimestamp(world.services.clock.nowMs()),
              }
            : undefined,
        ...(isDone ? { lastSuccessfulFailoverTime: toTimestamp(world.services.clock.nowMs()) } : {}),
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
      const silence = sourceSiteOperations === "Required" ? undefined : await requireSilentSource(world, { itemId, item });
      if ((await world.target.list()).includes(landedName))
        throw new Fault("StateConflict", `could not migrate ${item.machineName}: the target has a machine named ${landedName}`, {
          evidence: { landedName },
          action: "remove that machine, or give the item another target name",
          retry: "never",
        });
      return {
        ...(chosen === undefined ? {} : { pointId: chosen.pointId, pointTime: toTimestamp(chosen.timeMs) }),
        ...(silence === undefined ? {} : { sourceIsSilent: silence }),
      };
    },
    undo: "the checks only read",
  };
}

/** A source that was just switched on again needs a while until its agent replicates changes. */
async function waitForDelta(world: Replication, context: Context, machineName: string): Promise<void> {
  const { clock, appliances } = world.services;
  const vault = vaultOf(parseResourceId(context.parameters.itemId));
  const machineId = parseMachineId(context.parameters.machineId);
  const endsAtMs = clock.monotonicMs() + world.limits.shortOrderSeconds * 1000;
  for (;;) {
    const machine = await appliances.machine(vault.key, machineId);
    const phase = machine?.report.state.phase;
    if (phase === "delta") return;
    if (clock.monotonicMs() > endsAtMs)
      throw new Fault("ReplicationNotReady", `could not migrate ${machineName}: its agent does not replicate changes`, {
        evidence: { phase: phase ?? "unknown", lastSeenAt: machine?.lastSeenAt ?? "never" },
      });
    await context.progress(0, `waits until the agent replicates changes (now: ${phase ?? "unknown"})`);
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

function launchStep(world: Replication): Step {
  return {
    name: "launch",
    title: "boot the machine on the target",
    weight: 2,
    run: async (context) => {
      const { itemId, landedName, networkId } = context.parameters;
      stored(context.state, "fencedAt");
      const item = await readItem(world.services.database.db, itemId);
      const hydration = await launchFromPoint(world, context, {
        itemId,
        item,
        purpose: "migrated",
        name: landedName,
        pointId: parsePointId(stored(context.state, "pointId")),
        network: toNetwork(networkId),
      });
      return hydrationEvidence(world, hydration);
    },
    undo: async (context) => {
      await removeLaunched(world, context, context.parameters.itemId);
      await context.log("the target was removed");
    },
  };
}

function probeStep(world: Replication): Step {
  return {
    name: "probe",
    title: "probe the machine on the target",
    weight: 2,
    run: async (context) => {
      const evidence = await probeLanded(world, context, context.parameters.probe);
      const downFrom = context.state.quiesceOrderedAt ?? stored(context.state, "fencedAt");
      const downtimeMs = fromTimestamp(evidence.probedAt ?? "") - fromTimestamp(downFrom);
      return { ...evidence, downtimeSeconds: downtimeMs / 1000 };
    },
    undo: "a probe leaves nothing",
  };
}

function fillStep(world: Replication): Step {
  return {
    name: "fill",
    title: "copy what still depends on the recovery point",
    weight: 6,
    run: async (context) => await fillLanded(world, context, context.parameters.landedName),
    undo: "what was copied goes with the machine, which the launch's undo removes",
  };
}

export function defaultLandedName(item: { readonly machineName: string; readonly target: { readonly name?: string | undefined } }): string {
  return toLandedName(item.target.name ?? item.machineName, "");
}
