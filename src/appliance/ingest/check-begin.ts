// Judges the first frame of a point: version, disks, base point. Pure but for the questions it is given.

import { FrameError, type BeginPoint } from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import type { DiskId, MachineId, PointId } from "../../contract/ids.ts";
import { diskBytesMax, granuleBytes } from "../../disk/geometry.ts";
import type { RecoveryPoint } from "../../vault/vault.ts";

export interface BaseQuestion {
  readonly machineId: MachineId;
  readonly basePoint: RecoveryPoint | undefined;
  /** Boot during which the base point was made; undefined when unknown. */
  readonly baseBootId: string | undefined;
  readonly newestPointId: PointId | undefined;
}

/** The one base point that the disks name; undefined when all are full copies. Throws FrameError when they disagree. */
export function basePointIdOf(begin: BeginPoint): PointId | undefined {
  const named = new Set<PointId>();
  for (const disk of begin.disks) {
    if (disk.mode === "full") {
      if (disk.basePointId !== undefined) throw new FrameError("a full copy names a base point");
    } else if (disk.basePointId === undefined) throw new FrameError(`a ${disk.mode} copy names no base point`);
    else named.add(disk.basePointId);
  }
  if (named.size > 1) throw new FrameError("the disks of the point name different base points");
  return [...named][0];
}

/** Sizes, excluded ranges and names that can be judged without asking. Throws FrameError. */
export function checkDisks(begin: BeginPoint): void {
  const seen = new Set<DiskId>();
  for (const disk of begin.disks) {
    if (seen.has(disk.diskId)) throw new FrameError(`disk ${disk.diskId} is named twice`);
    seen.add(disk.diskId);
    if (disk.sizeBytes < 512 || disk.sizeBytes > diskBytesMax || disk.sizeBytes % 512 !== 0) {
      throw new FrameError(`disk ${disk.diskId} has an impossible size of ${disk.sizeBytes} bytes`);
    }
    let endOfLast = -1;
    for (const { offset, length } of disk.excluded) {
      const isAligned = offset % granuleBytes === 0 && (length % granuleBytes === 0 || offset + length === disk.sizeBytes);
      if (!isAligned || length === 0 || offset <= endOfLast || offset + length > disk.sizeBytes) {
        throw new FrameError(`disk ${disk.diskId} has an impossible excluded range`);
      }
      endOfLast = offset + length;
    }
  }
}

/** Whether the base point can be built upon. Throws Fault BasePointUnknown with the point to compare with instead. */
export function checkBase(begin: BeginPoint, question: BaseQuestion): void {
  const { basePoint, baseBootId, machineId, newestPointId } = question;
  const refuse = (because: string): never => {
    throw new Fault("BasePointUnknown", `could not build on the base point: ${because}`, {
      evidence: { because, ...(newestPointId === undefined ? {} : { newestPointId }) },
    });
  };
  if (basePoint === undefined || basePoint.machineId !== machineId) return refuse("the vault does not hold it for this machine");
  for (const disk of begin.disks) {
    if (disk.mode !== "delta") continue;
    const before = basePoint.disks.find((each) => each.diskId === disk.diskId);
    if (before === undefined) return refuse(`it has no disk ${disk.diskId}`);
    if (before.sizeBytes > disk.sizeBytes) return refuse(`disk ${disk.diskId} was larger in it`);
    if (baseBootId !== begin.bootId) return refuse("the machine has booted since, and changes of that time were not seen");
  }
}
