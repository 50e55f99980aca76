// An appliance that is reached at another address, or an agent that is registered anew: the machine keeps its id, and only what changed is sent.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { registerSimulatedAgent, startSimulatedAgent } from "../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../src/agent/sim/simulated-source.ts";
import { createFacts } from "../../src/appliance/testing/scripted-agent.ts";
import { startTestSite } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { parseDiskId, parseOrderId, type MachineId } from "../../src/contract/ids.ts";

const diskBytes = 8 * 2 ** 20;

test("the machine's id and its newest point stay, so that the next point is of what changed alone", async () => {
  await using site = await startTestSite();
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-moved-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  const path = join(folder, "disk");
  await writeFile(path, randomBytes(diskBytes));
  const { disks: _disks, ...machine } = createFacts();
  const facts = { diskId: parseDiskId("serial-a"), deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const options = { clock: systemClock, random: systemRandom, facts: machine, disks: [{ path, facts }] };
  const source = cleanup.use(await SimulatedSource.open(options));
  const parts = { source, stateFolder: join(folder, "state"), clock: systemClock, random: systemRandom };
  const register = async (host: string): Promise<MachineId> => {
    const passphraseFile = join(folder, "passphrase");
    await writeFile(passphraseFile, site.authority.passphrase, { mode: 0o600 });
    const appliance = { host, port: site.controlPort };
    return await registerSimulatedAgent({ ...parts, appliance, authorityPem: site.authority.caPem, passphraseFile });
  };
  const order = async (machineId: MachineId, kind: "replicate" | "point"): Promise<void> => {
    const orderId = parseOrderId(randomUUID());
    const policy = { pointIntervalSeconds: 3600, freezeMsMax: 2000 };
    site.orders.give(machineId, kind === "replicate" ? { kind, orderId, policy } : { kind, orderId });
    const result = await site.orders.waitResult(orderId);
    assert.equal(result.outcome, "done", JSON.stringify(result));
  };
  const machineId = await register("127.0.0.1");
  site.protect(machineId);
  const sentAt = (): number => site.registry.get(machineId).state?.sentBytes ?? assert.fail("no state was told");
  {
    await using _agent = startSimulatedAgent(parts);
    await order(machineId, "replicate");
    await order(machineId, "point");
    await order(machineId, "point"); // The poll that brings this result tells what was sent until then.
    assert.ok(sentAt() > diskBytes / 2, "the whole disk was sent once");
  }
  // The other address of the same appliance; its authority's name is what the agent trusts.
  assert.equal(await register("localhost"), machineId);
  await source.write("serial-a", 65_536, randomBytes(4096));
  await using _moved = startSimulatedAgent(parts);
  await order(machineId, "point");
  await order(machineId, "point");
  assert.ok(sentAt() < diskBytes / 8, `${sentAt()} bytes were sent after the move`);
  assert.equal(site.registry.list().length, 1);
});
