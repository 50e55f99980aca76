// Judges what a harm has left: every point is the machine at one instant, the newest is the machine now, hub and vault know the same points.

import { systemClock } from "../../../src/base/clock.ts";
import type { PointId } from "../../../src/contract/ids.ts";
import type { RecoveryPoint } from "../../../src/vault/vault.ts";
import { digestOf, type ProofAppliance, type ProofSite } from "./site.ts";
import type { ProofMachine } from "./machine.ts";

export interface Judgement {
  /** Points that were sealed since the judgement before. */
  sealedPoints: number;
  /** Of these, those whose every byte was read and compared: the newest, and others evenly. */
  comparedPoints: number;
  comparedBytes: number;
  /** One line for each thing that is not as it must be. */
  readonly wrong: string[];
  /** From the end of the harm until each machine had a point of its present content. */
  catchUpSeconds: number;
}

const settleMsMax = 240_000;
/** Of one machine in one judgement. */
const comparedPointsMax = 15;

/** `served`: which appliance serves which machine. Machines rest meanwhile and go on afterwards. */
export async function judge(
  site: ProofSite,
  served: readonly { readonly machine: ProofMachine; readonly appliance: ProofAppliance }[],
  known: Set<PointId>,
): Promise<Judgement> {
  const judgement: Judgement = { sealedPoints: 0, comparedPoints: 0, comparedBytes: 0, wrong: [], catchUpSeconds: 0 };
  const startMs = systemClock.monotonicMs();
  const resting = await Promise.all(
    served.map(async ({ machine, appliance }) => ({
      machine,
      content: await machine.rest(),
      pointId: await pointOf(appliance, machine, judgement.wrong),
    })),
  );
  judgement.catchUpSeconds = (systemClock.monotonicMs() - startMs) / 1000;
  // Agents go on making points of machines that rest: what was told before the vault is read must be in it.
  const told = [...site.hub.points.keys()];
  const held = new Set<string>();
  await site.withVault(async (reader) => {
    for (const { machine, content, pointId } of resting) {
      let newest: string | undefined;
      const fresh: RecoveryPoint[] = [];
      for await (const point of reader.listPoints(machine.machineId)) {
        held.add(point.pointId);
        if (!known.has(point.pointId)) fresh.push(point);
        known.add(point.pointId);
      }
      judgement.sealedPoints += fresh.length;
      const every = Math.ceil(fresh.length / comparedPointsMax);
      for (const [index, point] of fresh.entries()) {
        if (index % every !== 0 && point.pointId !== pointId) continue;
        const digest = await digestOf(reader, point);
        judgement.comparedPoints += 1;
        judgement.comparedBytes += point.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
        if (!machine.frozen.has(digest)) judgement.wrong.push(`point ${point.pointId} of ${machine.name} is the machine at no instant`);
        if (point.pointId === pointId) newest = digest;
      }
      if (newest !== content) judgement.wrong.push(`the newest point of ${machine.name} differs from its disk`);
    }
  });
  const isTold = await until(() => [...held].every((pointId) => site.hub.points.has(pointId)));
  if (!isTold) judgement.wrong.push("the hub was not told of every point that the vault holds");
  for (const pointId of told) if (!held.has(pointId)) judgement.wrong.push(`the hub was told of point ${pointId}, which is not there`);
  for (const { machine } of resting) machine.go();
  return judgement;
}

/** The machine's appliance makes a point as soon as it can; undefined, and said to be wrong, when it cannot for long. */
async function pointOf(appliance: ProofAppliance, machine: ProofMachine, wrong: string[]): Promise<string | undefined> {
  const endMs = systemClock.monotonicMs() + settleMsMax;
  for (;;) {
    try {
      return await appliance.order({ kind: "point", machineId: machine.machineId });
    } catch (error) {
      if (systemClock.monotonicMs() > endMs) {
        wrong.push(`${machine.name} has no new point: ${error instanceof Error ? error.message : String(error)}`);
        return undefined;
      }
      await systemClock.sleep(500);
    }
  }
}

export async function until(isTrue: () => boolean | Promise<boolean>, msMax = settleMsMax): Promise<boolean> {
  const endMs = systemClock.monotonicMs() + msMax;
  while (!(await isTrue())) {
    if (systemClock.monotonicMs() > endMs) return false;
    await systemClock.sleep(100);
  }
  return true;
}
