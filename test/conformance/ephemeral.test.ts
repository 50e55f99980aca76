// The promises of `watari hub --ephemeral`: one line, unmodified SDKs sign in and read, and after the stop nothing is left.

import assert from "node:assert/strict";
import { once } from "node:events";
import { access } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { test } from "node:test";
import { RecoveryServicesClient } from "@azure/arm-recoveryservices";
import { SiteRecoveryManagementClient } from "@azure/arm-recoveryservices-siterecovery";
import { tryCommand } from "../../src/base/run-command.ts";
import { collect, waitUntil } from "./journey/wait-until.ts";
import { startRig, type Rig } from "./rig.ts";

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect"); // Rejects with the socket's error.
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function assertNothingLeft({ facts }: Rig): Promise<void> {
  const folder = dirname(facts.caFile);
  await assert.rejects(access(folder), { code: "ENOENT" });
  assert.equal(await isListening(Number(new URL(facts.endpoint).port)), false);
  const { stdout } = await tryCommand("ps", ["-eo", "args"]);
  assert.ok(!stdout.includes(folder), "a process still works in the hub's folder");
}

test("an ephemeral hub is driven by unmodified SDKs, and leaves nothing after SIGTERM", async () => {
  const rig = await startRig({ machines: 2 });
  try {
    const vaults = new RecoveryServicesClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const vault = await vaults.vaults.get(rig.resourceGroup, rig.vault);
    assert.equal(vault.name, rig.vault);
    const replication = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const names: (string | undefined)[] = [];
    for await (const fabric of replication.replicationFabrics.list(rig.vault, rig.resourceGroup))
      for await (const container of replication.replicationProtectionContainers.listByReplicationFabrics(
        rig.vault,
        rig.resourceGroup,
        fabric.name ?? "",
      ))
        for await (const item of replication.replicationProtectableItems.listByReplicationProtectionContainers(
          rig.vault,
          rig.resourceGroup,
          fabric.name ?? "",
          container.name ?? "",
        ))
          names.push(item.properties?.friendlyName);
    assert.equal(names.length, 2);
    const [fabric] = await collect(replication.replicationFabrics.list(rig.vault, rig.resourceGroup));
    const provider = [rig.vault, rig.resourceGroup, fabric?.name ?? "", fabric?.name ?? ""] as const;
    await replication.replicationRecoveryServicesProviders.beginDeleteAndWait(...provider);
    assert.deepEqual(await collect(replication.replicationFabrics.list(rig.vault, rig.resourceGroup)), []);
  } finally {
    await rig[Symbol.asyncDispose]();
  }
  await assertNothingLeft(rig);
});

test("an ephemeral hub stops when the program that holds its stdin is gone", async () => {
  await using rig = await startRig();
  assert.ok(rig.child?.stdin);
  const ended = once(rig.child, "exit");
  rig.child.stdin.end();
  assert.deepEqual(await ended, [0, null]);
  await assertNothingLeft(rig);
});

test("an ephemeral hub that was killed leaves no database running, and the next one removes its files", async () => {
  const killed = await startRig();
  const folder = dirname(killed.facts.caFile);
  assert.ok(killed.child);
  const ended = once(killed.child, "exit");
  killed.child.kill("SIGKILL");
  await ended;
  await waitUntil("the end of its database", 20, async () => {
    const { stdout } = await tryCommand("ps", ["-eo", "args"]);
    return stdout.includes(folder) ? undefined : true;
  });
  await using next = await startRig();
  await assert.rejects(access(folder), { code: "ENOENT" });
  await access(next.facts.caFile);
});
