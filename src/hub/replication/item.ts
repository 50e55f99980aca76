// A protected item as it is stored: which machine, how it shall land, and where its replication stands.

import { sql, type RawBuilder, type Selectable } from "kysely";
import { z } from "zod";
import { machineFactsShape, replicationPolicyShape } from "../../contract/agent-control.ts";
import { Fault, type FaultReport } from "../../contract/errors.ts";
import { diskIdShape, faultReportShape, machineIdShape, pointIdShape } from "../../contract/shapes.ts";
import type { ResourceId } from "../api/resource-id.ts";
import { fromRow, type JsonObject, type Resource } from "../db/resources.ts";
import type { ResourceTable } from "../db/tables.ts";
import type { JobOutcome, Queryable } from "../jobs/job.ts";
import { settingsShape } from "./item-settings.ts";
import { itemType } from "./names.ts";

/** The documented protectionState strings that this hub uses. */
export const protectionStates = [
  "EnablingProtection",
  "EnablingFailed",
  "InitialReplicationInProgress",
  "Protected",
  "UnplannedFailoverInitiated",
  "UnplannedFailoverFailed",
  "UnplannedFailoverCommitPending",
  "ChangeRecoveryPointInitiated",
  "ChangeRecoveryPointFailed",
  "CancelFailoverInProgressOnRecovery",
  "CancelFailoverFailedOnRecovery",
  "CommitFailoverInProgressOnRecovery",
  "CommitFailoverFailedOnRecovery",
  "CommitFailoverCompleted",
  "DisablingProtection",
  "DisablingFailed",
] as const;
export type ProtectionState = (typeof protectionStates)[number];

export const testFailoverStates = [
  "None",
  "TestMigrationInProgress",
  "TestMigrationSucceeded",
  "TestMigrationFailed",
  "TestMigrationCleanupInProgress",
] as const;
export type TestFailoverState = (typeof testFailoverStates)[number];

const landingShape = z.object({
  landedName: z.string(),
  pointId: pointIdShape,
  endedAt: z.string(),
  /** When nobody has committed by then, the migration is cancelled. */
  commitBy: z.string().optional(),
});

const reversePointShape = z.object({
  pointId: pointIdShape,
  /** The instant that it shows. */
  time: z.string(),
  isFinal: z.boolean(),
  /** Of the landed disks. */
  readBytes: z.number(),
  storedBytes: z.number(),
  /** Disks whose writes were not known, so that all of each was read. */
  wholeDisks: z.number(),
});

const reverseShape = z.object({
  /** The final point of the way there. */
  basisPointId: pointIdShape,
  /** The newest ones, newest last. */
  points: z.array(reversePointShape),
  /** The landed machine is off and barred since this point was made, and what the source gets is this. */
  finalPointId: pointIdShape.optional(),
  /** What the source gets: the same without hydration's edits; absent: there are none. */
  returnPointId: pointIdShape.optional(),
  /** From then on the source may run: the landed machine is only started once the source was switched off again. */
  sourceOrderedAt: z.string().optional(),
  /** The source has the machine again. */
  returnedAt: z.string().optional(),
});
export type Reverse = z.infer<typeof reverseShape>;

export const itemShape = z.object({
  infrastructureId: z.string(),
  applianceId: z.string(),
  machineName: z.string(),
  smbiosUuid: z.string().default(""),
  runAsAccountId: z.string(),
  address: z.string().optional(),
  policyName: z.string(),
  machineId: machineIdShape.optional(),
  facts: machineFactsShape.optional(),
  protectionState: z.enum(protectionStates),
  testFailoverState: z.enum(testFailoverStates).default("None"),
  /** How it shall land. */
  target: z
    .object({
      name: z.string().optional(),
      size: z.string().optional(),
      networkId: z.string().optional(),
      testNetworkId: z.string().optional(),
      resourceGroupId: z.string().optional(),
    })
    .default({}),
  settings: settingsShape.prefault({}),
  /** Machines of one group make their points at one moment. */
  group: replicationPolicyShape.shape.group,
  /** Tells the same enable call again from another one. */
  wishDigest: z.string().optional(),
  test: landingShape.optional(),
  /** The last one that came to its end. */
  rehearsal: z.object({ jobId: z.string(), endedAt: z.string(), isPassed: z.boolean(), pointId: pointIdShape.optional() }).optional(),
  failover: landingShape.optional(),
  lastSuccessfulTestFailoverTime: z.string().optional(),
  lastSuccessfulFailoverTime: z.string().optional(),
  /** Disks, by the agent's ids, that are not replicated. */
  excludedDiskIds: z.array(diskIdShape).default([]),
  /** The way back after the commit. */
  reverse: reverseShape.optional(),
  /** Kind of the job that changes the replication while the states stay as they are: a resynchronisation, disks, the agent. */
  busyWith: z.string().optional(),
  /** Last time that the whole source was compared with the replica, and what had to be repaired. */
  resync: z.object({ endedAt: z.string(), startedAt: z.string(), repairedBlockCount: z.number() }).optional(),
  scenario: z.object({ scenarioName: z.string(), jobId: z.string(), startTime: z.string() }).optional(),
  /** Faults of the last job, cleared by the next success. */
  faults: z.array(faultReportShape).default([]),
});
export type Item = z.infer<typeof itemShape>;

export function parseItem(properties: JsonObject): Item {
  return itemShape.parse(properties);
}

/** Changes some properties of the item, within the caller's transaction; undefined values remove them. */
export async function patchItem(db: Queryable, id: ResourceId | string, change: Partial<Item>): Promise<void> {
  await patchStored(db, id, change, sql``);
}

/** As patchItem; answers the resource as it is then. */
export async function patchedItem(db: Queryable, id: ResourceId | string, change: Partial<Item>): Promise<Resource> {
  const { rows } = await patchStored(db, id, change, sql`returning *`);
  if (rows[0] === undefined) refuseMissing(id);
  return fromRow(rows[0]);
}

async function patchStored(db: Queryable, id: ResourceId | string, change: Partial<Item>, end: RawBuilder<unknown>) {
  const removed = Object.entries(change).flatMap(([name, value]) => (value === undefined ? [name] : []));
  return await sql<Selectable<ResourceTable>>`update resources set
    properties = (properties || ${JSON.stringify(change)}::jsonb) - ${removed}::text[],
    etag = '"' || gen_random_uuid() || '"', updated_at = clock_timestamp() where key = ${keyOf(id)} ${end}`.execute(db);
}

export async function readItem(db: Queryable, id: ResourceId | string): Promise<Item> {
  const found = await sql<{ properties: JsonObject }>`select properties from resources where key = ${keyOf(id)}`.execute(db);
  return parseItem((found.rows[0] ?? refuseMissing(id)).properties);
}

function refuseMissing(id: ResourceId | string): never {
  throw new Fault("NotFound", "could not find the protected item: it was removed", { evidence: { itemId: keyOf(id) } });
}

/** Protected items that might be the same machine, by vCenter's id or by BIOS id, in every vault. */
export async function findItemsOf(
  db: Queryable,
  machine: { readonly infrastructureId: string; readonly smbiosUuid: string },
): Promise<readonly { readonly id: string; readonly infrastructureId: string; readonly machineName: string }[]> {
  const found = await sql<{ id: string; infrastructureId: string; machineName: string }>`
    select id, properties->>'infrastructureId' as "infrastructureId", properties->>'machineName' as "machineName"
    from resources where type = ${itemType.toLowerCase()} and
      (properties->>'infrastructureId' = ${machine.infrastructureId}
        or (${machine.smbiosUuid} <> '' and properties->>'smbiosUuid' = ${machine.smbiosUuid}))`.execute(db);
  return found.rows;
}

/** The item that made a landed machine; undefined once it is gone. */
export async function findItemWithLanded(db: Queryable, id: string): Promise<Item | undefined> {
  const found = await sql<{ properties: JsonObject }>`select properties from resources where key = ${keyOf(id)}`.execute(db);
  return found.rows[0] === undefined ? undefined : parseItem(found.rows[0].properties);
}

/** Ids of items whose machine replicates through the appliance, whatever fabric they are in. */
export async function itemsServedBy(db: Queryable, applianceId: string, countMax: number): Promise<readonly string[]> {
  const found = await sql<{ id: string }>`select id from resources
    where type = ${itemType.toLowerCase()} and properties->>'applianceId' = ${applianceId} limit ${countMax}`.execute(db);
  return found.rows.map(({ id }) => id);
}

/** What a job's end means for the item's health: the faults of a failure, none after a success. */
export function faultsOf(outcome: JobOutcome): FaultReport[] {
  return outcome.kind === "succeeded" ? [] : [outcome.fault, ...outcome.undoFaults];
}

function keyOf(id: ResourceId | string): string {
  return typeof id === "string" ? id.toLowerCase() : id.key;
}
