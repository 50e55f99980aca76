// How a call on a protected item becomes a job: state, job and answer in one transaction under the item's lock.

import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { ArmCall } from "../api/resource-type.ts";
import { lockKey } from "../db/locks.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import type { Queryable } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { patchItem, readItem, type Item } from "./item.ts";
import { jobKeysOwner, keepUnlockKeys } from "./launch-settings.ts";
import { itemType, vaultOf } from "./names.ts";
import { presentItem } from "./present-item.ts";
import type { ReplicationFront } from "./world.ts";

export interface Accepted {
  readonly kind: "accepted";
  readonly operationId: string;
}

/** Who asks for an operation of an item: a call, or a job that runs it as one of several. */
export interface ItemCall extends Pick<ArmCall, "id"> {
  readonly caller: Pick<ArmCall["caller"], "name">;
  /** Of the operation's job: the same id again changes nothing. */
  readonly jobId?: string;
  /** The transaction of who asks, which commits only while it may; one of its own unless told. */
  readonly write?: (task: (db: Queryable) => Promise<string>) => Promise<string>;
}

export interface JobWish {
  /** Kind of the job. */
  readonly kind: string;
  /** What the job gets beside the item's id. */
  readonly parameters: object;
  /** What becomes of the item with the job's begin. */
  readonly change: Partial<Item>;
  /** Given with this call for its job alone: kept as a secret until that ends. */
  readonly unlockKeys?: readonly string[] | undefined;
}

/** The state and the job change together; the operation is checked again under the item's lock. */
export async function startJob(front: ReplicationFront, call: ItemCall, item: Item, wish: JobWish): Promise<Accepted> {
  const { services, engine } = front;
  const startTime = toTimestamp(services.clock.nowMs());
  const submit = async (db: Queryable): Promise<string> => {
    await lockKey(db, `item:${call.id.key}`);
    if (call.jobId !== undefined && (await readJob(db, call.jobId)) !== undefined) return call.jobId;
    const now = await readItem(db, call.id);
    const isSame =
      now.protectionState === item.protectionState && now.testFailoverState === item.testFailoverState && now.busyWith === item.busyWith;
    if (!isSame)
      throw new Fault("StateConflict", `could not change ${item.machineName}: another operation began meanwhile`, { retry: "now" });
    const { kind } = wish;
    const job = { kind, ...jobTarget(call.id, item.machineName, call.caller.name) };
    const parameters = { itemId: call.id.text, ...wish.parameters };
    const jobId = await engine.submit({ ...job, parameters, ...(call.jobId === undefined ? {} : { jobId: call.jobId }) }, db);
    await keepUnlockKeys(db, services.secrets, jobKeysOwner(call.id.text, jobId), wish.unlockKeys ?? []);
    await patchItem(db, call.id, { ...wish.change, scenario: { scenarioName: kind, jobId, startTime } });
    return jobId;
  };
  const operationId = await (call.write?.(submit) ?? services.database.db.transaction().execute(submit));
  return { kind: "accepted", operationId };
}

export function jobTarget(
  id: ResourceId,
  targetName: string,
  actor: string,
): { readonly scope: string; readonly targetId: string; readonly targetName: string; readonly lockKey: string; readonly actor: string } {
  return { scope: vaultOf(id).key, targetId: id.text, targetName, lockKey: id.key, actor };
}

export function machineOf(item: Item): { readonly applianceId: string; readonly machineId: string } {
  if (item.machineId === undefined) throw new Error("assertion failed: a protected item has its machine's id");
  return { applianceId: item.applianceId, machineId: item.machineId };
}

/** An operation that has succeeded already: ARM's writes of items are always asynchronous. `resource` is as it now is. */
export async function answerAtOnce(
  { services }: ReplicationFront,
  resource: Resource,
  action: string,
  transaction?: Queryable,
): Promise<Accepted & { readonly body: JsonObject }> {
  const body = presentResource(resource, itemType, await presentItem(services, resource, transaction));
  const operationId = await services.operations.record({ resourceId: resource.id.text, action, result: body }, transaction);
  return { kind: "accepted", operationId, body };
}
