// Rehearsals: what is asked and kept, what marks a point as verified, what is left over, and rehearsals by the clock.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { simVault } from "./sim/sim-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const jobShape = z.looseObject({
  properties: z.looseObject({
    watari: z.looseObject({
      evidence: z.looseObject({ actions: z.array(z.looseObject({ name: z.string(), isPassed: z.boolean(), said: z.string() })) }),
      files: z.array(z.object({ name: z.string(), contentType: z.string(), sizeBytes: z.number() })),
    }),
  }),
});

async function readJobOf(stage: SimStage, jobId: string) {
  return jobShape.parse((await stage.hub.call("GET", `${simVault}/replicationJobs/${jobId}`)).body).properties.watari;
}

async function readFileOf({ hub }: SimStage, jobId: string, name: string): Promise<Buffer> {
  const { body } = await hub.call("POST", `${simVault}/replicationJobs/${jobId}/file`, { name });
  const url = new URL(z.object({ url: z.string() }).parse(body).url);
  const read = await hub.services.signedReads.read(url.pathname, Object.fromEntries(url.searchParams), new AbortController().signal);
  const pieces: Uint8Array[] = [];
  if (read.kind === "bytes") for await (const piece of read.bytes) pieces.push(piece);
  return Buffer.concat(pieces);
}

const pointShape = z.looseObject({
  providerSpecificDetails: z.looseObject({ watari: z.looseObject({ verified: z.object({ jobId: z.string() }).loose().optional() }) }),
});
async function verifiedJobs(stage: SimStage): Promise<readonly (string | undefined)[]> {
  const points = await stage.list(`${stage.item}/recoveryPoints`);
  return points.map(({ properties }) => pointShape.parse(properties).providerSpecificDetails.watari.verified?.jobId);
}

const ask = (...actions: readonly object[]): object => ({ properties: { actions } });

describe("a rehearsal", { concurrency: 4 }, () => {
  it("asks in order, keeps the console, marks the point, and leaves nothing", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const actions = [
      { kind: "tcp", port: 25, isRequired: false },
      { kind: "ssh" },
      { kind: "serial", text: "login:", name: "greets" },
      { kind: "http", port: 80 },
    ];
    const jobId = await stage.done("POST", "rehearse", ask(...actions));
    const { evidence, files } = await readJobOf(stage, jobId);
    assert.deepEqual(
      evidence.actions.map(({ name, isPassed }) => [name, isPassed]),
      [
        ["tcp 25", true],
        ["ssh 22", true],
        ["greets", true],
        ["http 80/", true],
      ],
    );
    assert.equal(evidence.actions[3]?.said, "hello from web");
    assert.deepEqual(
      files.map(({ name, contentType }) => [name, contentType]),
      [
        ["screen.png", "image/png"],
        ["serial.log", "text/plain"],
      ],
    );
    assert.equal((await readFileOf(stage, jobId, "serial.log")).toString(), "web-rehearsal login: ");
    assert.equal((await readFileOf(stage, jobId, "screen.png")).toString("latin1", 1, 4), "PNG");
    assert.deepEqual(await verifiedJobs(stage), [jobId]);
    assert.deepEqual(await stage.hub.target.list(), []);
    const { protectionState, testFailoverState, allowedOperations } = await stage.get();
    assert.deepEqual([protectionState, testFailoverState], ["Protected", "None"]);
    assert.ok(allowedOperations?.includes("UnplannedFailover"));
    assert.equal(stage.site.sources[0]?.isOn, true);
    assert.deepEqual(stage.site.appliance.done, ["protect"], "nothing was asked of the site");
  });

  it("fails by an action that must pass, tells why, keeps the console, marks nothing; one that need not pass fails nothing", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    const silent = { kind: "serial", text: "nobody says this", timeoutSeconds: 1 };
    const failed = await stage.change("POST", `${stage.item}/rehearse`, ask({ kind: "ssh" }, silent, { kind: "tcp", port: 1 }));
    assert.equal(failed.state, "failed");
    assert.match(failed.fault, /did not pass "serial "nobody says this""/);
    const { evidence, files } = await readJobOf(stage, failed.jobId);
    assert.deepEqual(
      evidence.actions.map(({ isPassed }) => isPassed),
      [true, false],
    );
    assert.deepEqual([files.length, await verifiedJobs(stage), await stage.hub.target.list()], [2, [undefined], []]);
    assert.ok((await stage.get()).allowedOperations?.includes("UnplannedFailover"));
    const passed = await stage.done("POST", "rehearse", ask({ ...silent, isRequired: false }, { kind: "ssh" }));
    assert.deepEqual(await verifiedJobs(stage), [passed]);
  });

  it("proves nothing of a point when nothing was asked, and knows the machine's own actions", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "rehearse", {});
    assert.deepEqual(await verifiedJobs(stage), [undefined]);
    const postLaunchActions = [{ kind: "tcp", port: 5432 }];
    await stage.change("PATCH", stage.item, { properties: { providerSpecificDetails: { ...simProvider, postLaunchActions } } });
    const jobId = await stage.done("POST", "rehearse", {});
    assert.deepEqual(
      (await readJobOf(stage, jobId)).evidence.actions.map(({ name }) => name),
      ["tcp 5432"],
    );
    const unknown = ask({ kind: "script", program: "smoke" });
    await assert.rejects(stage.hub.call("POST", `${stage.item}/rehearse`, unknown), { code: "InputInvalid" });
  });

  it("that is kept is a test migration, to be cleaned up like any other", async () => {
    await using stage = await openSimStage(cluster);
    await stage.protect();
    await stage.done("POST", "rehearse", { properties: { actions: [{ kind: "ssh" }], isKept: true } });
    assert.deepEqual([(await stage.get()).testFailoverState, await stage.hub.target.list()], ["TestMigrationSucceeded", ["web-rehearsal"]]);
    await assert.rejects(stage.hub.call("POST", `${stage.item}/rehearse`, {}), { code: "StateConflict" });
    await stage.done("POST", "testFailoverCleanup", {});
    assert.deepEqual(await stage.hub.target.list(), []);
  });

  it("is begun by the clock where the policy wants it, two at once", async () => {
    await using stage = await openSimStage(cluster, { names: ["a", "b", "c", "d"], limits: { watchMs: 30, probeSeconds: 1 } });
    for (const [index, item] of stage.items.entries()) {
      // What must not be asked is asked of each machine: so a rehearsal takes a while.
      const postLaunchActions = [{ kind: "serial", text: "nobody says this", timeoutSeconds: 1, isRequired: false }, { kind: "ssh" }];
      assert.equal((await stage.change("PUT", item, stage.enableBody({}, index))).state, "succeeded");
      await stage.change("PATCH", item, { properties: { providerSpecificDetails: { ...simProvider, postLaunchActions } } });
    }
    const policy = `${simVault}/replicationPolicies/default`;
    const { state } = await stage.change("PUT", policy, {
      properties: { providerSpecificInput: { ...simProvider, rehearsalIntervalHours: 24 } },
    });
    assert.equal(state, "succeeded");
    let atOnce = 0;
    for (;;) {
      const jobs = (await stage.list(`${simVault}/replicationJobs`)).filter(({ properties }) => properties["scenarioName"] === "Rehearsal");
      atOnce = Math.max(atOnce, jobs.filter(({ properties }) => properties["endTime"] === undefined).length);
      if (jobs.length === stage.items.length && jobs.every(({ properties }) => properties["state"] === "Succeeded")) break;
      await systemClock.sleep(20);
    }
    assert.equal(atOnce, 2);
  });
});
