// The versions of the appliance protocol: five are spoken, a newer one and an older one are told what to update.

import assert from "node:assert/strict";
import { test } from "node:test";
import { knowsOrder, offerOf, requireProtocolVersion } from "./appliance-versions.ts";
import { Fault } from "./errors.ts";

test("a hub speaks its own version and the four before, and never one below the first", () => {
  assert.deepEqual(offerOf(1), { oldest: 1, newest: 1 });
  assert.deepEqual(offerOf(9), { oldest: 5, newest: 9 });
  for (let version = 5; version <= 9; version += 1) requireProtocolVersion(version, "poll", offerOf(9));
});

test("an appliance outside the offer is refused, and the one to update is named", () => {
  const isRefused = (action: RegExp) => (error: unknown) =>
    error instanceof Fault && error.code === "ProtocolVersionUnsupported" && error.httpStatus === 409 && action.test(error.action);
  assert.throws(() => requireProtocolVersion(10, "poll", offerOf(9)), isRefused(/update the hub/));
  for (const version of [0, 1, 4])
    assert.throws(() => requireProtocolVersion(version, "poll", offerOf(9)), isRefused(/update the appliance/));
});

test("an appliance gets only orders that its version knows", () => {
  const since = { unfence: 6 };
  for (let version = 5; version <= 9; version += 1) {
    assert.equal(knowsOrder(version, "unfence", since), version >= 6);
    assert.equal(knowsOrder(version, "protect", since), true);
  }
});
