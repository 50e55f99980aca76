// Autostart: what a hub starts when its machines' host was started again, in which order, what it leaves, and that a hub that ends in between loses nothing.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { simGroup, type SimHub } from "./sim/sim-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";
import type { HostStart } from "./world.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const machine = (name: string): string => `${simGroup}/providers/Microsoft.Compute/virtualMachines/${name}`;
const migrateBody = { properties: { providerSpecificDetails: { ...simProvider, network: "prod", commit: { mode: "now" } } } };
const testBody = { properties: { providerSpecificDetails: simProvider } };

/** A host that was started since the hub last ran, until the hub has done with it. */
class TestHost implements HostStart {
  isStartedAnew = true;
  readonly done = Promise.withResolvers<void>();
  async remember(): Promise<void> {
    this.isStartedAnew = false;
    this.done.resolve();
  }
}

async function loseHost(stage: SimStage): Promise<void> {
  await stage.hub[Symbol.asyncDispose]();
  await stage.cutPower();
}

async function powerOf({ target }: SimHub, ...names: readonly string[]): Promise<readonly string[]> {
  return await Promise.all(names.map(async (name) => (await target.status(name)).power));
}

const shownShape = z.object({
  properties: z.object({ watari: z.object({ autostart: z.object({ isOn: z.boolean(), order: z.number(), delaySeconds: z.number() }) }) }),
});
async function settingOf(hub: SimHub, name: string): Promise<unknown> {
  return shownShape.parse((await hub.call("GET", machine(name))).body).properties.watari.autostart;
}

describe("autostart", { concurrency: 3 }, () => {
  it("starts what was committed, not tests, not what somebody switched off, and only when the host was started again", async () => {
    await using stage = await openSimStage(cluster, { names: ["web", "db", "off"] });
    for (const [index, item] of stage.items.entries()) {
      assert.equal((await stage.change("PUT", item, stage.enableBody({}, index))).state, "succeeded");
    }
    const [web = "", db = "", off = ""] = stage.items;
    for (const item of [web, off]) assert.equal((await stage.change("POST", `${item}/unplannedFailover`, migrateBody)).state, "succeeded");
    assert.equal((await stage.change("POST", `${db}/testFailover`, testBody)).state, "succeeded");
    assert.deepEqual(await settingOf(stage.hub, "web"), { isOn: true, order: 100, delaySeconds: 0 });
    assert.deepEqual(await settingOf(stage.hub, "db-test"), { isOn: false, order: 100, delaySeconds: 0 });
    assert.equal((await stage.change("POST", `${machine("off")}/powerOff`)).state, "succeeded");
    await loseHost(stage);
    const same = { isStartedAnew: false, done: Promise.withResolvers<void>(), remember: async () => same.done.resolve() };
    {
      await using hub = await stage.reopen({ host: same });
      await same.done.promise;
      assert.deepEqual(await powerOf(hub, "web", "db-test", "off"), ["stopped", "stopped", "stopped"]);
    }
    const host = new TestHost();
    await using hub = await stage.reopen({ host });
    await host.done.promise;
    assert.deepEqual(await powerOf(hub, "web", "db-test", "off"), ["running", "stopped", "stopped"]);
  });

  it("goes by order, and a hub that ends in between goes on with the rest", async () => {
    await using stage = await openSimStage(cluster, { names: ["web", "db"] });
    for (const [index, item] of stage.items.entries()) {
      assert.equal((await stage.change("PUT", item, stage.enableBody({}, index))).state, "succeeded");
      assert.equal((await stage.change("POST", `${item}/unplannedFailover`, migrateBody)).state, "succeeded");
    }
    const set = async (name: string, body: object) => await stage.hub.call("POST", `${machine(name)}/setAutostart`, body);
    assert.deepEqual((await set("db", { isOn: true, order: 1 })).body, { isOn: true, order: 1, delaySeconds: 0 });
    await set("web", { isOn: true, order: 2, delaySeconds: 600 });
    for (const bad of [{}, { isOn: true, order: 0 }, { isOn: true, delaySeconds: 601 }, { isOn: true, later: 1 }])
      await assert.rejects(set("web", bad), (error) => error instanceof Fault && error.code === "InputInvalid");
    await loseHost(stage);
    const host = new TestHost();
    {
      await using hub = await stage.reopen({ host });
      while ((await powerOf(hub, "db"))[0] !== "running") await systemClock.sleep(20);
      assert.deepEqual([await powerOf(hub, "web"), host.isStartedAnew], [["stopped"], true]);
    }
    await sql`update resources set properties = jsonb_set(properties, '{autostart,delaySeconds}', '0') where properties ? 'autostart'`.execute(
      stage.hub.services.database.db,
    );
    await using hub = await stage.reopen({ host });
    await host.done.promise;
    assert.deepEqual(await powerOf(hub, "db", "web"), ["running", "running"]);
  });

  it("leaves a machine alone that is not committed, however it was set", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const byHand = { properties: { providerSpecificDetails: { ...simProvider, network: "prod" } } };
    await stage.done("POST", "unplannedFailover", byHand);
    await stage.hub.call("POST", `${machine("web")}/setAutostart`, { isOn: true });
    await loseHost(stage);
    const host = new TestHost();
    await using hub = await stage.reopen({ host });
    await host.done.promise;
    assert.deepEqual(await powerOf(hub, "web"), ["stopped"]);
  });
});
