// Orders from the hub, kept until their result was told: what a killed appliance had under way is taken up again.

import {
  applianceOrderResultShape,
  applianceOrderShape,
  type ApplianceOrder,
  type ApplianceOrderResult,
} from "../../contract/appliance-protocol.ts";
import { readJson, readText, type StateDatabase } from "../state/database.ts";

const toldOrdersKeptMax = 5000;

export interface HubOrders {
  /** Keeps an order; false when it was known already. */
  accept(order: ApplianceOrder): boolean;
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
    accept: (order) => {
      const isKnown = database.one("SELECT 1 AS known FROM hub_order WHERE id = ?", order.orderId) !== undefined;
      if (isKnown) return false;
      database.run(
        "INSERT INTO hub_order (id, place, body) VALUES (?, (SELECT coalesce(max(place), 0) + 1 FROM hub_order), ?)",
        order.orderId,
        JSON.stringify(order),
      );
      return true;
    },
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
