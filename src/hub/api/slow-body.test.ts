// Callers that are slow on purpose: a body that comes byte by byte is cut off in time, and others are answered meanwhile.

import assert from "node:assert/strict";
import { connect, type AddressInfo } from "node:net";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { createHttpFace } from "./api-server.ts";

const bodyMsMax = 300;
const slowCallers = 50;

test("a face cuts off bodies that never end, and answers others meanwhile", async () => {
  const face = createHttpFace({ log: silentLog, random: systemRandom, bodyMsMax });
  face.post("/", (request, reply) => void reply.send({ got: request.body }));
  await face.listen({ host: "127.0.0.1", port: 0 });
  try {
    const { port } = face.server.address() as AddressInfo; // A listening TCP server's address has this form.
    const startedMs = systemClock.monotonicMs();
    const slow = Array.from({ length: slowCallers }, async () => {
      const socket = connect(port, "127.0.0.1");
      const closed = new Promise((resolve) => socket.once("close", resolve)); // events.once would fail with the reset.
      socket.on("error", () => undefined); // It is cut off, which is what is looked for.
      socket.write('POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"a":');
      // A byte now and then: the connection is never idle.
      const drip = new AbortController();
      void (async () => {
        while (!drip.signal.aborted) {
          if (socket.writable) socket.write(" ");
          await systemClock.sleep(bodyMsMax / 10, drip.signal).catch(() => undefined); // Ends with the connection.
        }
      })();
      await closed;
      drip.abort();
      return systemClock.monotonicMs() - startedMs;
    });
    const answer = await fetch(`http://127.0.0.1:${port}/`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"a":1}',
    });
    assert.deepEqual([answer.status, await answer.json()], [200, { got: { a: 1 } }]);
    for (const livedMs of await Promise.all(slow)) assert.ok(livedMs >= bodyMsMax * 0.9, "nobody was cut off too early");
  } finally {
    await face.close();
  }
});
