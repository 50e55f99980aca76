// What traces cost: the load of bench/hub-load.ts without them and with them, in turns, against a collector that takes everything.
// Run: node bench/hub-traces.ts [--rounds 2] [--seconds 15]

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { measureLoad } from "./hub-load.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "2" }, seconds: { type: "string", default: "15" } } });

let spans = 0;
const server = createServer((call, answer) => {
  let text = "";
  call.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  call.on("end", () => {
    spans += text.split('"spanId"').length - 1;
    answer.writeHead(200, { "content-type": "application/json" }).end("{}");
  });
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
const address = server.address();
assert.ok(typeof address === "object" && address !== null);
const traced = { traces: { endpoint: `http://127.0.0.1:${address.port}/v1/traces` } };

const wish = { itemCount: 500, eventCount: 5000, perSecond: 200, seconds: Number(values.seconds), leakRequests: 2000 };
for (let round = 1; round <= Number(values.rounds); round++)
  for (const [name, sections] of [
    ["without", {}],
    ["with", traced],
  ] as const) {
    spans = 0;
    const { kinds, hubCpuMsPerRequest } = await measureLoad({ ...wish, sections });
    const figures = kinds.map(({ kind, p50Ms, p99Ms }) => `${kind} ${p50Ms.toFixed(1)}/${p99Ms.toFixed(1)}`);
    process.stdout.write(
      `${round} ${name}: CPU ${hubCpuMsPerRequest.toFixed(2)} ms a request; p50/p99 ms: ${figures.join(", ")}; ${spans} spans\n`,
    );
  }
server.close();
