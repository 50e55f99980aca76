// The resolver's promises, held against a real dnsmasq: evidence names the server, answers are checked and kept for a bounded time.

import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, type Clock } from "../base/clock.ts";
import { Fault } from "../contract/errors.ts";
import { decide } from "./decision.ts";
import { checkAnswers, createNameResolver } from "./resolve.ts";
import { skipUnless, startDns } from "./test-network.ts";
import { parseTopology } from "./topology.ts";

const skip = skipUnless("dnsmasq");

test("NameResolver gives all answers and the server that gave them", { skip }, async () => {
  await using dns = await startDns({ "a.test": ["10.200.0.4", "fd00::4"], "alias.test": ["=a.test"] });
  const server = `127.0.0.1:${dns.port}`;
  const resolver = createNameResolver({ topology: parseTopology({ dnsServers: [server] }), clock: systemClock });
  assert.deepEqual(await resolver.resolve("a.test"), { name: "a.test", addresses: ["10.200.0.4", "fd00::4"], server });
  assert.deepEqual((await resolver.resolve("alias.test")).addresses, ["10.200.0.4", "fd00::4"]);
});

test("NameResolver asks the next server when one does not know the name, and tells what each said", { skip }, async () => {
  await using empty = await startDns({ "other.test": ["10.0.0.1"] });
  await using full = await startDns({ "a.test": ["10.200.0.4"] });
  const dnsServers = [`127.0.0.1:${empty.port}`, `127.0.0.1:${full.port}`];
  const resolver = createNameResolver({ topology: parseTopology({ dnsServers }), clock: systemClock });
  assert.equal((await resolver.resolve("a.test")).server, dnsServers[1]);
  await assert.rejects(resolver.resolve("nowhere.test"), (error: unknown) => {
    assert.ok(error instanceof Fault && error.code === "NameUnresolved");
    assert.deepEqual(error.evidence["answers"], [`${dnsServers[0]}: ENOTFOUND`, `${dnsServers[1]}: ENOTFOUND`]);
    return true;
  });
});

test("NameResolver keeps an answer until its end, and no longer", { skip }, async () => {
  let nowMs = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => nowMs };
  const dns = await startDns({ "a.test": ["10.200.0.4"] });
  const resolver = createNameResolver({ topology: parseTopology({ dnsServers: [`127.0.0.1:${dns.port}`] }), clock });
  await resolver.resolve("a.test");
  await dns[Symbol.asyncDispose]();
  nowMs = 29_999;
  assert.deepEqual((await resolver.resolve("a.test")).addresses, ["10.200.0.4"]);
  nowMs = 30_001;
  await assert.rejects(resolver.resolve("a.test"), { code: "NameUnresolved" });
});

test("NameResolver believes the topology's hosts before any server", async () => {
  const topology = parseTopology({ hosts: [{ name: "a.test", addresses: ["10.200.0.9"] }], dnsServers: ["127.0.0.1:1"] });
  const resolution = await createNameResolver({ topology, clock: systemClock }).resolve("a.test");
  assert.deepEqual(resolution, { name: "a.test", addresses: ["10.200.0.9"], server: "hosts of the topology" });
});

test("checkAnswers refuses a private name with any public answer, and names it with its server", () => {
  const topology = parseTopology({ privateNames: ["a.test"], privateRanges: ["10.200.0.0/24"], publicNames: ["b.test"] });
  const resolution = { name: "a.test", addresses: ["10.200.0.4", "198.51.100.11"], server: "192.0.2.53:53" };
  assert.throws(
    () => checkAnswers(topology, decide(topology, "a.test"), resolution),
    (error: unknown) => {
      assert.ok(error instanceof Fault && error.code === "PrivateNamePublic");
      assert.deepEqual(error.evidence["outside"], ["198.51.100.11"]);
      assert.equal(error.evidence["server"], "192.0.2.53:53");
      return true;
    },
  );
  checkAnswers(topology, decide(topology, "a.test"), { ...resolution, addresses: ["10.200.0.4"] });
  checkAnswers(topology, decide(topology, "b.test"), { ...resolution, name: "b.test" });
});
