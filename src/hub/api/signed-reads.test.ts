// Signed addresses through HTTP: content streams from any byte on, ends when its reader goes, and a fault in its midst never looks like an end.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import { request } from "node:https";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Fault } from "../../contract/errors.ts";
import { findFreePort, loopbackNetwork, openTestHub, testDomain, type TestHub } from "../test-client.ts";

const content = randomBytes(3 << 20);
let stateDir: string;
let hub: TestHub;
let isFaulty = false;
let ended: PromiseWithResolvers<void>;

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-signed-"));
  hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() });
  hub.hub.services.signedReads.offerStream("trial", async (_name, from, signal) => {
    signal.addEventListener("abort", () => ended.resolve(), { once: true });
    return pieces(from);
  });
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

async function* pieces(from: number): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = from; at < content.length; at += 65_536) {
    if (isFaulty && at > content.length / 2) throw new Fault("DataDamaged", "the middle is damaged");
    yield content.subarray(at, at + 65_536);
  }
}

async function ask(query = ""): Promise<IncomingMessage> {
  ended = Promise.withResolvers();
  const target = hub.target(`management.${testDomain}`);
  const origin = `https://${target.name}:${target.port}`;
  const address = await hub.hub.services.signedReads.addressOf({ origin, kind: "trial", name: "/one", lifeSeconds: 60 });
  const { pathname, search } = new URL(address);
  const path = `${pathname}${search}${query}`;
  const outgoing = request({ host: target.address, port: target.port, servername: target.name, ca: target.ca, path, agent: false });
  outgoing.setHeader("host", `${target.name}:${target.port}`);
  outgoing.end();
  const [response] = (await once(outgoing, "response")) as [IncomingMessage]; // As node:http tells.
  return response;
}

test("a signed address gives its content, whole or from a byte on, and its end is told", async () => {
  for (const from of [0, 1_000_001]) {
    const response = await ask(`&from=${from}`);
    assert.deepEqual([response.statusCode, response.headers["content-type"]], [200, "application/octet-stream"]);
    assert.ok(Buffer.concat((await Array.fromAsync(response)) as Buffer[]).equals(content.subarray(from))); // No encoding was set.
    await ended.promise;
  }
});

test("a reader that goes ends the reading", async () => {
  const response = await ask();
  await once(response, "data");
  response.destroy();
  await ended.promise;
});

test("a fault in the midst cuts the line: nobody takes a part for the whole", async () => {
  isFaulty = true;
  const response = await ask();
  await assert.rejects(Array.fromAsync(response), { code: "ECONNRESET" });
  await ended.promise;
  isFaulty = false;
});

test("a beginning that is no byte is refused", async () => {
  for (const from of ["-1", "x", "1.5"]) assert.equal((await ask(`&from=${from}`)).statusCode, 400);
});
