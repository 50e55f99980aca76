// Gives an appliance an order from a job step: once, however often the step runs, and under the job's lease.

import { createHash } from "node:crypto";
import { sql } from "kysely";
import { Fault, fromReport, toReport } from "../../contract/errors.ts";
import { knowsOrder, tooOldFor } from "../../contract/appliance-versions.ts";
import { parseApplianceId, parseOrderId, type ApplianceId, type OrderId } from "../../contract/ids.ts";
import type { ApplianceOrder, ApplianceOrderResult } from "../../contract/appliance-protocol.ts";
import { notify } from "../db/notifications.ts";
import type { Queryable, StepContext } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { inSpan } from "../telemetry/traces.ts";

type Without<Order, Key extends PropertyKey> = Order extends unknown ? Omit<Order, Key> : never;
/** An order that has no id and no fencing number yet. */
export type OrderDraft = Without<ApplianceOrder, "orderId" | "fencingNumber" | "traceparent">;
export type DoneResult = Extract<ApplianceOrderResult, { outcome: "done" }>;

export interface OrderWish {
  readonly applianceId: string;
  readonly draft: OrderDraft;
  /** Tells this order from the job's others; the order's id follows from job and label. */
  readonly label: string;
  readonly waitSecondsMax: number;
  readonly pollMs: number;
  /** For undos: a failure that is stored already is followed by a new order, so that trying the undo again does something. */
  readonly isRepeated?: boolean;
}

/** Several hundred jobs may wait at once. What ends a wait rings; what they look for by the clock is progress, for people. */
export const looksApart = 5;
const attemptsMax = 3;
const repeatsMax = 50;

/** Waits for the result. A fault that may pass at once (an agent that restarted) is met with a new order, a bounded number of times. */
export async function giveOrder(services: HubServices, context: StepContext<object, object>, wish: OrderWish): Promise<DoneResult> {
  const last = wish.isRepeated === true ? repeatsMax : attemptsMax;
  for (let attempt = 1; ; attempt++) {
    const orderId = orderIdOf(context.jobId, `${wish.label}/${attempt}`);
    const wasAnswered = wish.isRepeated === true && (await services.orders.find(orderId))?.result?.outcome === "failed";
    if (wasAnswered && attempt < last) continue;
    const result = await giveOnce(services, context, wish, orderId);
    if (result.outcome === "done") return result;
    const isWorthAnother = result.fault.retry === "now" || result.fault.id === "OrderInterrupted";
    if (!isWorthAnother || attempt >= attemptsMax) throw fromReport(result.fault);
    await context.log(`order ${wish.draft.kind} failed and is given again: ${result.fault.message}`);
  }
}

/** The newest result of an order that may have been given before, taking back one that nobody has fetched. For undos. */
export async function settleOrder(
  services: HubServices,
  context: StepContext<object, object>,
  wish: Omit<OrderWish, "draft">,
): Promise<ApplianceOrderResult | "never given"> {
  for (let attempt = attemptsMax; attempt >= 1; attempt--) {
    const orderId = orderIdOf(context.jobId, `${wish.label}/${attempt}`);
    if ((await services.orders.find(orderId)) === undefined) continue;
    await withdraw(services, context, orderId);
    return await waitForResult(services, context, orderId, wish);
  }
  return "never given";
}

/** Before a job begins: an appliance that is too old to know the order is told to be updated, at once. The order's own way refuses it too. */
export async function requireKnownOrder(services: HubServices, applianceId: ApplianceId, kind: ApplianceOrder["kind"]): Promise<void> {
  const { protocolVersion } = (await services.appliances.find(applianceId)) ?? {};
  if (protocolVersion !== undefined && !knowsOrder(protocolVersion, kind)) throw tooOldFor(kind, protocolVersion);
}

/** Leaves an order for an appliance that is silent: given when it comes back, also after the job's end; nothing waits for it. */
export async function leaveOrder(services: HubServices, context: StepContext<object, object>, wish: OrderWish): Promise<void> {
  const orderId = orderIdOf(context.jobId, `${wish.label}/1`);
  const order: ApplianceOrder = { ...wish.draft, orderId, fencingNumber: context.fence };
  await context.write(async (db) => await services.orders.enqueue(parseApplianceId(wish.applianceId), order, { db, jobId: null }));
}

export function isWithdrawn(result: ApplianceOrderResult): boolean {
  return result.outcome === "failed" && result.fault.id === "OrderWithdrawn";
}

/** UUID that follows from the job and the label, so that a step that runs again asks for the same order. */
function orderIdOf(jobId: string, label: string): OrderId {
  const hex = createHash("sha256").update(`${jobId}/${label}`).digest("hex");
  return parseOrderId(`${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`);
}

async function giveOnce(
  services: HubServices,
  context: StepContext<object, object>,
  wish: OrderWish,
  orderId: OrderId,
): Promise<ApplianceOrderResult> {
  const { kind } = wish.draft;
  const attributes = { "watari.order_id": orderId, "watari.order_kind": kind, "watari.appliance_id": wish.applianceId };
  return await inSpan(services.traces, { name: `order ${kind}`, kind: "producer", attributes }, async (span) => {
    const { traceparent } = span;
    const traced = traceparent === undefined ? {} : { traceparent };
    const order: ApplianceOrder = { ...wish.draft, orderId, fencingNumber: context.fence, ...traced };
    // The job's row stays locked until the order is stored: a hub that lost the job cannot give orders in its name.
    const give = async (db: Queryable): Promise<void> =>
      await services.orders.enqueue(parseApplianceId(wish.applianceId), order, { db, jobId: context.jobId });
    await context.write(give);
    const result = await waitForResult(services, context, orderId, wish);
    if (result.outcome === "failed") span.end(result.fault.id);
    return result;
  });
}

async function waitForResult(
  services: HubServices,
  context: StepContext<object, object>,
  orderId: OrderId,
  wish: Pick<OrderWish, "waitSecondsMax" | "pollMs" | "label" | "applianceId">,
): Promise<ApplianceOrderResult> {
  const { clock, orders } = services;
  const endsAtMs = clock.monotonicMs() + wish.waitSecondsMax * 1000;
  for (;;) {
    const state = await orders.find(orderId);
    if (state?.result !== undefined) return state.result;
    if (state !== undefined && state.percent > 0) await context.progress(state.percent, state.progressText);
    if (clock.monotonicMs() > endsAtMs)
      throw new Fault("ApplianceSilent", `waited ${wish.waitSecondsMax} s for an appliance to answer the order ${wish.label}`, {
        evidence: { orderId, applianceId: wish.applianceId, waitSecondsMax: wish.waitSecondsMax },
      });
    const limit = new AbortController();
    const signal = AbortSignal.any([context.signal, limit.signal]);
    const answered = orders.result(orderId, signal).then(
      () => undefined,
      () => undefined, // The order's state is read again above; the signal is looked at below.
    );
    await Promise.race([answered, clock.sleep(wish.pollMs * looksApart, context.signal)]);
    limit.abort();
    context.signal.throwIfAborted();
  }
}

/** Answers for the appliance when it has not fetched the order yet; otherwise its own answer is waited for. */
async function withdraw(services: HubServices, context: StepContext<object, object>, orderId: OrderId): Promise<void> {
  const fault = toReport(new Fault("OrderWithdrawn", "the order was withdrawn before the appliance fetched it"));
  const result: ApplianceOrderResult = { outcome: "failed", orderId, fault };
  await context.write(async (db) => {
    await sql`update orders set state = 'done', ended_at = clock_timestamp(), result = ${JSON.stringify(result)}::jsonb
      where order_id = ${orderId} and state = 'queued' and given_at is null`.execute(db);
    await notify(db, `order:${orderId}`);
  });
  services.log.info("order withdrawn unless given", { orderId });
}
