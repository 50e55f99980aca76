// Asynchronous operations as ARM clients poll them: begun before the work, ended once, kept.

import type { Kysely, Selectable } from "kysely";
import { assert } from "../../base/assert.ts";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { toReport, type Fault, type FaultReport } from "../../contract/errors.ts";
import type { JsonObject } from "./resources.ts";
import type { OperationTable, Tables } from "./tables.ts";

export interface Operation {
  readonly operationId: string;
  readonly resourceId: string;
  readonly action: string;
  readonly status: "InProgress" | "Succeeded" | "Failed" | "Canceled";
  readonly percent: number;
  readonly fault: FaultReport | undefined;
  /** Body of the final answer of an action, for example the resource that it changed. */
  readonly result: JsonObject | undefined;
  readonly startedAt: string;
  readonly endedAt: string | undefined;
}

/** Ending an operation a second time changes nothing: a job step that runs twice is no fault. */
export interface OperationStore {
  /** With `operationId` the call may be repeated: a known id is answered as it stands. */
  begin(wanted: { readonly resourceId: string; readonly action: string; readonly operationId?: string }): Promise<Operation>;
  /** An operation that has succeeded already; answers its id. Durable on return, or with the commit of `transaction`. */
  record(
    done: { readonly resourceId: string; readonly action: string; readonly result: JsonObject },
    transaction?: Kysely<Tables>,
  ): Promise<string>;
  progress(operationId: string, percent: number): Promise<void>;
  succeed(operationId: string, result?: JsonObject): Promise<void>;
  fail(operationId: string, fault: Fault): Promise<void>;
  cancel(operationId: string): Promise<void>;
  find(operationId: string): Promise<Operation | undefined>;
  /** Oldest first; for taking up work after a start. */
  inProgress(): Promise<readonly Operation[]>;
}

const inProgressMax = 10_000;

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly clock: Clock;
  readonly random: Random;
}

export function openOperationStore(dependencies: Dependencies): OperationStore {
  const { db } = dependencies;
  return {
    begin: (wanted) => begin(dependencies, wanted),
    record: async ({ resourceId, action, result }, transaction = db) => {
      const operationId = dependencies.random.uuid();
      const now = toTimestamp(dependencies.clock.nowMs());
      const row = { operation_id: operationId, resource_id: resourceId, action, status: "Succeeded", percent: 100, fault: null } as const;
      await transaction
        .insertInto("operations")
        .values({ ...row, result: JSON.stringify(result), started_at: now, ended_at: now })
        .execute();
      return operationId;
    },
    progress: async (operationId, percent) => {
      await db
        .updateTable("operations")
        .set({ percent })
        .where("operation_id", "=", operationId)
        .where("status", "=", "InProgress")
        .execute();
    },
    succeed: (operationId, result) => end(dependencies, operationId, { status: "Succeeded", result }),
    fail: (operationId, fault) => end(dependencies, operationId, { status: "Failed", fault: toReport(fault) }),
    cancel: (operationId) => end(dependencies, operationId, { status: "Canceled" }),
    find: (operationId) => find(db, operationId),
    inProgress: async () => {
      const query = db.selectFrom("operations").selectAll().where("status", "=", "InProgress");
      return (await query.orderBy("started_at").limit(inProgressMax).execute()).map(fromRow);
    },
  };
}

async function find(db: Kysely<Tables>, operationId: string): Promise<Operation | undefined> {
  const row = await db.selectFrom("operations").selectAll().where("operation_id", "=", operationId).executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

async function begin(
  { db, clock, random }: Dependencies,
  wanted: { readonly resourceId: string; readonly action: string; readonly operationId?: string },
): Promise<Operation> {
  const operationId = wanted.operationId ?? random.uuid();
  await db
    .insertInto("operations")
    .values({
      operation_id: operationId,
      resource_id: wanted.resourceId,
      action: wanted.action,
      status: "InProgress",
      percent: 0,
      fault: null,
      result: null,
      started_at: toTimestamp(clock.nowMs()),
      ended_at: null,
    })
    .onConflict((conflict) => conflict.column("operation_id").doNothing())
    .execute();
  const begun = await find(db, operationId);
  assert(begun !== undefined, `operation ${operationId} was inserted`);
  return begun;
}

async function end(
  { db, clock }: Dependencies,
  operationId: string,
  outcome: {
    readonly status: "Succeeded" | "Failed" | "Canceled";
    readonly fault?: FaultReport;
    readonly result?: JsonObject | undefined;
  },
): Promise<void> {
  await db
    .updateTable("operations")
    .set({
      status: outcome.status,
      ...(outcome.status === "Succeeded" ? { percent: 100 } : {}),
      fault: outcome.fault === undefined ? null : JSON.stringify(outcome.fault),
      result: outcome.result === undefined ? null : JSON.stringify(outcome.result),
      ended_at: toTimestamp(clock.nowMs()),
    })
    .where("operation_id", "=", operationId)
    .where("status", "=", "InProgress")
    .execute();
}

function fromRow(row: Selectable<OperationTable>): Operation {
  return {
    operationId: row.operation_id,
    resourceId: row.resource_id,
    action: row.action,
    status: row.status,
    percent: row.percent,
    fault: row.fault ?? undefined,
    result: row.result ?? undefined,
    startedAt: row.started_at,
    endedAt: row.ended_at ?? undefined,
  };
}
