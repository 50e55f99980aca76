// How a machine lands, by Microsoft's unmodified clients: each documented field is used, answered or refused, and the landed machine shows it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { ComputeManagementClient } from "@azure/arm-compute";
import { NetworkManagementClient } from "@azure/arm-network";
import type {
  InMageAzureV2EnableProtectionInput,
  InMageAzureV2ReplicationDetails,
  InMageAzureV2UpdateReplicationProtectedItemInput,
  IPConfigInputDetails,
  UpdateReplicationProtectedItemInputProperties,
  VMNicInputDetails,
} from "@azure/arm-recoveryservices-siterecovery";
import { openWorld, type CoverageWorld } from "./coverage-world.ts";
import { inputFields } from "./input-fields.ts";
import { startRig, type Rig } from "./rig.ts";

const instanceType = "InMageAzureV2";
const itemName = "settings-item";
let rig: Rig;
let world: CoverageWorld;
let verdicts: ReadonlyMap<string, string>;

before(async () => {
  rig = await startRig({ machines: 3 });
  world = await openWorld(rig);
  const lines = (await readFile(join(import.meta.dirname, "input-fields.tsv"), "utf8")).trimEnd().split("\n").slice(1);
  verdicts = new Map(lines.map((line) => line.split("\t") as [string, string])); // Two columns.
});
after(async () => await rig[Symbol.asyncDispose]());

type Item = [string, string, string, string, string];
const at = (): Item => [...world.vault, world.fabric, world.container, itemName];

async function readDetails(): Promise<InMageAzureV2ReplicationDetails> {
  const details = (await world.client.replicationProtectedItems.get(...at())).properties?.providerSpecificDetails;
  assert.ok(details?.instanceType === instanceType);
  return details as InMageAzureV2ReplicationDetails; // instanceType says so.
}

async function enable(more: Partial<InMageAzureV2EnableProtectionInput>): Promise<unknown> {
  const details = { instanceType, runAsAccountId: world.accountId, targetAzureNetworkId: "landing", ...more } as const;
  const properties = { protectableItemId: world.machines[0]?.id ?? "", providerSpecificDetails: details };
  return await world.client.replicationProtectedItems.beginCreateAndWait(...at(), { properties });
}

async function change(properties: UpdateReplicationProtectedItemInputProperties): Promise<unknown> {
  return await world.client.replicationProtectedItems.beginUpdateAndWait(...at(), { properties });
}

/** Fields of a model that the table says are refused. */
function refusedOf(model: string): readonly string[] {
  return [...verdicts]
    .filter(([field, verdict]) => field.startsWith(`${model}.`) && verdict === "refused")
    .map(([field]) => field.slice(model.length + 1));
}

async function assertRefused(field: string, call: () => Promise<unknown>): Promise<void> {
  const isAboutIt = (error: unknown): boolean =>
    error instanceof Error && "statusCode" in error && error.statusCode === 400 && error.message.includes(field);
  await assert.rejects(call, isAboutIt, field);
}

/** Something that asks for the field. */
function valueOf(field: string): unknown {
  if (field.endsWith("PoolIds")) return ["/x"];
  return field.startsWith("reuse") || field.startsWith("tfoReuse") ? true : "x";
}

it("every field of the SDK's input models is decided, and no line is of a field that is gone", async () => {
  assert.deepEqual([...verdicts.keys()], inputFields());
  for (const verdict of verdicts.values()) assert.match(verdict, /^(used|answered|refused)$/);
});

describe("the settings of a protected item", () => {
  it("are refused at enable where they mean nothing here", async () => {
    for (const field of refusedOf("InMageAzureV2EnableProtectionInput"))
      await assertRefused(field, async () => await enable({ [field]: valueOf(field) }));
    await assertRefused("processServerId", async () => await enable({ processServerId: "other" }));
    await assertRefused("targetAzureV2ResourceGroupId", async () => await enable({ targetAzureV2ResourceGroupId: "/subscriptions/x" }));
    await assertRefused("enableRdpOnTargetOption", async () => await enable({ enableRdpOnTargetOption: "Always" }));
    await assertRefused("disksToInclude", async () => await enable({ disksToInclude: [{ diskId: "none" }] }));
  });

  it("are answered after the enable call under their documented names", async () => {
    const answered = {
      masterTargetId: "mt",
      licenseType: "NoLicenseType",
      sqlServerLicenseType: "NotSpecified",
      enableRdpOnTargetOption: "Never",
      seedManagedDiskTags: { seed: "1" },
      targetManagedDiskTags: { disk: "1" },
      targetNicTags: { nic: "1" },
    } as const;
    await enable({
      ...answered,
      storageAccountId: "/cache",
      logStorageAccountId: "/log",
      targetVmSize: "Standard_F2s",
      diskType: "Premium_LRS",
    });
    const shown = await readDetails();
    for (const [name, value] of Object.entries(answered)) assert.deepEqual(Reflect.get(shown, name), value, name);
    assert.deepEqual(
      [shown.recoveryAzureStorageAccount, shown.recoveryAzureLogStorageAccountId, shown.recoveryAzureVMSize],
      ["/cache", "/log", "Standard_F2s"],
    );
    assert.ok((shown.protectedManagedDisks?.length ?? 0) > 1);
    assert.deepEqual([...new Set(shown.protectedManagedDisks?.map(({ replicaDiskType }) => replicaDiskType))], ["Premium_LRS"]);
  });

  it("are refused by PATCH where they mean nothing here, each by its path", async () => {
    const nicId = (await readDetails()).vmNics?.[0]?.nicId ?? "";
    for (const field of refusedOf("UpdateReplicationProtectedItemInputProperties"))
      await assertRefused(field, async () => await change({ [field]: valueOf(field) }));
    for (const field of refusedOf("InMageAzureV2UpdateReplicationProtectedItemInput")) {
      const details: InMageAzureV2UpdateReplicationProtectedItemInput = { instanceType, [field]: valueOf(field) };
      await assertRefused(field, async () => await change({ providerSpecificDetails: details }));
    }
    for (const field of refusedOf("VMNicInputDetails")) {
      const nic: VMNicInputDetails = { nicId, [field]: valueOf(field) };
      await assertRefused(field, async () => await change({ vmNics: [nic] }));
    }
    for (const field of refusedOf("IPConfigInputDetails")) {
      const address: IPConfigInputDetails = { [field]: valueOf(field) };
      await assertRefused(field, async () => await change({ vmNics: [{ nicId, ipConfigs: [address] }] }));
    }
    await assertRefused("nicId", async () => await change({ vmNics: [{ nicId: "none" }] }));
    const all = ((await readDetails()).vmNics ?? []).map((nic) => ({ nicId: nic.nicId ?? "", selectionType: "NotSelected" }));
    await assertRefused("vmNics", async () => await change({ vmNics: all }));
  });

  it("of cards and disks reach the landed machine: which ones, their order, names and tags", async () => {
    const [first, second] = (await readDetails()).vmNics ?? [];
    assert.ok(first?.nicId !== undefined && second?.nicId !== undefined, "the machine has two cards");
    const diskId = (await readDetails()).protectedDisks?.[0]?.diskId ?? "";
    await change({
      recoveryAzureVMName: "settings-landed",
      selectedSourceNicId: second.nicId,
      vmNics: [
        {
          nicId: first.nicId,
          selectionType: "SelectedByUser",
          targetNicName: "storage-card",
          ipConfigs: [{ ipConfigName: "own", isPrimary: true }],
        },
        { nicId: second.nicId, selectionType: "SelectedByUser", recoveryNicName: "front-card" },
      ],
      providerSpecificDetails: { instanceType, targetVmTags: { team: "move" }, vmDisks: [{ diskId, targetDiskName: "system-disk" }] },
    });
    const shown = await readDetails();
    assert.deepEqual([shown.selectedSourceNicId, shown.targetVmTags], [second.nicId, { team: "move" }]);
    assert.deepEqual(
      shown.vmNics?.map(({ targetNicName, recoveryNicName, ipConfigs }) => [targetNicName ?? recoveryNicName, ipConfigs?.[0]?.name]),
      [
        ["storage-card", "own"],
        ["front-card", "ipconfig1"],
      ],
    );
    const move = {
      failoverDirection: "PrimaryToRecovery",
      sourceSiteOperations: "Required",
      providerSpecificDetails: { instanceType },
    } as const;
    await world.client.replicationProtectedItems.beginUnplannedFailoverAndWait(...at(), { properties: move });
    assert.deepEqual(await landedCards(), [
      ["front-card", true],
      ["storage-card", false],
    ]);
    const compute = new ComputeManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const machine = await compute.virtualMachines.get(rig.resourceGroup, "settings-landed");
    assert.deepEqual(machine.tags, { team: "move" });
    assert.equal((await compute.disks.get(rig.resourceGroup, "system-disk")).tags?.["disk"], "1");
    const network = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
    const card = await network.networkInterfaces.get(rig.resourceGroup, "front-card");
    assert.deepEqual([card.primary, card.tags], [true, { nic: "1" }]);
  });

  it("leave out a card that is not selected", async () => {
    await world.client.replicationProtectedItems.beginFailoverCancelAndWait(...at());
    const [first] = (await readDetails()).vmNics ?? [];
    await change({ vmNics: [{ nicId: first?.nicId ?? "", selectionType: "NotSelected" }] });
    const move = {
      failoverDirection: "PrimaryToRecovery",
      sourceSiteOperations: "Required",
      providerSpecificDetails: { instanceType },
    } as const;
    await world.client.replicationProtectedItems.beginUnplannedFailoverAndWait(...at(), { properties: move });
    assert.deepEqual(await landedCards(), [["front-card", true]]);
  });
});

async function landedCards(): Promise<readonly (readonly [string | undefined, boolean | undefined])[]> {
  const compute = new ComputeManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const machine = await compute.virtualMachines.get(rig.resourceGroup, "settings-landed");
  return (machine.networkProfile?.networkInterfaces ?? []).map(({ id, primary }) => [id?.split("/").at(-1), primary] as const);
}
