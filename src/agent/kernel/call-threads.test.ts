// Calls made at once: they run beside each other, each answers for itself, and this thread goes on meanwhile.

import assert from "node:assert/strict";
import { constants } from "node:os";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { openCallThreads } from "./call-threads.ts";
import { openSystemCalls } from "./system-calls.ts";

const calls = openSystemCalls();
const threads = openCallThreads(calls, systemClock);

test("callTogether tells of each call whether the kernel refused it", async () => {
  const [closed, synced] = await threads.callTogether([
    { name: "close", values: [1_000_000] },
    { name: "sync", values: [] },
  ]);
  assert.equal(closed?.refused?.errorNumber, constants.errno.EBADF);
  assert.equal(closed.refused.errorName, "EBADF");
  assert.equal(synced?.refused, undefined);
});

test("callTogether makes calls beside each other, and many in turns", async () => {
  // Each waits for the others: one after the other, the first would wait for ever.
  const meeting = new Int32Array(new SharedArrayBuffer(4));
  const address = calls.addressOf(new Uint8Array(meeting.buffer));
  const [wait, wake] = [0, 1];
  const waits = Array.from({ length: 7 }, () => ({ name: "futex" as const, values: [address, wait, 0, 0] }));
  const waiting = threads.callTogether(waits);
  let woken = 0;
  while (woken < waits.length) {
    woken += Number(calls.call("futex", address, wake, waits.length));
    await systemClock.sleep(1);
  }
  for (const { refused } of await waiting) assert.equal(refused, undefined);
  const many = await threads.callTogether(Array.from({ length: 40 }, () => ({ name: "close" as const, values: [1_000_000] })));
  assert.equal(many.filter(({ refused }) => refused?.errorName === "EBADF").length, 40);
});
