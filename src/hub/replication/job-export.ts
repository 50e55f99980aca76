// Export of a vault's jobs: one file in the vault's storage account, and a finished job that tells where it is.

import { z } from "zod";
import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ArmCall } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { escapeXml } from "../blob/xml.ts";
import { makeContainerSas } from "../blob/sas.ts";
import type { JsonObject } from "../db/resources.ts";
import type { JobRecord } from "../jobs/job.ts";
import { listJobs, type JobWish } from "../jobs/job-list.ts";
import { beginJob, endJob, insertJob } from "../jobs/job-store.ts";
import { putFile } from "../resources/blob-client.ts";
import type { VaultPlace } from "../resources/vault-access.ts";
import type { HubServices } from "../services.ts";
import { affectedTypeOf } from "./affected-type.ts";
import { vaultOf } from "./names.ts";
import { armStates } from "./present-job.ts";

export type JobServices = Pick<HubServices, "database" | "clock" | "random" | "vaults" | "operations">;

export const exportKind = "ExportJobs";
const text = z.string().max(1000).nullish();
/** The SDK's JobQueryParameter. */
export const exportBody = z.strictObject({
  startTime: text,
  endTime: text,
  fabricId: text,
  affectedObjectTypes: text,
  jobStatus: text,
  jobName: text,
  jobOutputType: text,
  /** Minutes that are added to UTC for the times in the file. */
  timezoneOffset: z.number().int().min(-840).max(840).nullish(),
});

const exportedMax = 10_000;
const pageJobs = 1000;
const grantMs = 3600_000;
const keptMs = 7 * 24 * 3600_000;

const writers = {
  json: { extension: "json", contentType: "application/json", write: (rows: readonly Row[]) => JSON.stringify(rows, undefined, 2) },
  xml: { extension: "xml", contentType: "application/xml", write: toXml },
} as const;

/** Answers the id of the job, which has ended: an export is done within its call. */
export async function exportJobs(
  services: JobServices,
  { id, caller, signal }: ArmCall,
  { body, wish }: { readonly body: z.infer<typeof exportBody>; readonly wish: JobWish },
): Promise<string> {
  const { database, clock, random, vaults } = services;
  const vault = vaultOf(id);
  const writer = writerOf(body.jobOutputType ?? "Json");
  const { storage } = await vaults.open(vault.text);
  const jobId = random.uuid();
  const rows = await readRows(services, { vault, wish, offsetMinutes: body.timezoneOffset ?? 0 });
  const container = containerOf(storage);
  const name = `jobs-${jobId}.${writer.extension}`;
  const { contentType } = writer;
  await putFile({ ...storage, container }, { name, text: writer.write(rows), contentType, dropBeforeMs: clock.nowMs() - keptMs }, signal);
  const job = { jobId, kind: exportKind, title: "export jobs", scope: vault.key, targetId: vault.text, targetName: vault.name };
  const parameters: ExportParameters = { container, name, format: writer.extension, jobCount: rows.length };
  await database.db.transaction().execute(async (db) => {
    await insertJob(db, { ...job, lockKey: `export:${jobId}`, actor: caller.name, parameters });
    await beginJob(db, jobId, []);
    await endJob(db, jobId, { kind: "succeeded" }, undefined);
  });
  return jobId;
}

const parametersShape = z.object({ container: z.string(), name: z.string(), format: z.string(), jobCount: z.number() });
type ExportParameters = z.infer<typeof parametersShape>;

/** The signature is made for each answer, reads this one container of exports and nothing else, and lasts an hour. */
export async function exportDetails({ vaults, clock }: JobServices, vault: ResourceId, job: JobRecord): Promise<JsonObject> {
  const { container, name } = parametersShape.parse(job.parameters);
  const { storage } = await vaults.open(vault.text);
  const sas = makeContainerSas({
    account: storage.accountName,
    key: Buffer.from(storage.accountKey, "base64"),
    container,
    permissions: ["read"],
    expiresAtMs: clock.nowMs() + grantMs,
  });
  return {
    instanceType: "ExportJobDetails",
    affectedObjectDetails: {},
    blobUri: `${storage.accountUrl}/${container}/${name}`,
    sasToken: sas.slice(1),
  };
}

/** Beside the container of the packs: a signature on it shows exports alone. */
function containerOf({ container }: VaultPlace["storage"]): string {
  const charactersMax = 58; // Of 63 that the service allows.
  return `${container.slice(0, charactersMax)}-jobs`;
}

function writerOf(format: string): (typeof writers)[keyof typeof writers] {
  const found = Object.entries(writers).find(([name]) => name === format.toLowerCase())?.[1];
  if (found !== undefined) return found;
  throw new Fault("InputInvalid", `could not export the jobs: the format ${format.slice(0, 40)} is not written here`, {
    evidence: { formats: ["Json", "Xml"] },
    action: "ask for Json or Xml; programs for sheets read both",
  });
}

type Row = Readonly<Record<string, string>>;

async function readRows(
  { database }: JobServices,
  { vault, wish, offsetMinutes }: { readonly vault: ResourceId; readonly wish: JobWish; readonly offsetMinutes: number },
): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (let afterJobId: string | undefined; ;) {
    const { jobs, next } = await listJobs(database.db, { scope: vault.key, countMax: pageJobs, afterJobId, wish });
    rows.push(...jobs.map((job) => toRow(job, offsetMinutes)));
    if (rows.length > exportedMax)
      throw new Fault("InputInvalid", `could not export the jobs of ${vault.name}: there are more than ${exportedMax}`, {
        action: "narrow the export by startTime and endTime",
      });
    if (next === undefined) return rows;
    afterJobId = next;
  }
}

function toRow(job: JobRecord, offsetMinutes: number): Row {
  return {
    name: job.jobId,
    scenarioName: job.kind,
    friendlyName: job.title,
    state: armStates[job.state],
    targetObjectName: job.targetName,
    targetObjectId: job.targetId,
    targetInstanceType: affectedTypeOf(job.targetId),
    startTime: toLocal(job.startedAt ?? job.createdAt, offsetMinutes),
    endTime: job.endedAt === undefined ? "" : toLocal(job.endedAt, offsetMinutes),
    errorCode: job.fault?.id ?? "",
    errorMessage: job.fault?.message ?? "",
    recommendedAction: job.fault?.action ?? "",
  };
}

function toLocal(at: string, offsetMinutes: number): string {
  if (offsetMinutes === 0) return at;
  const size = Math.abs(offsetMinutes);
  const digits = (count: number): string => String(count).padStart(2, "0");
  const zone = `${offsetMinutes < 0 ? "-" : "+"}${digits(Math.floor(size / 60))}:${digits(size % 60)}`;
  return toTimestamp(fromTimestamp(at) + offsetMinutes * 60_000).replace("Z", zone);
}

function toXml(rows: readonly Row[]): string {
  // XML 1.0 has no words for other control characters.
  const clean = (value: string): string => escapeXml(value.replaceAll(/[^\t\n\r\u0020-\uFFFD]/g, " "));
  const jobs = rows.map((row) => {
    const cells = Object.entries(row).map(([name, value]) => `    <${name}>${clean(value)}</${name}>`);
    return `  <job>\n${cells.join("\n")}\n  </job>`;
  });
  return `<?xml version="1.0" encoding="utf-8"?>\n<jobs>\n${jobs.join("\n")}\n</jobs>\n`;
}
