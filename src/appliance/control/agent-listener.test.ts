// Promises of the agents' control port: registration, identity, clones, orders that survive.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import type { Clock } from "../../base/clock.ts";
import { pollResponseShape } from "../../contract/agent-control.ts";
import { parseOrderId } from "../../contract/ids.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import { createFacts, poll, registerAgent, tryRegister, type Answer, type Ports } from "../testing/scripted-agent.ts";
import { startTestSite, testPolicy, type TestSite } from "../testing/test-site.ts";
import { endWhenSilent } from "./silent-agent.ts";

const portsOf = (site: TestSite): Ports => ({ controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem });
const faultOf = (answer: Answer): string => faultReportShape.parse(answer.body).id;
const order = () => ({ kind: "replicate" as const, orderId: parseOrderId(randomUUID()), policy: testPolicy });

describe("agent registration", () => {
  test("a wrong passphrase is refused and leaves no machine", async () => {
    await using site = await startTestSite();
    const { answer } = await tryRegister(portsOf(site), createFacts(), "not the passphrase");
    assert.equal(answer.status, 403);
    assert.equal(faultOf(answer), "PassphraseWrong");
    assert.deepEqual(site.registry.list(), []);
  });

  test("the same machine again keeps its id, and only its newest certificate is good", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const first = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    const second = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    assert.equal(second.machineId, first.machineId);
    assert.equal((await poll(portsOf(site), second, facts)).status, 200);
    assert.equal(faultOf(await poll(portsOf(site), first, facts)), "AgentNotRegistered");
  });

  test("an agent cannot speak for another machine, nor without a certificate", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    assert.equal(faultOf(await poll(portsOf(site), agent, facts, { machineId: randomUUID() })), "Forbidden");
    await using other = await startTestSite();
    const stranger = await registerAgent(portsOf(other), facts, other.authority.passphrase);
    assert.equal(faultOf(await poll(portsOf(site), stranger, facts)), "Unauthorized");
  });
});

describe("orders to agents", () => {
  test("a waiting poll is answered when an order comes, and the result reaches who waits for it", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    const waiting = poll(portsOf(site), agent, facts, { waitSeconds: 30 });
    const given = order();
    site.orders.give(agent.machineId, given);
    assert.deepEqual(pollResponseShape.parse((await waiting).body).orders, [given]);
    const result = site.orders.waitResult(given.orderId);
    await poll(portsOf(site), agent, facts, { results: [{ outcome: "done", orderId: given.orderId }] });
    assert.deepEqual(await result, { outcome: "done", orderId: given.orderId });
  });

  test("of an agent that is silent for too long an order ends as such, and is not given when it comes back; one that speaks keeps it", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    const { machineId } = agent;
    const [kept, lost] = [order(), order()];
    for (const given of [kept, lost]) site.orders.give(machineId, given);
    let nowMs = 0;
    let looks = 0;
    const done = new AbortController();
    /** Time passes with each look; the agent speaks in between, or not. */
    const passing = (look: () => Promise<unknown>): Clock => ({
      ...site.clock,
      monotonicMs: () => nowMs,
      sleep: async (ms) => {
        nowMs += ms;
        await look();
      },
    });
    const speaking = passing(async () => {
      looks += 1;
      await poll(portsOf(site), agent, facts);
      if (looks === 5) done.abort();
    });
    await endWhenSilent({ ...site, clock: speaking }, { machineId, order: kept, msMax: 8000 }, done.signal);
    assert.deepEqual([looks, nowMs > 2 * 8000, site.orders.resultOf(kept.orderId)], [5, true, undefined]);
    await endWhenSilent(
      { ...site, clock: passing(() => Promise.resolve()) },
      { machineId, order: lost, msMax: 8000 },
      new AbortController().signal,
    );
    const result = site.orders.resultOf(lost.orderId);
    assert.equal(result?.outcome === "failed" && result.fault.id, "AgentSilent");
    assert.deepEqual(
      site.orders.take(machineId).filter(({ orderId }) => orderId === lost.orderId),
      [],
    );
  });

  test("an order without a result is given again later, one with a result never", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    const given = order();
    site.orders.give(agent.machineId, given);
    site.orders.give(agent.machineId, given);
    const ordersNow = async (): Promise<number> => pollResponseShape.parse((await poll(portsOf(site), agent, facts)).body).orders.length;
    assert.equal(await ordersNow(), 1);
    assert.equal(await ordersNow(), 0);
    site.clock.advance(16_000);
    assert.equal(await ordersNow(), 1);
    await poll(portsOf(site), agent, facts, { results: [{ outcome: "done", orderId: given.orderId }] });
    site.clock.advance(16_000);
    assert.equal(await ordersNow(), 0);
  });
});

describe("cloned machines", () => {
  test("the same certificate with another SMBIOS UUID is refused, and the original goes on", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    assert.equal((await poll(portsOf(site), agent, facts)).status, 200);
    const copy = createFacts({ ...facts, smbiosUuid: randomUUID(), bootId: randomUUID() });
    const refused = await poll(portsOf(site), agent, copy);
    assert.equal(refused.status, 409);
    assert.equal(faultOf(refused), "AgentCloned");
    assert.equal((await poll(portsOf(site), agent, facts)).status, 200);
  });

  test("a second living boot of the same hardware is refused; after the first fell silent it is a reboot", async () => {
    await using site = await startTestSite();
    const facts = createFacts();
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    const gone = new AbortController();
    const original = poll(portsOf(site), agent, facts, { waitSeconds: 30, signal: gone.signal });
    while (site.registry.get(agent.machineId).state === undefined) await site.clock.sleep(1);
    const copy = { ...facts, bootId: randomUUID() };
    assert.equal(faultOf(await poll(portsOf(site), agent, copy)), "AgentCloned");
    site.clock.advance(46_000);
    assert.equal((await poll(portsOf(site), agent, copy)).status, 200);
    // The original speaks again: it was no reboot. From now on the copy is known as one.
    assert.equal((await poll(portsOf(site), agent, facts)).status, 200);
    assert.equal(faultOf(await poll(portsOf(site), agent, copy)), "AgentCloned");
    gone.abort();
    await original.catch(() => undefined);
  });
});
