// What Microsoft's compute and network clients do with a machine that has landed: see all of it, switch it, read its console, remove it.

import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { ComputeManagementClient } from "@azure/arm-compute";
import { NetworkManagementClient } from "@azure/arm-network";
import type { Rig } from "../rig.ts";
import { collect } from "./wait-until.ts";

export interface LandedWish {
  readonly rig: Rig;
  readonly resourceGroup: string;
  readonly landedName: string;
  readonly location: string;
}

export async function useMachineBySdk(t: TestContext, wish: LandedWish): Promise<void> {
  const { rig, resourceGroup, landedName } = wish;
  const compute = new ComputeManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const machines = compute.virtualMachines;
  const power = async (): Promise<string | undefined> => {
    const { statuses = [] } = await machines.instanceView(resourceGroup, landedName);
    return statuses.find(({ code }) => code?.startsWith("PowerState/") === true)?.code;
  };
  await t.test("the landed machine is switched off, released, started and restarted", async () => {
    await machines.powerOff(resourceGroup, landedName, { skipShutdown: true });
    assert.equal(await power(), "PowerState/stopped");
    await machines.deallocate(resourceGroup, landedName);
    assert.equal(await power(), "PowerState/deallocated");
    await machines.start(resourceGroup, landedName);
    assert.equal(await power(), "PowerState/running");
    await machines.restart(resourceGroup, landedName);
    assert.equal(await power(), "PowerState/running");
  });
  await t.test("its console is read at an address that works for a while", async () => {
    const { serialConsoleLogBlobUri = "" } = await machines.retrieveBootDiagnosticsData(resourceGroup, landedName, {
      sasUriExpirationTimeInMinutes: 5,
    });
    const answer = await fetch(serialConsoleLogBlobUri);
    assert.equal(answer.status, 200);
    assert.ok((await answer.text()).length > 0);
    const forged = await fetch(serialConsoleLogBlobUri.replace(/sig=.{8}/, "sig=AAAAAAAA"));
    assert.equal(forged.status, 403);
  });
  await t.test("its tags change, and nothing else of it", async () => {
    await machines.update(resourceGroup, landedName, { tags: { owner: "conformance" } });
    assert.deepEqual((await machines.get(resourceGroup, landedName)).tags, { owner: "conformance" });
    await refused(machines.update(resourceGroup, landedName, { hardwareProfile: { vmSize: "Standard_D2s_v3" } }), 400);
    await refused(machines.createOrUpdate(resourceGroup, "made", { location: wish.location }), 400); // A machine is made of disks.
    await refused(machines.runCommand(resourceGroup, landedName, { commandId: "RunShellScript" }), 405);
  });
  await t.test("its disks, its interfaces and the sizes are listed", async () => await seeParts(wish, compute));
  if (rig.child === undefined) return; // A machine of a real lab stays.
  await t.test("it is removed, and its disks with it", async () => {
    await machines.delete(resourceGroup, landedName);
    await machines.delete(resourceGroup, landedName);
    assert.deepEqual(await collect(machines.listAll()), []);
    assert.deepEqual(await collect(compute.disks.list()), []);
  });
}

async function seeParts({ rig, resourceGroup, landedName, location }: LandedWish, compute: ComputeManagementClient): Promise<void> {
  const machine = await compute.virtualMachines.get(resourceGroup, landedName);
  const disks = await collect(compute.disks.listByResourceGroup(resourceGroup));
  const shown = [machine.storageProfile?.osDisk, ...(machine.storageProfile?.dataDisks ?? [])].map((disk) => disk?.managedDisk?.id);
  assert.deepEqual(
    disks.map(({ id }) => id),
    shown,
  );
  const diskName = disks[0]?.name ?? "";
  assert.equal((await compute.disks.get(resourceGroup, diskName)).managedBy, machine.id);
  await refused(compute.disks.delete(resourceGroup, diskName), 409);
  await refused(compute.disks.grantAccess(resourceGroup, diskName, { access: "Read", durationInSeconds: 60 }), 405);
  const network = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const interfaceId = machine.networkProfile?.networkInterfaces?.[0]?.id ?? "";
  const card = await network.networkInterfaces.get(resourceGroup, interfaceId.split("/").at(-1) ?? "");
  assert.equal(card.virtualMachine?.id, machine.id);
  assert.match(card.macAddress ?? "", /^([0-9A-F]{2}-){5}[0-9A-F]{2}$/);
  const cards = await collect(network.networkInterfaces.list(resourceGroup));
  assert.ok(cards.some(({ id }) => id === interfaceId));
  assert.ok(cards.some(({ privateEndpoint }) => privateEndpoint !== undefined));
  const sizes = await collect(compute.virtualMachineSizes.list(location));
  assert.equal(sizes[0]?.name, machine.hardwareProfile?.vmSize);
  assert.deepEqual(await collect(compute.availabilitySets.list(resourceGroup)), []);
  assert.equal((await collect(compute.virtualMachines.listByLocation(location))).length, 1);
}

async function refused(call: PromiseLike<unknown>, status: number): Promise<void> {
  await assert.rejects(
    async () => await call,
    (error: { readonly code?: string; readonly statusCode?: string | number }) => {
      assert.equal(Number(error.statusCode), status, error.code ?? "no code");
      assert.ok(error.code !== undefined && error.code !== "");
      return true;
    },
  );
}
