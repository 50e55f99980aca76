// A simulated agent against the appliance's real ports: registration, orders, points, quiesce, clones, removal.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { registerSimulatedAgent, startSimulatedAgent, type RunningAgent } from "../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../src/agent/sim/simulated-source.ts";
import { startTestSite, type TestSite } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { AgentOrder, OrderResult } from "../../src/contract/agent-control.ts";
import { Fault } from "../../src/contract/errors.ts";
import { parseDiskId, parseOrderId, parseVaultId, type MachineId, type PointId } from "../../src/contract/ids.ts";
import { openDirectoryStore } from "../../src/store/directory-store.ts";
import { openVault } from "../../src/vault/open-vault.ts";
import type { Vault } from "../../src/vault/vault.ts";

const diskId = parseDiskId("serial-a");
const sizeBytes = 5 * 2 ** 20 + 512;

interface Scene extends AsyncDisposable {
  readonly site: TestSite;
  readonly vault: Vault;
  readonly source: SimulatedSource;
  readonly machineId: MachineId;
  readonly folder: string;
  start(): RunningAgent;
  order(order: DistributiveOmit<AgentOrder, "orderId">): Promise<OrderResult>;
  assertEqual(pointId: PointId | undefined): Promise<void>;
}
type DistributiveOmit<T, K extends string> = T extends unknown ? Omit<T, K> : never;

async function openScene(): Promise<Scene> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-agent-appliance-"));
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  const store = cleanup.use(await openDirectoryStore(join(folder, "store")));
  const vaultId = parseVaultId(randomUUID());
  const vault = cleanup.use(
    await openVault({ store, vaultId, key: randomBytes(32), clock: systemClock, random: systemRandom, log: silentLog }),
  );
  const site = cleanup.use(await startTestSite({ vault }));
  const disk = join(folder, "disk");
  await writeFile(disk, randomBytes(sizeBytes));
  const names = {
    hostname: "sim",
    smbiosUuid: randomUUID(),
    osMachineId: "0".repeat(32),
    bootId: randomUUID(),
    osName: "x",
    kernelRelease: "6",
  };
  const facts = { ...names, firmware: "bios" as const, cpuCount: 1, memoryBytes: 2 ** 30, addresses: ["127.0.0.1"], nics: [] };
  const diskFacts = { diskId, deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const source = cleanup.use(
    await SimulatedSource.open({ clock: systemClock, random: systemRandom, facts, disks: [{ path: disk, facts: diskFacts }] }),
  );
  const passphraseFile = join(folder, "passphrase");
  await writeFile(passphraseFile, site.authority.passphrase, { mode: 0o600 });
  const agent = { source, stateFolder: join(folder, "state"), clock: systemClock, random: systemRandom };
  const appliance = { host: "127.0.0.1", port: site.controlPort };
  const machineId = await registerSimulatedAgent({ ...agent, appliance, authorityPem: site.authority.caPem, passphraseFile });
  await assert.rejects(stat(passphraseFile), { code: "ENOENT" });
  site.protect(machineId);
  const owned = cleanup.move();
  return {
    site,
    vault,
    source,
    machineId,
    folder,
    start: () => startSimulatedAgent(agent),
    order: async (order) => {
      const orderId = parseOrderId(randomUUID());
      site.orders.give(machineId, { ...order, orderId });
      return await site.orders.waitResult(orderId);
    },
    assertEqual: async (pointId) => {
      assert.ok(pointId !== undefined);
      await using replica = await vault.openDisk(pointId, diskId);
      const bytes = new Uint8Array(sizeBytes);
      await replica.read(0, bytes);
      assert.equal(Buffer.compare(bytes, await readFile(disk)), 0, "the replica equals the disk");
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const policy = { pointIntervalSeconds: 3600, freezeMsMax: 2000 };

function done(result: OrderResult): Extract<OrderResult, { outcome: "done" }> {
  assert.equal(result.outcome, "done", JSON.stringify(result));
  return result;
}

test("orders from registration to removal, with the vault equal to the disk at each point", { timeout: 60_000 }, async () => {
  await using scene = await openScene();
  {
    await using agent = scene.start();
    void agent;
    done(await scene.order({ kind: "replicate", policy }));
    await scene.assertEqual(done(await scene.order({ kind: "point" })).pointId);
    await scene.source.write(diskId, 70_000, randomBytes(9000));
    await scene.assertEqual(done(await scene.order({ kind: "point" })).pointId);
    assert.equal(done(await scene.order({ kind: "verify" })).repairedBlockCount, 0);
    await scene.source.write(diskId, 0, randomBytes(4096));
  }
  await using agent = scene.start();
  await scene.source.write(diskId, 4_000_000, randomBytes(300));
  const quiesced = done(await scene.order({ kind: "quiesce", holdSecondsMax: 60 }));
  await scene.assertEqual(quiesced.pointId);
  const point = quiesced.pointId === undefined ? undefined : await scene.vault.point(quiesced.pointId);
  assert.equal(point?.consistency, "final");
  assert.equal(quiesced.sourceRoots?.[0]?.root, point?.disks[0]?.root);
  const waiting = scene.source.write(diskId, 0, randomBytes(512));
  done(await scene.order({ kind: "release" }));
  await waiting;
  await scene.assertEqual(done(await scene.order({ kind: "point" })).pointId);
  done(await scene.order({ kind: "uninstall" }));
  assert.equal(await agent.ended, "uninstall");
  assert.equal(scene.source.isUninstalled, true);
});

test("an agent that cannot tell its disks apart says so, and goes on when it can", { timeout: 30_000 }, async () => {
  await using scene = await openScene();
  const { source, site, machineId } = scene;
  await using agent = scene.start();
  done(await scene.order({ kind: "replicate", policy }));
  done(await scene.order({ kind: "point" }));
  const facts = source.facts.bind(source);
  const fault = new Fault("DiskUnidentified", "could not tell the disk sda from sdb: both have one identity and one size");
  Object.assign(source, { facts: async () => await Promise.reject(fault) });
  const refused = await scene.order({ kind: "point" });
  assert.ok(refused.outcome === "failed" && refused.fault.id === "DiskUnidentified", JSON.stringify(refused));
  assert.equal(site.registry.get(machineId).state?.fault?.id, "DiskUnidentified");
  Object.assign(source, { facts });
  await scene.assertEqual(done(await scene.order({ kind: "point" })).pointId);
  void agent;
});

test("a copy of the machine sends no data, says why, and lets the appliance know of itself", { timeout: 30_000 }, async () => {
  await using scene = await openScene();
  scene.source.becomeClone();
  await using agent = scene.start();
  await assert.rejects(agent.ended, { code: "AgentCloned" });
  assert.deepEqual(scene.site.outcomes, []);
  const [copy] = scene.site.copies;
  assert.deepEqual([scene.site.copies.length, copy?.code, copy?.evidence["because"]], [1, "AgentCloned", "another SMBIOS UUID"]);
  assert.deepEqual(copy?.evidence["addressesOfCopy"], ["127.0.0.1"]);
});
