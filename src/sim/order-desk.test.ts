// Orders of a simulated appliance, as the hub may give them: twice, late, and again after their result was told.

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemRandom } from "../base/random.ts";
import type { ApplianceOrder, ApplianceOrderResult } from "../contract/appliance-protocol.ts";
import { parseOrderId } from "../contract/ids.ts";
import { OrderDesk } from "./order-desk.ts";

function discover(): ApplianceOrder {
  return { kind: "discover", orderId: parseOrderId(systemRandom.uuid()) };
}

test("OrderDesk carries an order out once, and tells its result again when it is given again", async () => {
  const obeyed: string[] = [];
  const desk = new OrderDesk(async ({ orderId }): Promise<ApplianceOrderResult> => {
    obeyed.push(orderId);
    return { outcome: "done", orderId };
  });
  const [first, second] = [discover(), discover()];
  desk.take([first, first, second]);
  const signal = new AbortController().signal;
  while (desk.isBusy) await desk.waitResult(signal);
  assert.deepEqual(obeyed, [first.orderId, second.orderId]);
  assert.equal(desk.untold(1).length, 1);
  assert.equal(desk.untold(64).length, 2);
  desk.markTold([first.orderId, second.orderId]);
  assert.deepEqual(desk.untold(64), []);
  desk.take([second]);
  assert.deepEqual(
    desk.untold(64).map(({ orderId }) => orderId),
    [second.orderId],
  );
  assert.equal(obeyed.length, 2);
});

test("OrderDesk lets a waiter go when it is aborted", async () => {
  const desk = new OrderDesk(async () => await new Promise<never>(() => undefined));
  desk.take([discover()]);
  const ending = new AbortController();
  const waiting = desk.waitResult(ending.signal);
  ending.abort();
  await waiting;
  assert.deepEqual([desk.isBusy, desk.untold(64)], [true, []]);
});
