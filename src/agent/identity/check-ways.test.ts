// Promises of the agent's check of its ways: each hop of a good way, the first that fails with its repair, and the rest as not tried.

import assert from "node:assert/strict";
import type { AddressInfo } from "node:net";
import { after, before, describe, it } from "node:test";
import { createServer, type Server } from "node:https";
import { systemClock, type Clock } from "../../base/clock.ts";
import { createAuthority, type Authority } from "../../connectivity/test-certificates.ts";
import { checkAgentWays } from "./check-ways.ts";

let authority: Authority;
let server: Server;
let port: number;

before(async () => {
  authority = await createAuthority("site");
  const { cert, key } = await authority.issue(["appliance.watari.internal"]);
  server = createServer({ cert, key, requestCert: true, rejectUnauthorized: false }, (_request, response) => {
    response.statusCode = 404;
    response.end();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  ({ port } = server.address() as AddressInfo); // A TCP server has a port.
});
after(async () => {
  server.closeAllConnections();
  await new Promise<void>((resolve) => void server.close(() => resolve()));
});

async function check(over: { readonly caPem?: string; readonly controlPort?: number; readonly clock?: Clock }): Promise<readonly string[]> {
  const { caPem = authority.caPem, controlPort = port, clock = systemClock } = over;
  const checks = await checkAgentWays({ host: "127.0.0.1", controlPort, dataPort: port, trust: { authorityPem: caPem }, clock });
  assert.ok(checks.every(({ verdict, repair }) => (verdict === "fail") === (repair !== undefined)));
  return checks.map(({ id, verdict, fault }) => [id, verdict, ...(fault === undefined ? [] : [fault.id])].join(" "));
}

const dataPasses = ["appliance data/dns pass", "appliance data/tcp pass", "appliance data/tls pass"];

describe("The agent's check of its ways", () => {
  it("passes each hop of ways that hold", async () => {
    const control = ["dns", "tcp", "tls", "http", "clock", "packets"].map((hop) => `appliance control/${hop} pass`);
    assert.deepEqual(await check({}), [...control, ...dataPasses]);
  });

  it("names the hop that fails: nothing listens, another authority, a clock that is off", async () => {
    const rest = (...hops: readonly string[]): readonly string[] => hops.map((hop) => `appliance control/${hop} skipped`);
    const free = createServer();
    await new Promise<void>((resolve) => void free.listen(0, "127.0.0.1", resolve));
    const { port: closedPort } = free.address() as AddressInfo; // A TCP server has a port.
    await new Promise<void>((resolve) => void free.close(() => resolve()));
    assert.deepEqual(await check({ controlPort: closedPort }), [
      "appliance control/dns pass",
      "appliance control/tcp fail ConnectionFailed",
      ...rest("tls", "http", "clock", "packets"),
      ...dataPasses,
    ]);
    const other = await check({ caPem: (await createAuthority("other")).caPem });
    assert.deepEqual(other.slice(0, 6), [
      "appliance control/dns pass",
      "appliance control/tcp pass",
      "appliance control/tls fail ConnectionFailed",
      ...rest("http", "clock", "packets"),
    ]);
    const late = { ...systemClock, nowMs: () => systemClock.nowMs() + 3600_000 };
    assert.deepEqual((await check({ clock: late })).slice(3, 6), [
      "appliance control/http pass",
      "appliance control/clock fail ClockSkewed",
      ...rest("packets"),
    ]);
  });
});
