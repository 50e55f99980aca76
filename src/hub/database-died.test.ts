// The embedded database of a hub that runs is killed: callers hear that it is away, the hub starts it again, and every acknowledged write is there.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../base/clock.ts";
import { proveAudit } from "./db/audit-entries.ts";
import { codeOf, findFreePort, loopbackNetwork, openTestHub, type Answer } from "./test-client.ts";

/** Of a server that was killed; far above what it takes. */
const backMsMax = 60_000;

test("a hub starts its embedded database again when that was killed, and loses no acknowledged write", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-died-"));
  try {
    const hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() });
    await using _closing = hub.hub;
    const put = async (number: number): Promise<Answer> =>
      await hub.arm("PUT", `/subscriptions/${hub.operator.subscriptionId}/resourceGroups/group-${number}`, { location: "lab1" });
    const acknowledged: number[] = [];
    for (let number = 0; number < 5; number++) if ((await put(number)).status < 300) acknowledged.push(number);
    assert.equal(acknowledged.length, 5);
    const pidFile = join(stateDir, "pg", "data", "postmaster.pid");
    process.kill(Number((await readFile(pidFile, "utf8")).split("\n", 1)[0]), "SIGKILL");
    const startedMs = systemClock.monotonicMs();
    for (let number = 5; acknowledged.length < 7; number++) {
      const answer = await put(number);
      if (answer.status < 300) acknowledged.push(number);
      else assert.deepEqual([answer.status, codeOf(answer)], [503, "DatabaseUnavailable"]);
      assert.ok(systemClock.monotonicMs() - startedMs < backMsMax, "the database came back");
    }
    const listed = await hub.arm("GET", `/subscriptions/${hub.operator.subscriptionId}/resourceGroups`);
    const text = JSON.stringify(listed.body);
    for (const number of acknowledged) assert.ok(text.includes(`"group-${number}"`), `group-${number} is there`);
    assert.equal((await proveAudit(hub.hub.services.database.db, undefined)).kind, "whole");
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});
