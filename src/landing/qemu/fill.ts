// Copies what an overlay still reads from its recovery point, while the guest runs (QEMU's block-stream job).

import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { qcow2Node } from "./emulator.ts";
import type { Machine } from "./machine.ts";

const jobsShape = z.array(
  z.object({ device: z.string(), len: z.number(), offset: z.number(), "io-status": z.string().optional(), error: z.string().optional() }),
);
export type FillJob = z.infer<typeof jobsShape>[number];

const pollMs = 100;

const jobIdOf = (index: number): string => `fill${index}`;

async function queryFillJobs(machine: Machine): Promise<readonly FillJob[]> {
  await using qmp = await machine.openQmp();
  return qmp === undefined ? [] : jobsShape.parse(await qmp.execute("query-block-jobs"));
}

/** Bytes that still depend on the recovery point, at most: what a running job has done is taken off. */
export async function bytesToFill(machine: Machine): Promise<number> {
  const dependencies = await machine.dependencies();
  if (!dependencies.includes(true)) return 0;
  const jobs = await queryFillJobs(machine);
  return machine.record.disks.reduce((sum, { sizeBytes }, index) => {
    if (dependencies[index] !== true) return sum;
    const job = jobs.find(({ device }) => device === jobIdOf(index));
    return sum + (job === undefined ? sizeBytes : Math.max(job.len - job.offset, 1));
  }, 0);
}

export interface FillOptions {
  readonly clock: Clock;
  readonly onProgress: (bytesLeft: number) => void;
  readonly signal?: AbortSignal;
}

/** Fills disk after disk. After abort the job is cancelled; what it copied stays copied. */
export async function fillMachine(machine: Machine, options: FillOptions): Promise<void> {
  for (const [index, dependsOnPoint] of (await machine.dependencies()).entries()) {
    if (!dependsOnPoint) continue;
    await startJob(machine, index);
    await followJob(machine, index, options);
    if ((await machine.dependencies())[index] !== false) {
      throw new Fault("LandingFailed", `could not fill disk ${index} of machine ${machine.record.name}: the copy ended early`, {
        causes: ["the recovery point cannot be read", "the host's disk is full"],
        evidence: { disk: index },
      });
    }
    await machine.closeExport(index);
  }
  options.onProgress(0);
}

async function startJob(machine: Machine, index: number): Promise<void> {
  if ((await queryFillJobs(machine)).some(({ device }) => device === jobIdOf(index))) return; // Begun before a restart of ours.
  await using qmp = await machine.openQmp();
  if (qmp === undefined) {
    throw new Fault("StateConflict", `could not fill machine ${machine.record.name}: it does not run`, {
      action: `start machine ${machine.record.name}, then fill it`,
    });
  }
  await qmp.execute("block-stream", { "job-id": jobIdOf(index), device: qcow2Node(index), "on-error": "report" });
}

async function followJob(machine: Machine, index: number, { clock, onProgress, signal }: FillOptions): Promise<void> {
  for (;;) {
    const job = (await queryFillJobs(machine)).find(({ device }) => device === jobIdOf(index));
    if (job === undefined) return;
    onProgress(await bytesToFill(machine));
    try {
      await clock.sleep(pollMs, signal);
    } catch (error) {
      await using qmp = await machine.openQmp();
      await qmp?.execute("block-job-cancel", { device: jobIdOf(index) });
      throw error;
    }
  }
}
