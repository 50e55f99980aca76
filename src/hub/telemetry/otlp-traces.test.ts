// A collector that is away or silent costs spans, told in the log, and never keeps a hub from working or from stopping.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLog, type Log } from "../../base/log.ts";
import { openTraces } from "./otlp-traces.ts";

test("a collector that refuses or says nothing is told, and closing ends in time", async () => {
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => void sockets.add(socket.on("error", () => undefined)));
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  const { port } = silent.address() as AddressInfo; // A TCP server that listens has one.
  const closed = createServer();
  closed.listen(0, "127.0.0.1");
  await once(closed, "listening");
  const { port: closedPort } = closed.address() as AddressInfo;
  closed.close();
  const told: string[] = [];
  const log: Log = { ...silentLog, warn: (message) => void told.push(message) };
  await Promise.all(
    [port, closedPort].map(async (at) => {
      const config = { endpoint: `http://127.0.0.1:${at}/v1/traces`, sampleRatio: 1 };
      const traces = await openTraces({ config, clock: systemClock, log, instanceId: "one" });
      const startedMs = systemClock.monotonicMs();
      for (let index = 0; index < 10_000; index++) traces.start({ name: "x", kind: "internal", from: {}, attributes: {} }).end();
      assert.ok(systemClock.monotonicMs() - startedMs < 10_000); // Spans wait for nobody.
      await traces[Symbol.asyncDispose]();
      assert.ok(systemClock.monotonicMs() - startedMs < 30_000);
    }),
  );
  assert.ok(told.includes("traces not sent at the end"), told.join());
  for (const socket of sockets) socket.destroy();
  silent.close();
});

test("trace context is taken up, kept along awaits, and left alone outside", async () => {
  const config = { endpoint: "http://127.0.0.1:1/v1/traces", sampleRatio: 0 };
  await using traces = await openTraces({ config, clock: systemClock, log: silentLog, instanceId: "one" });
  const given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const outer = traces.start({ name: "request", kind: "server", from: { traceparent: given }, attributes: {} });
  assert.match(outer.traceparent ?? "", /^00-0af7651916cd43dd8448eb211c80319c-(?!b7ad6b7169203331)[0-9a-f]{16}-01$/);
  await outer.run(async () => {
    await systemClock.sleep(1);
    assert.equal(traces.current()?.traceparent, outer.traceparent);
    const inner = traces.start({ name: "step", kind: "internal", attributes: {} });
    assert.match(inner.traceparent ?? "", /^00-0af7651916cd43dd8448eb211c80319c-/);
    inner.end();
  });
  assert.equal(traces.current(), undefined);
  for (const bad of ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", `${given}\r\nx: y`]) {
    const own = traces.start({ name: "request", kind: "server", from: { traceparent: bad }, attributes: {} });
    assert.match(own.traceparent ?? "", /^00-(?!0af7651916cd43dd8448eb211c80319c)[0-9a-f]{32}-[0-9a-f]{16}-00$/, bad); // Of its own, not sampled.
    own.end();
  }
  outer.end();
});
