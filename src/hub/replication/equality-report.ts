// The equality report of a cut-over: made of what both sides told, signed by the hub, with a way from each root down to single blocks.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import type { EqualityPages, EqualityReport } from "../../contract/equality-report.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDigestHex, type DiskId, type MachineId } from "../../contract/ids.ts";
import { countShape, diskIdShape, pointIdShape } from "../../contract/shapes.ts";
import { idOf, toHex } from "../../disk/digest.ts";
import { blockBytes, blockCountOf, idsPerPage } from "../../disk/geometry.ts";
import type { RecoveryPoint } from "../../vault/vault.ts";
import { defineAction, noBody, type ActionDefinition, type ArmCall } from "../api/resource-type.ts";
import type { JobRecord } from "../jobs/job.ts";
import { readJob, readSteps } from "../jobs/job-store.ts";
import { vaultOf } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

/** What the report says beside the disks. */
export type ReportFacts = Pick<
  EqualityReport,
  "jobId" | "vaultId" | "itemId" | "machineName" | "quiesceOrderedAt" | "quiescedAt" | "frozenMs" | "verification" | "rounds"
> & { readonly machineId: MachineId };

type Root = ReturnType<typeof parseDigestHex>;

/** Equal only when the source told a root of each disk of the point, the same ones, and of no other disk. */
export function buildEqualityReport(
  facts: ReportFacts,
  point: RecoveryPoint,
  sourceRoots: readonly { readonly diskId: DiskId; readonly root: Root }[],
): EqualityReport {
  const disks = point.disks.map(({ diskId, sizeBytes, isBoot, excluded, root }) => {
    const sourceRoot = sourceRoots.find((source) => source.diskId === diskId)?.root ?? null;
    const common = { diskId, sizeBytes, blockCount: blockCountOf(sizeBytes), isBoot, excluded: [...excluded] };
    return { ...common, sourceRoot, replicaRoot: parseDigestHex(root), isEqual: sourceRoot === root };
  });
  return {
    version: 1,
    isEqual: disks.every(({ isEqual }) => isEqual) && sourceRoots.length === disks.length,
    ...facts,
    pointId: point.pointId,
    pointTime: toTimestamp(point.timeMs),
    ...{ blockBytes, idsPerPage, disks },
  };
}

const reportEvidenceShape = z.object({ equalityReport: z.string(), pointId: pointIdShape });
const blocksPerCallMax = 64;
const pagesBody = z.strictObject({ diskId: diskIdShape, blocks: z.array(countShape).min(1).max(blocksPerCallMax) });

/** Of a job: its signed report, and pages that lead from the report's roots to blocks. */
export function reportActions(front: Pick<ReplicationFront, "services" | "openReader">): Readonly<Record<string, ActionDefinition>> {
  return {
    equalityReport: defineAction({
      body: noBody,
      isRead: true,
      run: async (call) => ({ kind: "done", body: { report: (await readReport(front, call)).equalityReport } }),
    }),
    equalityPages: defineAction({
      body: pagesBody,
      isRead: true,
      run: async (call, { diskId, blocks }) => {
        const { pointId } = await readReport(front, call);
        const reader = await front.openReader(vaultOf(call.id).text);
        const pages: EqualityPages = {};
        for (const block of blocks) {
          call.signal.throwIfAborted();
          for (const page of await reader.pagesTo(pointId, diskId, block))
            pages[parseDigestHex(toHex(idOf(page)))] = Buffer.from(page).toString("base64");
        }
        return { kind: "done", body: { pages } };
      },
    }),
  };
}

async function readReport({ services }: Pick<ReplicationFront, "services">, { id }: ArmCall): Promise<z.infer<typeof reportEvidenceShape>> {
  const { db } = services.database;
  const jobId = z.guid().safeParse(id.name.toLowerCase()).data;
  const job = jobId === undefined ? undefined : await readJob(db, jobId);
  if (job === undefined || job.scope !== vaultOf(id).key)
    throw new Fault("NotFound", `could not find the job ${id.name}`, { evidence: { resourceId: id.text } });
  const evidence: object = Object.assign({}, ...(await readSteps(db, job.jobId)).map((step) => step.evidence)) as object; // Of objects.
  const found = reportEvidenceShape.safeParse(evidence);
  if (found.success) return found.data;
  throw new Fault("NotFound", `could not find the equality report of the job: ${whyNone(job)}`, { evidence: { jobId: job.jobId } });
}

function whyNone(job: JobRecord): string {
  if (job.kind !== "UnplannedFailover") return `a job of the kind ${job.kind} makes none`;
  return job.endedAt === undefined ? "it has not come to the comparison" : "it compared nothing, or never came to it";
}
