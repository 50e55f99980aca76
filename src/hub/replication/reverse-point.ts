// Job ReversePoint: after the commit, what the landed machine has written becomes a recovery point on the chain of the source's final one.
// The final one is made of the machine switched off, with all of its disks read again and a signed report; the machine is barred then.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { equalityReportType } from "../../contract/equality-report.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDigestHex, parseMachineId, parsePointId, type PointId } from "../../contract/ids.ts";
import { digestShape, diskIdShape, pointIdShape } from "../../contract/shapes.ts";
import { computeRoot } from "../../disk/compute-root.ts";
import type { Disk } from "../../disk/disk.ts";
import { withExcludedRanges } from "../../disk/excluded-disk.ts";
import type { LandedDisk, LandedDisks } from "../../landing/target.ts";
import type { PointDisk, RecoveryPoint, Vault } from "../../vault/vault.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type JobStep, type StepContext } from "../jobs/job.ts";
import { copyLanded } from "./copy-landed.ts";
import { buildEqualityReport } from "./equality-report.ts";
import { faultsOf, patchItem, readItem, type Item, type Reverse } from "./item.ts";
import { authorityOf, findLanded, requireHere } from "./landed.ts";
import { openPoint } from "./launch-steps.ts";
import { landedId, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

export const reverseKind = "ReversePoint";

const parametersShape = z.object({
  itemId: z.string(),
  machineId: z.string(),
  landedName: z.string(),
  /** The final point of the way there. */
  basisPointId: pointIdShape,
  isFinal: z.boolean(),
});
type Parameters = z.infer<typeof parametersShape>;

const rootsShape = z.array(z.object({ diskId: diskIdShape, root: digestShape }));

interface State {
  readonly pointId?: string;
  readonly parentPointId?: string;
  readonly holdId?: string;
  readonly wasRunning?: boolean;
  readonly stopOrderedAt?: string;
  readonly barredAt?: string;
  readonly pointTime?: string;
  readonly readBytes?: number;
  readonly storedBytes?: number;
  readonly differingBlocks?: number;
  readonly wholeDisks?: number;
  /** Of the landed disks, read from end to end; of a final point. */
  readonly landedRoots?: z.infer<typeof rootsShape>;
  readonly equalityReport?: string;
  /** Chosen before it is made; it is only made where hydration edited anything. */
  readonly returnPointId?: string;
  readonly hasReturnPoint?: boolean;
  readonly undone?: readonly string[];
}
type Context = StepContext<Parameters, State>;
type Step = JobStep<Parameters, State>;

const pointsKeptMax = 50;

/** Throws StateConflict unless the machine was migrated for good, and is here still. */
export function requireGoingBack(item: Item): { readonly landedName: string; readonly basisPointId: PointId } {
  const { failover, protectionState, busyWith, reverse, machineName } = item;
  const isFree = protectionState === "CommitFailoverCompleted" && busyWith === undefined && failover !== undefined;
  if (isFree && reverse?.finalPointId === undefined) return { landedName: failover.landedName, basisPointId: failover.pointId };
  throw new Fault("StateConflict", `could not make a point of the way back of ${machineName}: ${whyNot(item)}`, {
    evidence: { protectionState, ...(busyWith === undefined ? {} : { busyWith }) },
  });
}

function whyNot({ protectionState, reverse, busyWith }: Item): string {
  if (busyWith !== undefined) return "another operation is under way";
  if (reverse?.returnedAt !== undefined) return "its source has it again";
  if (reverse?.finalPointId !== undefined) return "its final point is made, and the landed machine is barred";
  return `it is ${protectionState}, and its migration is not committed`;
}

export function defineReversePoint(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: reverseKind,
    title: "make a point of the landed machine",
    parameters: parametersShape,
    steps: ({ isFinal }) => [
      prepareStep(world),
      ...(isFinal ? [barStep(world)] : []),
      copyStep(world),
      ...(isFinal ? [compareStep(world), returnStep(world)] : []),
    ],
    settle: async (db, { parameters, state, outcome }) => {
      const { itemId, basisPointId, isFinal } = parameters;
      const { reverse } = await readItem(db, itemId);
      const isDone = outcome.kind === "succeeded";
      await patchItem(db, itemId, {
        busyWith: undefined,
        faults: faultsOf(outcome),
        ...(isDone ? { reverse: withPoint(reverse, { basisPointId, isFinal, state }) } : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}

function withPoint(
  reverse: Reverse | undefined,
  { basisPointId, isFinal, state }: Pick<Parameters, "basisPointId" | "isFinal"> & { readonly state: Partial<State> },
): Reverse {
  const pointId = parsePointId(stored(state, "pointId"));
  const { readBytes = 0, storedBytes = 0, wholeDisks = 0 } = state;
  const point = { pointId, time: stored(state, "pointTime"), isFinal, readBytes, storedBytes, wholeDisks };
  const points = [...(reverse?.points ?? []), point].slice(-pointsKeptMax);
  if (!isFinal) return { basisPointId, points };
  const forSource = state.hasReturnPoint === true ? { returnPointId: parsePointId(stored(state, "returnPointId")) } : {};
  return { basisPointId, points, finalPointId: pointId, ...forSource };
}

function prepareStep(world: Replication): Step {
  return {
    name: "prepare",
    title: "check that the machine stands by itself, and keep the point that its source ended with",
    run: async (context) => {
      const { itemId, landedName, basisPointId } = context.parameters;
      const { db } = world.services.database;
      requireAble(world, landedName);
      const vault = vaultOf(parseResourceId(itemId));
      const landed = await findLanded(db, landedId(vault, landedName).text);
      if (landed === undefined) throw new Fault("NotFound", `could not make a point of ${landedName}: the machine is gone`);
      requireHere(landed, world.place);
      const { power, bytesToFill } = await world.target.status(landedName);
      if (power === "gone" || bytesToFill > 0)
        throw new Fault("StateConflict", `could not make a point of ${landedName}: it does not stand by itself`, {
          evidence: { power, bytesToFill },
        });
      const { reverse } = await readItem(db, itemId);
      const parentPointId = reverse?.points.at(-1)?.pointId ?? basisPointId;
      const holdId = `reverse-${landed.vmId}`;
      const reader = await world.openReader(vault.text);
      for (const pointId of new Set([basisPointId, parentPointId]))
        if (!(await reader.holdPoint(pointId, holdId)))
          throw new Fault("NotFound", `could not make a point of ${landedName}: the vault does not have the point before it any more`, {
            evidence: { pointId },
            causes: ["retention removed it before the way back was begun"],
          });
      // The first and the newest are kept; those between are the retention's.
      const older = reverse?.points.at(-2)?.pointId;
      if (older !== undefined) await reader.releasePoint(older, holdId);
      const pointId = context.state.pointId ?? world.services.random.uuid();
      return { pointId, parentPointId, holdId, wasRunning: context.state.wasRunning ?? power === "running" };
    },
    undo: "points that are kept for the way back stay until the machine is removed from the vault",
  };
}

function requireAble(world: Replication, landedName: string): void {
  if (world.target.openLanded !== undefined && world.openWriter !== undefined) return;
  throw new Fault("OperationNotSupported", `could not make a point of ${landedName}: the disks of machines on this target cannot be read`, {
    evidence: { target: world.target.kind },
  });
}

/** Stopped before it is read: nothing can be written after the point. */
function barStep({ target, services }: Replication): Step {
  return {
    name: "bar",
    title: "switch the landed machine off and bar it",
    run: async (context) => {
      const { landedName } = context.parameters;
      const commands = target.under(authorityOf(context));
      if (commands.bar === undefined)
        throw new Fault("OperationNotSupported", "could not make the final point: this target cannot keep a machine from being started");
      if (context.state.stopOrderedAt === undefined) await context.save({ stopOrderedAt: toTimestamp(services.clock.nowMs()) });
      await context.confirm();
      await commands.stop(landedName, "orderly");
      await commands.bar(landedName);
      const { power } = await target.status(landedName);
      if (power !== "stopped")
        throw new Fault("FenceUnconfirmed", `could not switch ${landedName} off: it is ${power}`, { evidence: { landedName, power } });
      return { barredAt: toTimestamp(services.clock.nowMs()) };
    },
    undo: async (context) => {
      const { landedName } = context.parameters;
      await context.confirm();
      const commands = target.under(authorityOf(context));
      await commands.allow?.(landedName);
      if (context.state.wasRunning === true) await commands.start(landedName);
      await context.log("the landed machine may run again");
    },
  };
}

function copyStep(world: Replication): Step {
  return {
    name: "copy",
    title: "store what the landed machine has written",
    weight: 6,
    run: async (context) => await copy(world, context),
    undo: "a point that was made shows what the machine held, and goes with the vault's other points",
  };
}

async function copy(world: Replication, context: Context): Promise<Partial<State>> {
  const { itemId, landedName, isFinal } = context.parameters;
  const vaultId = vaultOf(parseResourceId(itemId)).text;
  const pointId = parsePointId(stored(context.state, "pointId"));
  const vault = await world.openWriter?.(vaultId);
  if (vault === undefined || world.target.openLanded === undefined) throw new Error("assertion failed: prepare looked for both");
  const parent = await openPoint(world, vaultId, parsePointId(stored(context.state, "parentPointId")));
  await context.confirm();
  await using landed = await world.target.openLanded(landedName, { signal: context.signal });
  if (isFinal && !landed.isAtRest)
    throw new Fault("FenceUnconfirmed", `could not make the final point of ${landedName}: it runs`, { evidence: { landedName } });
  const disks = parent.disks.map((disk) => ({ disk, landed: landedOf(landed, disk, landedName) }));
  const landedRoots = isFinal ? await rootsOf(disks, context) : undefined;
  const present = await vault.point(pointId);
  const wish = { pointId, parent, disks, timeMs: landed.timeMs, landedRoots };
  const made = present === undefined ? await makeProvedPoint(vault, context, wish) : {};
  const reader = await world.openReader(vaultId);
  if (!(await reader.holdPoint(pointId, stored(context.state, "holdId"))))
    throw new Fault("NotFound", "could not keep the new point: it is gone", { evidence: { pointId } });
  const timeMs = present?.timeMs ?? landed.timeMs;
  return { ...made, pointTime: toTimestamp(timeMs), ...(landedRoots === undefined ? {} : { landedRoots }) };
}

interface CopiedDisk {
  readonly disk: PointDisk;
  readonly landed: LandedDisk & { readonly masked: Disk };
}

function landedOf({ disks }: LandedDisks, { diskId, sizeBytes, excluded }: PointDisk, landedName: string): CopiedDisk["landed"] {
  const found = disks.find((disk) => disk.diskId === diskId);
  if (found?.content.sizeBytes !== sizeBytes)
    throw new Fault("StateConflict", `could not make a point of ${landedName}: its disk ${diskId} is gone or has another size`, {
      evidence: { diskId, sizeBytes, sizeBytesNow: found?.content.sizeBytes ?? 0 },
    });
  return { ...found, masked: withExcludedRanges(found.content, excluded) };
}

/** From end to end, whatever is known of what was written: this is what the point has to be equal to. */
async function rootsOf(disks: readonly CopiedDisk[], { signal }: Context): Promise<z.infer<typeof rootsShape>> {
  const roots = [];
  for (const { disk, landed } of disks)
    roots.push({ diskId: disk.diskId, root: parseDigestHex(await computeRoot(landed.masked, { signal })) });
  return roots;
}

interface PointWish {
  readonly pointId: PointId;
  readonly parent: RecoveryPoint;
  readonly disks: readonly CopiedDisk[];
  readonly timeMs: number;
  readonly landedRoots: z.infer<typeof rootsShape> | undefined;
}

/** What is known of the writes only saves reading: where the roots say that it was not all, everything is compared. */
async function makeProvedPoint(vault: Vault, context: Context, wish: PointWish): Promise<Partial<State>> {
  try {
    return await makePoint(vault, context, wish);
  } catch (error) {
    if (!(error instanceof Fault && error.code === "RootsDiffer")) throw error;
    await context.log("what was tracked of the machine's writes was not all: its disks are compared from end to end");
    const disks = wish.disks.map(({ disk, landed }) => ({ disk, landed: { ...landed, written: "unknown" as const } }));
    return await makePoint(vault, context, { ...wish, disks });
  }
}

async function makePoint(vault: Vault, context: Context, given: PointWish): Promise<Partial<State>> {
  const { pointId, parent, disks, timeMs, landedRoots } = given;
  const { machineId } = parent;
  const shapes = disks.map(({ disk: { diskId, sizeBytes, isBoot, excluded } }) => ({ diskId, sizeBytes, isBoot, excluded }));
  await using writer = await vault.beginPoint({ pointId, machineId, parentPointId: parent.pointId, disks: shapes });
  const counts = { readBytes: 0, differingBlocks: 0 };
  let told: Promise<void> = Promise.resolve();
  const totalBytes = Math.max(
    1,
    disks.reduce((sum, { disk, landed }) => sum + bytesToRead(disk, landed), 0),
  );
  let doneBytes = 0;
  const onRead = (bytes: number): void => {
    doneBytes += bytes;
    // One report at a time; a failed one shows in the await below.
    told = told.then(async () => await context.progress(Math.min(99, (100 * doneBytes) / totalBytes), `${doneBytes} bytes read`));
  };
  for (const { disk, landed } of disks) {
    const copied = { diskId: disk.diskId, content: landed.masked, written: landed.written };
    const outcome = await copyLanded(writer, copied, { onRead, signal: context.signal });
    counts.readBytes += outcome.readBytes;
    counts.differingBlocks += outcome.differingBlocks;
  }
  await told;
  const facts = { timeMs, consistency: landedRoots === undefined ? ("crash" as const) : ("final" as const) };
  const { storedBytes } = await writer.seal({ ...facts, ...(landedRoots === undefined ? {} : { expectedRoots: landedRoots }) });
  return { ...counts, storedBytes, wholeDisks: disks.filter(({ landed }) => landed.written === "unknown").length };
}

function bytesToRead({ sizeBytes }: PointDisk, { written }: LandedDisk): number {
  return written === "unknown" ? sizeBytes : written.reduce((sum, { length }) => sum + length, 0);
}

function compareStep(world: Replication): Step {
  return {
    name: "compare",
    title: "prove that the point is the landed machine",
    run: async (context) => {
      const { itemId } = context.parameters;
      const vault = vaultOf(parseResourceId(itemId));
      const point = await openPoint(world, vault.text, parsePointId(stored(context.state, "pointId")));
      const facts = {
        jobId: context.jobId,
        itemId,
        vaultId: vault.text,
        machineName: (await readItem(world.services.database.db, itemId)).machineName,
        machineId: parseMachineId(context.parameters.machineId),
        quiesceOrderedAt: stored(context.state, "stopOrderedAt"),
        quiescedAt: stored(context.state, "barredAt"),
        verification: { repairedBlockCount: 0, repairedBlocks: [] },
        rounds: [],
      };
      const report = buildEqualityReport(facts, point, stored(context.state, "landedRoots"));
      await context.save({ equalityReport: await world.services.signer.sign(equalityReportType, report) });
      if (report.isEqual) return {};
      throw new Fault("RootsDiffer", "the landed machine's disks and its final recovery point are not equal", {
        evidence: { pointId: point.pointId },
      });
    },
    undo: "comparing only reads",
  };
}

const undoneMax = 500;

/** R is the landed disks, byte for byte; what the source gets has its own drivers and names again. */
function returnStep(world: Replication): Step {
  return {
    name: "return",
    title: "take back what was edited for the target's hardware",
    weight: 2,
    run: async (context) => {
      try {
        return await makeReturnPoint(world, context);
      } catch (error) {
        if (!(error instanceof Fault && error.code === "HydrationUnsupported")) throw error;
        // The source boots on what it had besides: hydration adds drivers and names, and takes none away.
        await context.log(`the edits for the target's hardware stay: ${error.message}`);
        return { hasReturnPoint: false, undone: [`! they stay: ${error.message}`] };
      }
    },
    undo: "a point that was made goes with the vault's other points",
  };
}

async function makeReturnPoint(world: Replication, context: Context): Promise<Partial<State>> {
  const { itemId, landedName } = context.parameters;
  const vaultId = vaultOf(parseResourceId(itemId)).text;
  if (context.state.returnPointId === undefined) await context.save({ returnPointId: world.services.random.uuid() });
  const pointId = parsePointId(stored(context.state, "returnPointId"));
  const vault = await world.openWriter?.(vaultId);
  if (vault === undefined || world.target.openLanded === undefined) throw new Error("assertion failed: prepare looked for both");
  const parent = await openPoint(world, vaultId, parsePointId(stored(context.state, "pointId")));
  await context.confirm();
  await using landed = await world.target.openLanded(landedName, { shape: "forSource", signal: context.signal });
  const undone = landed.undone.slice(0, undoneMax);
  if (undone.every((line) => line.startsWith("!"))) return { hasReturnPoint: false, undone };
  const disks = parent.disks.map((disk) => ({ disk, landed: landedOf(landed, disk, landedName) }));
  if ((await vault.point(pointId)) === undefined) {
    const landedRoots = await rootsOf(disks, context);
    await makePoint(vault, context, { pointId, parent, disks, timeMs: landed.timeMs, landedRoots });
  }
  const reader = await world.openReader(vaultId);
  if (!(await reader.holdPoint(pointId, stored(context.state, "holdId"))))
    throw new Fault("NotFound", "could not keep the new point: it is gone", { evidence: { pointId } });
  return { hasReturnPoint: true, undone };
}
