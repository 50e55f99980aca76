// Promises of orders to an appliance through the hub: limits, profiles and checks are its answers, checked on their way, and told by the job.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import { readJob } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimHub, type SimHub } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";

let cluster: TestCluster;
let hub: SimHub;
let site: SimSite;
let hasRole = true;
const closing = new AsyncDisposableStack();

before(async () => {
  cluster = closing.use(await startTestCluster());
  const folder = await mkdtemp(join(tmpdir(), "wo-"));
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const database = closing.use(await cluster.openFreshDatabase());
  const jobs = { leaseMs: 5000, pollMs: 20 };
  hub = closing.use(await openSimHub({ database, folder, limits: {}, jobs, hasStorageRole: () => hasRole }));
  site = closing.use(await openSimSite(hub, folder, ["web"]));
});
after(async () => await closing.disposeAsync());

const fabric = (): string => site.container.replace(/\/replicationProtectionContainers\/.*/, "");
const isRefused = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

let lastJobId = "";

/** The answer that the operation ends with. */
async function run(action: string, body: object): Promise<Record<string, unknown>> {
  const { headers } = await hub.call("POST", `${fabric()}/${action}`, body);
  const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
  lastJobId = jobId;
  for (;;) {
    const job = await readJob(hub.services.database.db, jobId);
    if (job?.endedAt !== undefined) assert.equal(job.state, "succeeded", job.fault?.message ?? "");
    const operation = job?.endedAt === undefined ? undefined : await hub.services.operations.find(jobId);
    if (operation?.result !== undefined) return operation.result;
    await systemClock.sleep(20);
  }
}

describe("An order to an appliance through the hub", () => {
  it("changes the limits of its lines, and answers what holds then", async () => {
    const set = [{ scope: "storage", bytesPerSecond: 5_000_000, window: { days: ["mon"], from: "08:00", until: "18:00" } }];
    const changed = await run("changeLineLimits", { timeZone: "Europe/Berlin", set });
    assert.deepEqual([changed["timeZone"], changed["limits"]], ["Europe/Berlin", set]);
    assert.deepEqual((await run("changeLineLimits", { remove: set.map(({ scope, window }) => ({ scope, window })) }))["limits"], []);
  });

  it("is refused before the appliance hears of it where it does not fit", async () => {
    for (const body of [
      { set: [{ scope: "storage", bytesPerSecond: 5 }] },
      { set: [{ scope: "machine", bytesPerSecond: 1_000_000 }] },
      { set: [{ scope: "storage", bytesPerSecond: 1_000_000, colour: "red" }] },
      { set: [{ scope: "storage", bytesPerSecond: 1_000_000, window: { days: ["mon"], from: "25:00", until: "18:00" } }] },
    ])
      await assert.rejects(hub.call("POST", `${fabric()}/changeLineLimits`, body), isRefused("InputInvalid"), JSON.stringify(body));
    await assert.rejects(hub.call("POST", `${fabric()}/profileMachine`, { machine: "web", seconds: 1 }), isRefused("InputInvalid"));
    assert.deepEqual(
      site.appliance.done.filter((kind) => kind === "profileMachine"),
      [],
    );
  });

  it("measures what a machine writes", async () => {
    const profile = await run("profileMachine", { machine: "web", seconds: 10 });
    assert.deepEqual([profile["sampleSeconds"], profile["samples"]], [10, [4096]]);
  });

  it("checks the appliance's ways and the hub's rights, and tells both", async () => {
    const good = await run("checkNetwork", {});
    assert.equal(good["passed"], true);
    const path = `${fabric().replace(/\/replicationFabrics\/.*/, "")}/replicationJobs/${lastJobId}`;
    const job = (await hub.call("GET", path)).body as { readonly properties: { readonly watari: object } }; // As described.
    assert.deepEqual(job.properties.watari, { ...job.properties.watari, networkReport: good }, "the job keeps what the check found");
    hasRole = false;
    const bad = await run("checkNetwork", {});
    hasRole = true;
    assert.equal(bad["passed"], false);
    const checks = bad["checks"] as readonly {
      readonly id: string;
      readonly role: string;
      readonly verdict: string;
      readonly fault?: { readonly id: string };
    }[]; // As described.
    assert.deepEqual(checks.map(({ id, role, verdict, fault }) => [role, id, verdict, fault?.id]).slice(0, 1), [
      ["hub", "vault/rights", "fail", "StorageRoleMissing"],
    ]);
    const applianceId = fabric().replace(/.*\//, "");
    const withAgent = await run("checkNetwork", { machineIds: [applianceId] });
    const ids = (withAgent["checks"] as readonly { readonly id: string }[]).map(({ id }) => id); // As described.
    assert.ok(
      ids.some((id) => id.startsWith(`${applianceId} `)),
      "the agent's checks are told by its machine",
    );
    assert.ok(checks.some(({ role, verdict }) => role === "appliance" && verdict === "pass"));
  });

  it("is not given to an appliance that is too old for it", async () => {
    await hub.services.appliances.seen(parseApplianceId(fabric().replace(/.*\//, "")), 3);
    for (const [action, body] of Object.entries({
      changeLineLimits: {},
      profileMachine: { machine: "web", seconds: 10 },
      checkNetwork: {},
    }))
      await assert.rejects(hub.call("POST", `${fabric()}/${action}`, body), isRefused("ProtocolVersionUnsupported"), action);
  });
});
