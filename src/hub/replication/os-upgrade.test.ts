// An upgrade of the operating system with a test and with a migration: the disk, what the guest says, and what a failure leaves.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Fault } from "../../contract/errors.ts";
import type { UpgradeDisk } from "../../contract/os-upgrade.ts";
import { simUpgradeMark } from "../../landing/sim/sim-target.ts";
import { readSteps } from "../jobs/job-store.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openSimStage, simProvider, type SimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const wish = { properties: { providerSpecificDetails: { ...simProvider, network: "prod", osUpgradeVersion: "debian13" } } };

/** A disk as `watari upgrade-disk build` leaves it, for a guest that says these words. */
async function putDisk({ hub }: SimStage, says: string, over: Partial<UpgradeDisk> = {}): Promise<void> {
  await mkdir(hub.upgradeFolder, { recursive: true });
  const bytes = Buffer.alloc(64 << 10);
  bytes.write(`${simUpgradeMark}${says}`);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const disk: UpgradeDisk = {
    version: 1,
    from: "debian12",
    to: "debian13",
    sizeBytes: bytes.length,
    sha256,
    packages: { dash: "1" },
    ...over,
  };
  await writeFile(join(hub.upgradeFolder, "debian13.raw"), bytes);
  await writeFile(join(hub.upgradeFolder, "debian13.raw.json"), JSON.stringify(disk));
}

async function openStage(): Promise<SimStage> {
  const stage = await openSimStage(cluster);
  await stage.protect();
  return stage;
}

describe("an upgrade of the operating system", { concurrency: 4 }, () => {
  it("is offered, runs in the test machine from a disk of its own, and is told with the job", async () => {
    await using stage = await openStage();
    assert.deepEqual((await stage.get()).providerSpecificDetails?.["supportedOSVersions"], ["debian13"]);
    await putDisk(stage, "WATARI-OS-UPGRADE done 100 trixie 13.1, kernel 6.12");
    const jobId = await stage.done("POST", "testFailover", wish);
    const steps = await readSteps(stage.hub.services.database.db, jobId);
    assert.match(JSON.stringify(steps), /trixie 13\.1, kernel 6\.12/);
    await stage.done("POST", "testFailoverCleanup", {});
    assert.deepEqual(await stage.hub.target.list(), []);
    assert.equal(stage.site.sources[0]?.isOn, true);
  });

  it("that fails in a migration brings the source back", async () => {
    await using stage = await openStage();
    await putDisk(stage, "WATARI-OS-UPGRADE failed 100 packages are held, and an upgrade must not leave them: apt");
    const { state, fault } = await stage.change("POST", `${stage.item}/unplannedFailover`, wish);
    assert.equal(state, "failed");
    assert.match(fault, /packages are held/);
    assert.deepEqual(
      [(await stage.get()).protectionState, await stage.hub.target.list(), stage.site.sources[0]?.isOn],
      ["Protected", [], true],
    );
    assert.equal(stage.hub.journal.read("web").ranBoth, false);
  });

  it("does not begin without a whole disk for it", async () => {
    await using stage = await openStage();
    const none = await stage.change("POST", `${stage.item}/testFailover`, wish);
    assert.match(none.fault, /could not find a disk/);
    await putDisk(stage, "WATARI-OS-UPGRADE done 100 trixie", { sha256: "0".repeat(64) });
    const damaged = await stage.change("POST", `${stage.item}/testFailover`, wish);
    assert.match(damaged.fault, /its bytes are not those/);
    assert.deepEqual(await stage.hub.target.list(), []);
    const other = { properties: { providerSpecificDetails: { ...simProvider, osUpgradeVersion: "debian12" } } };
    await assert.rejects(
      stage.hub.call("POST", `${stage.item}/testFailover`, other),
      (error) => error instanceof Fault && error.code === "OperationNotSupported" && /debian13/.test(error.action),
    );
  });
});
