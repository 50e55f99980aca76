// Orders to appliances: a durable queue in the database, given until answered, answered once.

import type { Kysely, Selectable } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ApplianceId, OrderId } from "../../contract/ids.ts";
import {
  applianceOrderResultShape,
  applianceOrderShape,
  type ApplianceOrder,
  type ApplianceOrderResult,
} from "../../contract/appliance-protocol.ts";
import { notify, type Notifications } from "./notifications.ts";
import type { OrderTable, Tables } from "./tables.ts";

export interface OrderState {
  readonly orderId: string;
  readonly applianceId: string;
  readonly order: ApplianceOrder;
  /** undefined until the appliance has answered. */
  readonly result: ApplianceOrderResult | undefined;
  readonly percent: number;
  readonly progressText: string;
  readonly createdAt: string;
  readonly endedAt: string | undefined;
}

/** The job that gives an order and its transaction. */
export interface OrderOrigin {
  readonly db: Kysely<Tables>;
  /** The order is withdrawn with this job; null for one that outlives its job. */
  readonly jobId: string | null;
}

export interface OrderQueue {
  /** Durable on return, or with the commit of the transaction given. The same orderId again changes nothing; with another content it is Fault StateConflict. */
  enqueue(applianceId: ApplianceId, order: ApplianceOrder, from?: OrderOrigin): Promise<void>;
  /** Resolves once the appliance has answered, at once when it already has. Fault NotFound for an unknown order. */
  result(orderId: OrderId, signal: AbortSignal): Promise<ApplianceOrderResult>;
  find(orderId: OrderId): Promise<OrderState | undefined>;
  /** Orders without a result, oldest first; waits until there is one, waitMs passed or the signal aborts. */
  waitQueued(
    applianceId: ApplianceId,
    waitMs: number,
    signal: AbortSignal,
    /** The answer before was lost: what was given with it is given again now. An order that the appliance has is carried out once all the same. */
    given?: { readonly isLost: boolean },
  ): Promise<readonly ApplianceOrder[]>;
  /** Stores a result. The first one stands; results of other appliances' orders are refused. */
  answer(applianceId: ApplianceId, result: ApplianceOrderResult): Promise<void>;
  progress(
    applianceId: ApplianceId,
    progress: { readonly orderId: OrderId; readonly percent: number; readonly text: string },
  ): Promise<void>;
}

interface Dependencies {
  readonly db: Kysely<Tables>;
  readonly notifications: Notifications;
  readonly clock: Clock;
}

/** As many as one poll's answer may carry (contract/appliance-protocol.ts). */
const ordersPerPollMax = 64;
const orderTopic = (orderId: string): string => `order:${orderId}`;
const queueTopic = (applianceId: string): string => `orders:${applianceId}`;
/** Bounds what a lost notification can cost. */
const recheckMs = 5_000;
const giveAgainMs = 30_000;

export function openOrderQueue(dependencies: Dependencies): OrderQueue {
  const { db, clock } = dependencies;
  return {
    enqueue: async (applianceId, order, from) => {
      if (from !== undefined) await enqueue(from.db, clock, { applianceId, order, jobId: from.jobId });
      else await db.transaction().execute(async (own) => await enqueue(own, clock, { applianceId, order, jobId: null }));
    },
    find: (orderId) => find(db, orderId),
    result: async (orderId, signal) => {
      for (;;) {
        const waiting = openWait(dependencies, orderTopic(orderId));
        using _ = waiting;
        const state = await find(db, orderId);
        if (state === undefined)
          throw new Fault("NotFound", `could not wait for order ${orderId}: it is unknown`, { evidence: { orderId } });
        if (state.result !== undefined) return state.result;
        await waiting.wait(recheckMs, signal);
        signal.throwIfAborted();
      }
    },
    waitQueued: async (applianceId, waitMs, signal, { isLost } = { isLost: false }) => {
      const endMs = clock.monotonicMs() + waitMs;
      for (;;) {
        const waiting = openWait(dependencies, queueTopic(applianceId));
        using _ = waiting;
        const queued = await takeQueued(dependencies, applianceId, isLost ? 0 : giveAgainMs);
        const leftMs = endMs - clock.monotonicMs();
        if (queued.length > 0 || leftMs <= 0 || signal.aborted) return queued;
        await waiting.wait(Math.min(leftMs, recheckMs), signal);
      }
    },
    answer: (applianceId, result) => answer(dependencies, applianceId, result),
    progress: async (applianceId, progress) => {
      await db
        .updateTable("orders")
        .set({ percent: progress.percent, progress_text: progress.text, given_at: toTimestamp(clock.nowMs()) })
        .where("order_id", "=", progress.orderId)
        .where("appliance_id", "=", applianceId)
        .where("state", "=", "queued")
        .execute();
      await notify(db, orderTopic(progress.orderId));
    },
  };
}

async function enqueue(
  transaction: Kysely<Tables>,
  clock: Clock,
  given: { readonly applianceId: ApplianceId; readonly order: ApplianceOrder; readonly jobId: string | null },
): Promise<void> {
  const { applianceId, order, jobId } = given;
  const inserted = await transaction
    .insertInto("orders")
    .values({
      order_id: order.orderId,
      appliance_id: applianceId,
      kind: order.kind,
      body: JSON.stringify(order),
      state: "queued",
      percent: 0,
      progress_text: "",
      result: null,
      created_at: toTimestamp(clock.nowMs()),
      given_at: null,
      ended_at: null,
      job_id: jobId,
    })
    .onConflict((conflict) => conflict.column("order_id").doNothing())
    .returning("order_id")
    .executeTakeFirst();
  if (inserted === undefined) {
    const present = await transaction.selectFrom("orders").selectAll().where("order_id", "=", order.orderId).executeTakeFirstOrThrow();
    if (present.appliance_id !== applianceId || present.kind !== order.kind)
      throw new Fault("StateConflict", `could not give order ${order.orderId}: another order has this id`, {
        evidence: { orderId: order.orderId, presentKind: present.kind },
        retry: "never",
      });
  }
  await notify(transaction, queueTopic(applianceId));
}

async function find(db: Kysely<Tables>, orderId: OrderId): Promise<OrderState | undefined> {
  const row = await db.selectFrom("orders").selectAll().where("order_id", "=", orderId).executeTakeFirst();
  return row === undefined ? undefined : fromRow(row);
}

/** An order that was given and not spoken of since is given again: its answer, or the appliance's memory of it, was lost. */
async function takeQueued({ db, clock }: Dependencies, applianceId: ApplianceId, silentMs: number): Promise<readonly ApplianceOrder[]> {
  const forgottenBefore = toTimestamp(clock.nowMs() - silentMs);
  const rows = await db
    .selectFrom("orders")
    .selectAll()
    .where("appliance_id", "=", applianceId)
    .where("state", "=", "queued")
    .where((where) => where.or([where("given_at", "is", null), where("given_at", silentMs === 0 ? "<=" : "<", forgottenBefore)]))
    .orderBy("sequence")
    .limit(ordersPerPollMax)
    .execute();
  if (rows.length === 0) return [];
  const ids = rows.map((row) => row.order_id);
  await db
    .updateTable("orders")
    .set({ given_at: toTimestamp(clock.nowMs()) })
    .where("order_id", "in", ids)
    .execute();
  return rows.map((row) => fromRow(row).order);
}

async function answer({ db, clock }: Dependencies, applianceId: ApplianceId, result: ApplianceOrderResult): Promise<void> {
  await db
    .updateTable("orders")
    .set({ state: "done", percent: 100, result: JSON.stringify(result), ended_at: toTimestamp(clock.nowMs()) })
    .where("order_id", "=", result.orderId)
    .where("appliance_id", "=", applianceId)
    .where("state", "=", "queued")
    .execute();
  await notify(db, orderTopic(result.orderId));
}

function fromRow(row: Selectable<OrderTable>): OrderState {
  return {
    orderId: row.order_id,
    applianceId: row.appliance_id,
    order: applianceOrderShape.parse(row.body),
    result: row.result === null ? undefined : applianceOrderResultShape.parse(row.result),
    percent: row.percent,
    progressText: row.progress_text,
    createdAt: row.created_at,
    endedAt: row.ended_at ?? undefined,
  };
}

/** Subscribes before the state is read, so that a change in between is not missed. */
function openWait(
  { notifications, clock }: Dependencies,
  topic: string,
): Disposable & { wait(waitMs: number, signal: AbortSignal): Promise<void> } {
  const woken = new AbortController();
  const subscription = notifications.subscribe(topic, () => woken.abort());
  return {
    wait: async (waitMs, signal) => {
      await clock.sleep(waitMs, AbortSignal.any([woken.signal, signal])).catch(() => undefined); // Woken or aborted: the caller looks.
    },
    [Symbol.dispose]: () => subscription[Symbol.dispose](),
  };
}
