// Promises of operations on a site: vCenters and machines by order, refusals told at once or by the job, old appliances told so.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { applianceProtocolVersion } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { JobRecord } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { applianceOf } from "./names.ts";
import { openSimHub, simVault, type SimHub } from "./sim/sim-hub.ts";
import { openSimSite, type SimSite } from "./sim/sim-site.ts";
import { simSilentPrefix } from "./sim/sim-vcenters.ts";

let cluster: TestCluster;
let hub: SimHub;
let site: SimSite;
const closing = new AsyncDisposableStack();

before(async () => {
  cluster = closing.use(await startTestCluster());
  const folder = await mkdtemp(join(tmpdir(), "ws-"));
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const database = closing.use(await cluster.openFreshDatabase());
  hub = closing.use(await openSimHub({ database, folder, limits: {}, jobs: { leaseMs: 5000, pollMs: 20 } }));
  site = closing.use(await openSimSite(hub, folder, ["web"]));
});
after(async () => await closing.disposeAsync());

const fabric = (): string => site.container.replace(/\/replicationProtectionContainers\/.*/, "");
const vcenter = (name: string): string => `${fabric()}/replicationvCenters/${name}`;
const second = { friendlyName: "second", ipAddress: "second.site.test", port: "8443", runAsAccountId: "vcenter" };
const isRefused = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

async function run(method: string, path: string, body: object = {}): Promise<JobRecord> {
  const { headers } = await hub.call(method, path, body);
  const jobId = /operationStatuses\/([0-9a-f-]+)/.exec(headers?.["azure-asyncoperation"] ?? "")?.[1] ?? assert.fail("no operation");
  for (;;) {
    const job = await readJob(hub.services.database.db, jobId);
    if (job?.endedAt !== undefined) return job;
    await systemClock.sleep(20);
  }
}

async function propertiesAt(path: string): Promise<Record<string, unknown>> {
  const { body } = await hub.call("GET", path);
  const { properties } = body as { readonly properties: Record<string, unknown> }; // Every ARM resource has them.
  return properties;
}

async function namesAt(path: string): Promise<readonly string[]> {
  const { body } = await hub.call("GET", path);
  const { value } = body as { readonly value: readonly { readonly name: string }[] }; // Every ARM list has it.
  return value.map(({ name }) => name);
}

describe("a vCenter of a fabric", () => {
  it("is added, changed by the field and removed, each by a job", async () => {
    assert.equal((await run("PUT", vcenter("second"), { properties: second })).state, "succeeded");
    const added = await propertiesAt(vcenter("second"));
    assert.deepEqual(
      ["friendlyName", "ipAddress", "port", "runAsAccountId", "discoveryStatus", "processServerId", "fabricArmResourceName"].map(
        (key) => added[key],
      ),
      ["second", "second.site.test", "8443", "vcenter", "Completed", site.container.split("cloud_")[1], site.container.split("cloud_")[1]],
    );
    assert.ok(added["lastHeartbeat"]);
    const changed = await run("PATCH", vcenter("second"), { properties: { friendlyName: "renamed" } });
    assert.deepEqual([changed.kind, changed.state], ["UpdateVCenter", "succeeded"]);
    assert.deepEqual(
      { ...(await propertiesAt(vcenter("second"))), lastHeartbeat: "" },
      { ...added, friendlyName: "renamed", lastHeartbeat: "" },
    );
    assert.deepEqual((await namesAt(`${simVault}/replicationvCenters`)).toSorted(), ["second", "vc"]);
    assert.equal((await run("DELETE", vcenter("second"))).state, "succeeded");
    assert.deepEqual(await namesAt(`${fabric()}/replicationvCenters`), ["vc"]);
    assert.equal((await hub.call("DELETE", vcenter("second"))).status, 204);
  });

  it("that refuses fails its job with code, causes and what to do, and is not kept", async () => {
    for (const [over, code] of [
      [{ runAsAccountId: "vcenter-wrong" }, "VcenterLoginRefused"],
      [{ ipAddress: `${simSilentPrefix}.site.test` }, "VcenterUnreachable"],
      [{ watariThumbprint: "00".repeat(32) }, "VcenterUntrusted"],
      [{ ipAddress: "vcenter.site.test", port: "443" }, "StateConflict"],
    ] as const) {
      const job = await run("PUT", vcenter("bad"), { properties: { ...second, ...over } });
      assert.deepEqual([job.kind, job.state, job.fault?.id], ["DiscoverVCenter", "failed", code]);
      assert.ok((job.fault?.causes.length ?? 0) > 0 && job.fault?.action !== "");
      await assert.rejects(hub.call("GET", vcenter("bad")), isRefused("NotFound"));
    }
  });

  it("is refused at once for what the hub can know", async () => {
    for (const over of [
      { runAsAccountId: "root" },
      { runAsAccountId: "none" },
      { port: "0" },
      { port: "x" },
      { processServerId: "other" },
      { color: "red" },
    ])
      await assert.rejects(
        hub.call("PUT", vcenter("bad"), { properties: { ...second, ...over } }),
        isRefused("InputInvalid"),
        JSON.stringify(over),
      );
    await assert.rejects(hub.call("PUT", vcenter("bad"), { properties: { runAsAccountId: "vcenter" } }), isRefused("InputInvalid"));
  });
});

describe("a machine that no vCenter shows", () => {
  const machine = { friendlyName: "metal", ipAddress: "10.10.9.9", osType: "Linux" };

  it("becomes a protectable item by its address, and is protected as any other", async () => {
    const job = await run("POST", `${site.container}/discoverProtectableItem`, { properties: machine });
    assert.deepEqual([job.kind, job.state], ["DiscoverProtectableItem", "succeeded"]);
    const names = await namesAt(`${site.container}/replicationProtectableItems`);
    const name = names.find((each) => each !== site.sources[0]?.discovered.infrastructureId) ?? "";
    const { friendlyName, customDetails } = await propertiesAt(`${site.container}/replicationProtectableItems/${name}`);
    assert.deepEqual([friendlyName, Reflect.get(customDetails ?? {}, "discoveryType")], ["metal", "ByAddress"]);
    await assert.rejects(
      hub.call("POST", `${site.container}/discoverProtectableItem`, { properties: machine }),
      isRefused("StateConflict"),
    );
    const protectableItemId = `${site.container}/replicationProtectableItems/${name}`;
    const details = { instanceType: "InMageAzureV2", runAsAccountId: "root" };
    const enabled = await run("PUT", `${site.container}/replicationProtectedItems/metal`, {
      properties: { protectableItemId, providerSpecificDetails: details },
    });
    assert.equal(enabled.state, "succeeded");
  });

  it("is refused with another operating system, and its job fails where nothing answers", async () => {
    const windows = { properties: { ...machine, ipAddress: "10.10.9.10", osType: "Windows" } };
    await assert.rejects(hub.call("POST", `${site.container}/discoverProtectableItem`, windows), isRefused("OperationNotSupported"));
    const silent = { properties: { ...machine, ipAddress: simSilentPrefix } };
    const job = await run("POST", `${site.container}/discoverProtectableItem`, silent);
    assert.deepEqual([job.state, job.fault?.id], ["failed", "GuestUnreachable"]);
  });
});

describe("a vCenter whose machines are protected", () => {
  it("stays, and the refusal names them", async () => {
    const item = `${site.container}/replicationProtectedItems/web`;
    const protectableItemId = `${site.container}/replicationProtectableItems/${site.sources[0]?.discovered.infrastructureId}`;
    const details = { instanceType: "InMageAzureV2", runAsAccountId: "root" };
    await run("PUT", item, { properties: { protectableItemId, providerSpecificDetails: details } });
    await assert.rejects(hub.call("DELETE", vcenter("vc")), (error: unknown) => {
      assert.ok(error instanceof Fault && error.code === "StateConflict");
      assert.deepEqual(error.evidence["protectedItems"], [parseResourceId(item).text]);
      return true;
    });
  });
});

describe("the process server of a machine", () => {
  const item = (): string => `${site.container}/replicationProtectedItems/web`;
  const serverOf = async (): Promise<unknown> => {
    const { providerSpecificDetails } = await propertiesAt(item());
    return Reflect.get(providerSpecificDetails ?? {}, "processServerId");
  };
  const pointsOf = async (): Promise<readonly string[]> => await namesAt(`${item()}/recoveryPoints`);
  const makePoint = async (): Promise<void> => assert.equal((await run("POST", `${item()}/repairReplication`)).state, "succeeded");

  it("is switched by the fabric and back by the item; points stay, and new ones are made by the one that has the machine", async () => {
    const own = applianceOf(parseResourceId(fabric()));
    const targetProcessServerId = await site.addNeighbour();
    const before = await pointsOf();
    // A machine of its own that the other does not see keeps all from going.
    const all = { properties: { targetProcessServerId, updateType: "SystemLevel" } };
    await assert.rejects(hub.call("POST", `${fabric()}/reassociateGateway`, all), isRefused("MachineNotDiscovered"));
    const properties = { targetProcessServerId, updateType: "ServerLevel", vmsToMigrate: ["web"] };
    const job = await run("POST", `${fabric()}/reassociateGateway`, { properties });
    assert.deepEqual([job.kind, job.state], ["SwitchProcessServer", "succeeded"]);
    assert.equal(await serverOf(), targetProcessServerId);
    await makePoint();
    assert.deepEqual((await pointsOf()).slice(1), before, "a new point upon those of before");
    await assert.rejects(hub.call("DELETE", `${simVault}/replicationFabrics/${targetProcessServerId}`), isRefused("StateConflict"));
    const back = { targetApplianceId: own, providerSpecificDetails: { instanceType: "InMageRcm" } };
    assert.equal((await run("POST", `${item()}/updateAppliance`, { properties: back })).state, "succeeded");
    assert.equal(await serverOf(), own);
    await makePoint();
  });

  it("is not switched to one that is none, that is the same, or for a machine that it does not serve", async () => {
    const own = applianceOf(parseResourceId(fabric()));
    const neighbour = await site.addNeighbour();
    for (const properties of [
      { targetProcessServerId: "none" },
      { targetProcessServerId: own },
      { targetProcessServerId: neighbour, vmsToMigrate: ["nobody"] },
      { targetProcessServerId: neighbour, sourceProcessServerId: neighbour },
      { targetProcessServerId: neighbour, updateType: "other" },
      { targetProcessServerId: neighbour, containerName: "other" },
    ])
      await assert.rejects(
        hub.call("POST", `${fabric()}/reassociateGateway`, { properties }),
        isRefused("InputInvalid"),
        JSON.stringify(properties),
      );
  });

  it("stays when the new one cannot take the machine over", async () => {
    const own = applianceOf(parseResourceId(fabric()));
    const targetProcessServerId = await site.addNeighbour();
    const [source] = site.sources;
    if (source !== undefined) source.isOn = false;
    const job = await run("POST", `${fabric()}/reassociateGateway`, { properties: { targetProcessServerId, vmsToMigrate: ["web"] } });
    if (source !== undefined) source.isOn = true;
    assert.deepEqual([job.state, job.fault?.id], ["failed", "GuestUnreachable"]);
    assert.equal(await serverOf(), own);
    await makePoint();
  });
});

describe("an appliance of the versions before", () => {
  it("is not given what it does not know: the call says what to update, up to four versions behind", async () => {
    const applianceId = parseApplianceId(applianceOf(parseResourceId(fabric())));
    for (let version = Math.max(1, applianceProtocolVersion - 4); version <= applianceProtocolVersion; version++) {
      await hub.services.appliances.seen(applianceId, version);
      const adding = run("PUT", vcenter("second"), { properties: second });
      if (version >= 3) assert.equal((await adding).state, "succeeded");
      else
        await assert.rejects(adding, (error: unknown) => {
          assert.ok(error instanceof Fault && error.code === "ProtocolVersionUnsupported");
          assert.deepEqual(error.evidence, { applianceVersion: version, order: "putVcenter", knownSince: 3 });
          return /update the appliance/.test(error.action);
        });
    }
  });
});
