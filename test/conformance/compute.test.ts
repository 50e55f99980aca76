// Microsoft.Compute by Microsoft's unmodified client: a landed machine and its disks, every operation.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { ComputeManagementClient, type VirtualMachine } from "@azure/arm-compute";
import { NetworkManagementClient } from "@azure/arm-network";
import { AnonymousCredential, newPipeline, PageBlobClient } from "@azure/storage-blob";
import { ResourceManagementClient } from "@azure/arm-resources";
import { SiteRecoveryManagementClient, type VMwareDetails } from "@azure/arm-recoveryservices-siterecovery";
import { createVhdFooter } from "../../src/landing/vhd-footer.ts";
import { collect } from "./journey/wait-until.ts";
import { checkTable, refused, works } from "./operation-table.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let client: ComputeManagementClient;
let group = "";
let vm = "";
let disk = "";
const at = (): [string, string] => [group, vm];
const diskAt = (): [string, string] => [group, disk];
const notAllowed = "MethodNotAllowed";
const instanceType = "InMageAzureV2" as const;

before(async () => {
  rig = await startRig({ machines: 1 });
  client = new ComputeManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  group = rig.resourceGroup;
  await landTest();
  const [first] = await collect(client.virtualMachines.list(group));
  vm = first?.name ?? "";
  disk = first?.storageProfile?.osDisk?.name ?? "";
});
after(async () => await rig[Symbol.asyncDispose]());

/** A test of the one machine of the simulated site. */
async function landTest(): Promise<void> {
  const recovery = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const vault: [string, string] = [rig.vault, rig.resourceGroup];
  const [fabric] = await collect(recovery.replicationFabrics.list(...vault));
  const container: [string, string, string, string] = [...vault, fabric?.name ?? "", `cloud_${fabric?.name}`];
  const settings = {
    instanceType,
    recoveryPointHistory: 1440,
    crashConsistentFrequencyInMinutes: 5,
    multiVmSyncStatus: "Disable",
  } as const;
  const policy = await recovery.replicationPolicies.beginCreateAndWait(...vault, "policy", {
    properties: { providerSpecificInput: settings },
  });
  const [machine] = await collect(recovery.replicationProtectableItems.listByReplicationProtectionContainers(...container));
  const details = fabric?.properties?.customDetails;
  assert.ok(details?.instanceType === "VMware");
  const { runAsAccounts } = details as VMwareDetails; // instanceType says so.
  const runAsAccountId = runAsAccounts?.find(({ accountName }) => accountName === "root")?.accountId ?? "";
  await recovery.replicationProtectedItems.beginCreateAndWait(...container, "item", {
    properties: {
      policyId: policy.id ?? "",
      protectableItemId: machine?.id ?? "",
      providerSpecificDetails: { instanceType, runAsAccountId, storageAccountId: "" },
    },
  });
  await recovery.replicationProtectedItems.beginTestFailoverAndWait(...container, "item", {
    properties: { providerSpecificDetails: { instanceType } },
  });
}

const size = "Watari_1c_512m";
const diskBytes = 2 << 20;
const content = Buffer.alloc(64 << 10);
content.write("SIMGUEST:made");
const diskWish = {
  location: "local",
  tags: { owner: "test" },
  sku: { name: "Standard_LRS" },
  creationData: { createOption: "Upload", uploadSizeBytes: diskBytes + 512 },
  osType: "Linux",
  hyperVGeneration: "V1",
} as const;
let address = "";
const openPages = (): PageBlobClient => new PageBlobClient(address, newPipeline(new AnonymousCredential()));

function machineOf(interfaceIds: readonly string[], diskName: string): VirtualMachine {
  const id = `/subscriptions/${rig.subscriptionId}/resourceGroups/${group}/providers/Microsoft.Compute/disks/${diskName}`;
  return {
    location: "local",
    licenseType: "RHEL_BYOS",
    hardwareProfile: { vmSize: size },
    storageProfile: { osDisk: { createOption: "Attach", osType: "Linux", managedDisk: { id } } },
    networkProfile: { networkInterfaces: interfaceIds.map((each) => ({ id: each, primary: true })) },
    diagnosticsProfile: { bootDiagnostics: { enabled: true } },
  };
}

const powerOf = async (): Promise<string | undefined> =>
  (await client.virtualMachines.instanceView(...at())).statuses?.find(({ code }) => code?.startsWith("PowerState/"))?.code;

describe("Microsoft.Compute", () => {
  checkTable(
    { virtualMachines: () => client.virtualMachines, disks: () => client.disks, virtualMachineSizes: () => client.virtualMachineSizes },
    {
      "virtualMachines.get": works(async () => {
        const found = await client.virtualMachines.get(...at());
        assert.deepEqual([found.name, found.provisioningState], [vm, "Succeeded"]);
      }),
      "virtualMachines.list": works(async () => assert.equal((await collect(client.virtualMachines.list(group))).length, 1)),
      "virtualMachines.listAll": works(async () => {
        const [listed, ...others] = await collect(client.virtualMachines.listAll({ statusOnly: "true" }));
        assert.equal(others.length, 0);
        assert.ok(
          listed?.instanceView?.statuses?.some(({ code }) => code === "PowerState/running"),
          "its status is with it",
        );
      }),
      "virtualMachines.listByLocation": works(async () => {
        const { location } = await client.virtualMachines.get(...at());
        assert.equal((await collect(client.virtualMachines.listByLocation(location))).length, 1);
      }),
      "virtualMachines.listAvailableSizes": works(async () =>
        assert.ok((await collect(client.virtualMachines.listAvailableSizes(...at()))).length > 0),
      ),
      "virtualMachines.instanceView": works(async () => assert.equal(await powerOf(), "PowerState/running")),
      "virtualMachines.powerOff": works(async () => {
        await client.virtualMachines.powerOff(...at());
        assert.equal(await powerOf(), "PowerState/stopped");
      }),
      "virtualMachines.start": works(async () => {
        await client.virtualMachines.start(...at());
        assert.equal(await powerOf(), "PowerState/running");
      }),
      "virtualMachines.restart": works(async () => {
        await client.virtualMachines.restart(...at());
        assert.equal(await powerOf(), "PowerState/running");
      }),
      "virtualMachines.deallocate": works(async () => {
        await client.virtualMachines.deallocate(...at());
        assert.equal(await powerOf(), "PowerState/deallocated");
        await client.virtualMachines.start(...at());
        await client.virtualMachines.deallocate(...at(), { forceDeallocate: true });
        assert.equal(await powerOf(), "PowerState/deallocated");
      }),
      "virtualMachines.update": works(async () => {
        assert.deepEqual((await client.virtualMachines.update(...at(), { tags: { a: "1" } })).tags, { a: "1" });
      }),
      "virtualMachines.retrieveBootDiagnosticsData": works(async () => {
        const { serialConsoleLogBlobUri = "" } = await client.virtualMachines.retrieveBootDiagnosticsData(...at());
        assert.equal((await fetch(serialConsoleLogBlobUri)).status, 200);
      }),
      "virtualMachines.createOrUpdate of a landed machine": refused(
        notAllowed,
        "landed from a recovery point",
        async () => await client.virtualMachines.createOrUpdate(...at(), machineOf([], "")),
      ),
      "virtualMachines.runCommand": refused(
        notAllowed,
        "no hands in the guest",
        async () => await client.virtualMachines.runCommand(...at(), { commandId: "RunShellScript" }),
      ),
      ...refusals("virtualMachines", {
        reimage: ["has no image", async () => await client.virtualMachines.reimage(...at())],
        redeploy: ["there is one host", async () => await client.virtualMachines.redeploy(...at())],
        reapply: ["no state beside its own", async () => await client.virtualMachines.reapply(...at())],
        performMaintenance: ["not maintained", async () => await client.virtualMachines.performMaintenance(...at())],
        generalize: ["are no images", async () => await client.virtualMachines.generalize(...at())],
        convertToManagedDisks: ["managed already", async () => await client.virtualMachines.convertToManagedDisks(...at())],
        assessPatches: ["no hands in the guest", async () => await client.virtualMachines.assessPatches(...at())],
        simulateEviction: ["not evicted", async () => await client.virtualMachines.simulateEviction(...at())],
        attachDetachDataDisks: ["keeps the disks", async () => await client.virtualMachines.attachDetachDataDisks(...at(), {})],
        migrateToVMScaleSet: ["no scale sets", async () => await client.virtualMachines.migrateToVMScaleSet(...at())],
        capture: [
          "are no images",
          async () =>
            await client.virtualMachines.capture(...at(), { vhdPrefix: "a", destinationContainerName: "b", overwriteVhds: false }),
        ],
        installPatches: [
          "no hands in the guest",
          async () => await client.virtualMachines.installPatches(...at(), { rebootSetting: "Never" }),
        ],
      }),
      "virtualMachines.delete": refused(
        "Conflict",
        "counts on it",
        async () => await client.virtualMachines.delete(...at(), { forceDeletion: true }),
      ),
      "disks.get": works(async () => assert.equal((await client.disks.get(...diskAt())).diskState, "Attached")),
      "disks.list": works(async () => assert.ok((await collect(client.disks.list())).some(({ name }) => name === disk))),
      "disks.listByResourceGroup": works(async () => assert.ok((await collect(client.disks.listByResourceGroup(group))).length > 0)),
      "disks.createOrUpdate of a landed machine": refused(
        notAllowed,
        "belongs to a landed machine",
        async () => await client.disks.createOrUpdate(...diskAt(), { location: "local", creationData: { createOption: "Empty" } }),
      ),
      "disks.update": refused(notAllowed, "not supported here", async () => await client.disks.update(...diskAt(), { tags: {} })),
      "disks.delete": refused("Conflict", "attached to a landed machine", async () => await client.disks.delete(...diskAt())),
      "disks.grantAccess of a landed machine": refused(
        notAllowed,
        "belongs to a landed machine",
        async () => await client.disks.grantAccess(...diskAt(), { access: "Read", durationInSeconds: 60 }),
      ),
      "disks.revokeAccess of a landed machine": refused(
        notAllowed,
        "belongs to a landed machine",
        async () => await client.disks.revokeAccess(...diskAt()),
      ),
      "disks.createOrUpdate": works(async () => {
        const made = await client.disks.createOrUpdate(group, "made-os", diskWish);
        assert.deepEqual([made.diskState, made.diskSizeBytes, made.tags], ["ReadyToUpload", diskBytes, { owner: "test" }]);
        assert.equal((await client.disks.createOrUpdate(group, "made-os", diskWish)).uniqueId, made.uniqueId, "again is the same");
      }),
      "disks.grantAccess": works(async () => {
        const { accessSAS = "" } = await client.disks.grantAccess(group, "made-os", { access: "Write", durationInSeconds: 600 });
        address = accessSAS;
        assert.equal((await client.disks.get(group, "made-os")).diskState, "ActiveUpload");
        const page = openPages();
        await page.uploadPages(content, 0, content.length);
        await assert.rejects(page.uploadPages(content, 0, content.length, { transactionalContentMD5: new Uint8Array(16) }), {
          code: "Md5Mismatch",
        });
        await assert.rejects(page.uploadPages(content, diskBytes + 512, content.length), { code: "InvalidRange" });
        const footer = createVhdFooter({ sizeBytes: diskBytes, timeMs: 946_684_800_000, uniqueId: new Uint8Array(16) });
        await page.uploadPages(footer, diskBytes, footer.length);
        assert.deepEqual(
          (await page.getPageRanges()).pageRange?.map(({ offset }) => offset),
          [0, diskBytes],
        );
        assert.deepEqual(await page.downloadToBuffer(0, content.length), content);
      }),
      "disks.revokeAccess": works(async () => {
        await client.disks.revokeAccess(group, "made-os");
        assert.equal((await client.disks.get(group, "made-os")).diskState, "Unattached");
        await assert.rejects(openPages().uploadPages(content, 0, content.length), { code: "AuthenticationFailed" });
      }),
      "virtualMachines.createOrUpdate": works(async () => {
        const network = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
        const [subnet] = await collect(network.subnets.list(group, "landing"));
        const nic = await network.networkInterfaces.createOrUpdate(group, "made-nic", {
          location: "local",
          ipConfigurations: [{ name: "ipconfig1", subnet: { id: subnet?.id ?? "" } }],
        });
        const wish = machineOf([nic.id ?? ""], "made-os");
        const made = await client.virtualMachines.createOrUpdate(group, "made", wish);
        assert.deepEqual([made.provisioningState, made.licenseType, made.hardwareProfile?.vmSize], ["Succeeded", "RHEL_BYOS", size]);
        assert.equal((await client.virtualMachines.createOrUpdate(group, "made", wish)).vmId, made.vmId, "again is the same");
        const { diskState, managedBy } = await client.disks.get(group, "made-os");
        assert.deepEqual([diskState, managedBy], ["Attached", made.id]);
        assert.equal((await network.networkInterfaces.get(group, "made-nic")).virtualMachine?.id, made.id);
        await assert.rejects(client.disks.delete(group, "made-os"), { code: "Conflict" });
        await assert.rejects(network.networkInterfaces.delete(group, "made-nic"), { code: "Conflict" });
        await assert.rejects(client.virtualMachines.createOrUpdate(group, "other", wish), { code: "Conflict" });
        await client.virtualMachines.powerOff(group, "made");
        await client.virtualMachines.delete(group, "made");
        await network.networkInterfaces.delete(group, "made-nic");
        await client.disks.delete(group, "made-os");
        assert.ok(!(await collect(client.disks.listByResourceGroup(group))).some(({ name }) => name === "made-os"));
      }),
      "virtualMachineSizes.list": works(async () => assert.ok((await collect(client.virtualMachineSizes.list("local"))).length > 0)),
    },
  );

  it("a group whose machines are protected is not deleted", async () => {
    const groups = new ResourceManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions).resourceGroups;
    await assert.rejects(async () => await groups.delete(group), { code: "Conflict", message: /machines are protected in it/ });
    assert.equal((await groups.get(group)).properties?.provisioningState, "Succeeded");
  });
});

function refusals(
  name: string,
  calls: Readonly<Record<string, readonly [string, () => Promise<unknown>]>>,
): Record<string, ReturnType<typeof refused>> {
  return Object.fromEntries(
    Object.entries(calls).map(([operation, [why, call]]) => [`${name}.${operation}`, refused(notAllowed, why, call)]),
  );
}
