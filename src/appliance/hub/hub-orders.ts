// Orders from the hub, kept until their result was told: what a killed appliance had under way is taken up again.

import {
  applianceOrderResultShape,
  applianceOrderShape,
  type ApplianceOrder,
  type ApplianceOrderResult,
} from "../../contract/appliance-protocol.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { readJson, readText, type StateDatabase } from "../state/database.ts";

const toldOrdersKeptMax = 5000;

export interface HubOrders {
  /**
   * Keeps an order; known when it was kept before. One with an older fencing number than an order for the same machine before it is
   * stale: it is kept with the result StaleOrder and is not to be carried out.
   */
  accept(order: ApplianceOrder): "new" | "known" | "stale";
  /** Orders without a result, oldest first. */
  open(): readonly ApplianceOrder[];
  finish(result: ApplianceOrderResult): void;
  /** An order that is given again after its result was told wants the result once more. */
  tellAgain(orderId: string): void;
  untold(countMax: number): readonly ApplianceOrderResult[];
  markTold(orderIds: readonly string[]): void;
}

export function createHubOrders(database: StateDatabase): HubOrders {
  return {
    accept: (order) => database.transaction(() => accept(database, order)),
    open: () =>
      database
        .all("SELECT body FROM hub_order WHERE result IS NULL ORDER BY place")
        .map((row) => readJson(applianceOrderShape, row, "body")),
    finish: (result) =>
      database.run("UPDATE hub_order SET result = ? WHERE id = ? AND result IS NULL", JSON.stringify(result), result.orderId),
    tellAgain: (orderId) => database.run("UPDATE hub_order SET is_told = 0 WHERE id = ? AND result IS NOT NULL", orderId),
    untold: (countMax) =>
      database
        .all("SELECT result FROM hub_order WHERE result IS NOT NULL AND is_told = 0 ORDER BY place LIMIT ?", countMax)
        .map((row) => readJson(applianceOrderResultShape, row, "result")),
    markTold: (orderIds) =>
      database.transaction(() => {
        for (const orderId of orderIds) database.run("UPDATE hub_order SET is_told = 1 WHERE id = ?", orderId);
        const oldest = database.one(
          "SELECT id, place FROM hub_order WHERE is_told = 1 ORDER BY place DESC LIMIT 1 OFFSET ?",
          toldOrdersKeptMax,
        );
        if (oldest !== undefined)
          database.run(
            "DELETE FROM hub_order WHERE is_told = 1 AND place <= (SELECT place FROM hub_order WHERE id = ?)",
            readText(oldest, "id"),
          );
      }),
  };
}

function accept(database: StateDatabase, order: ApplianceOrder): "new" | "known" | "stale" {
  if (database.one("SELECT 1 AS known FROM hub_order WHERE id = ?", order.orderId) !== undefined) return "known";
  const highest = raiseFence(database, order);
  const isStale = order.fencingNumber !== undefined && order.fencingNumber < highest;
  database.run(
    "INSERT INTO hub_order (id, place, body, result) VALUES (?, (SELECT coalesce(max(place), 0) + 1 FROM hub_order), ?, ?)",
    order.orderId,
    JSON.stringify(order),
    isStale ? JSON.stringify(staleResult(order, highest)) : null,
  );
  return isStale ? "stale" : "new";
}

/** What orders of several hubs must not undo to each other; undefined for those that change nothing. */
function subjectOf(order: ApplianceOrder): string | undefined {
  if ("machineId" in order) return order.machineId;
  if ("infrastructureId" in order) return order.infrastructureId;
  return "vcenterId" in order ? `vcenter ${order.vcenterId}` : undefined;
}

/** Answers the highest number of any order for the machine, this one included. Orders that no job gave have none and are not compared. */
function raiseFence(database: StateDatabase, order: ApplianceOrder): number {
  const machine = subjectOf(order);
  if (machine === undefined || order.fencingNumber === undefined) return 0;
  const row = database.one(
    `INSERT INTO hub_fence (machine, number) VALUES (?, ?)
     ON CONFLICT (machine) DO UPDATE SET number = max(number, excluded.number) RETURNING number`,
    machine,
    order.fencingNumber,
  );
  return Number(row?.["number"] ?? 0);
}

function staleResult(order: ApplianceOrder, highestNumber: number): ApplianceOrderResult {
  const fault = new Fault("StaleOrder", `could not carry out the order ${order.kind}: a newer hub has given orders for this machine`, {
    evidence: { fencingNumber: order.fencingNumber ?? 0, highestNumber },
  });
  return { outcome: "failed", orderId: order.orderId, fault: toReport(fault) };
}
