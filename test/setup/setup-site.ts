// What an appliance that is set up meets: a machine whose agent replicates, and another appliance of its vault.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { registerSimulatedAgent, startSimulatedAgent } from "../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../src/agent/sim/simulated-source.ts";
import { callAppliance } from "../../src/appliance/admin/admin-client.ts";
import { createStateFolder, parseApplianceConfig, saveConfig } from "../../src/appliance/config/config.ts";
import { createAgentOrders } from "../../src/appliance/control/agent-orders.ts";
import { createMachineRegistry } from "../../src/appliance/control/machine-registry.ts";
import { openStateDatabase } from "../../src/appliance/state/database.ts";
import type { FakeHub } from "../../src/appliance/testing/fake-hub.ts";
import { testPolicy } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { MachineFacts } from "../../src/contract/agent-control.ts";
import { parseDiskId, parseOrderId } from "../../src/contract/ids.ts";

const childProgram = join(import.meta.dirname, "../../src/appliance/testing/appliance-child.ts");
const diskBytes = 4 << 20;

export async function until(claim: string, isTrue: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = systemClock.monotonicMs() + 30_000;
  while (!(await isTrue())) {
    assert.ok(systemClock.monotonicMs() < endMs, `in time: ${claim}`);
    await systemClock.sleep(50);
  }
}

/** An agent with a machine of one disk, registered by the passphrase and told to replicate as a protect order does, without the push. */
export async function startProtectedMachine(applianceFolder: string, machine: MachineFacts): Promise<AsyncDisposable> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-machine-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  const path = join(folder, "disk");
  await writeFile(path, randomBytes(diskBytes));
  const { disks: _disks, ...facts } = machine;
  const disk = { diskId: parseDiskId("serial-a"), deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const world = { clock: systemClock, random: systemRandom };
  const source = cleanup.use(await SimulatedSource.open({ ...world, facts, disks: [{ path, facts: disk }] }));
  const agent = { ...world, source, stateFolder: join(folder, "state") };
  const passphraseFile = join(folder, "passphrase");
  const { passphrase, authorityPem } = await callAppliance(applianceFolder, "passphrase", {});
  await writeFile(passphraseFile, passphrase, { mode: 0o600 });
  const { controlPort } = await callAppliance(applianceFolder, "status", {});
  const appliance = { host: "127.0.0.1", port: controlPort };
  const machineId = await registerSimulatedAgent({ ...agent, appliance, authorityPem, passphraseFile });
  {
    using database = openStateDatabase(join(applianceFolder, "state.sqlite"));
    const orderId = parseOrderId(randomUUID());
    createMachineRegistry({ database, ...world, log: silentLog }).protect(machineId, {
      ...{ infrastructureId: randomUUID(), orderId, policy: testPolicy, address: "127.0.0.1", credentialId: "none" },
    });
    createAgentOrders({ database, clock: systemClock }).give(machineId, { kind: "replicate", orderId, policy: testPolicy });
  }
  cleanup.use(startSimulatedAgent(agent));
  const owned = cleanup.move();
  return { [Symbol.asyncDispose]: async () => await owned.disposeAsync() };
}

/** An appliance of its own process that is registered, and has told the hub how it is. */
export async function startRegistered(
  hub: FakeHub,
  { name, vaultResourceId }: { readonly name: string; readonly vaultResourceId: string },
): Promise<AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "watari-other-"));
  await createStateFolder(folder);
  const ports = { controlPort: 0, dataPort: 0, hubPort: hub.port };
  const network = { listenAddresses: ["127.0.0.1"], siteRanges: ["127.0.0.0/8"], hosts: [...hub.hosts] };
  await saveConfig(folder, parseApplianceConfig({ name, ...network, ...ports }));
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", childProgram, folder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", () => resolve());
    child.once("exit", (code) => reject(new Error(`the appliance ended with ${code}`)));
  });
  const toldBefore = hub.healthErrors.length;
  await callAppliance(folder, "register", { registrationKey: JSON.stringify(hub.createKey({ vaultResourceId })) });
  await until("it tells the hub of itself", () => hub.healthErrors.length > toldBefore);
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
