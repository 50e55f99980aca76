// The article's journey from the appliance in the vault to the machine that has moved, each call by Microsoft's client as it is.

import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import {
  SiteRecoveryManagementClient,
  type InMageAzureV2ReplicationDetails,
  type ProtectableItem,
  type ReplicationProtectedItem,
  type VMwareDetails,
  type VMwareVirtualMachineDetails,
} from "@azure/arm-recoveryservices-siterecovery";
import type { Rig } from "../rig.ts";
import { collect, waitUntil } from "./wait-until.ts";

export interface MigrationWish {
  readonly rig: Rig;
  readonly resourceGroup: string;
  readonly vault: string;
  readonly networkId: string;
  /** Name of the machine at its source. */
  readonly machine: string;
  /** Name of the run-as account that may install the agent. */
  readonly runAsAccount: string;
  readonly secondsMax: number;
}

interface Place {
  readonly fabric: string;
  readonly container: string;
  readonly containerId: string;
  readonly accountId: string;
  readonly processServerId: string;
  readonly protectable: ProtectableItem;
}

const policyName = "journey-policy";
const itemName = "journey-item";
const landedName = "journey-landed";

export async function migrateBySdk(t: TestContext, wish: MigrationWish): Promise<{ readonly landedName: string }> {
  const { rig, resourceGroup, vault } = wish;
  const client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const journey = new Migration(client, wish);
  const at = [vault, resourceGroup] as const;
  await t.test("the fabric shows its process server, its run-as account and the machine", async () => await journey.findMachine());
  await t.test("a policy is created", async () => await journey.createPolicy());
  await t.test("the machine is enabled, replicates and becomes Protected", async () => await journey.enable());
  await t.test("recovery points are listed and read", async () => await journey.readPoints());
  await t.test("compute and network are edited", async () => await journey.edit());
  await t.test("a test failover boots a copy, and its clean-up takes it away", async () => await journey.test());
  await t.test("the unplanned failover cuts over", async () => await journey.failOver());
  await t.test("the failover is committed", async () => await journey.commit());
  await t.test("the source's replication ends with MigrationComplete", async () => await journey.complete());
  await t.test("jobs and events tell all of it", async () => {
    const jobs = await collect(client.replicationJobs.list(...at));
    const scenarios = new Set(jobs.map((job) => job.properties?.scenarioName));
    for (const scenario of ["EnableProtection", "TestFailover", "UnplannedFailover"])
      assert.ok(scenarios.has(scenario), `no job ${scenario}`);
    const first = jobs.find((job) => job.properties?.scenarioName === "UnplannedFailover");
    const read = await client.replicationJobs.get(...at, first?.name ?? "");
    assert.equal(read.properties?.state, "Succeeded");
    assert.ok((read.properties?.tasks?.length ?? 0) > 0);
    await collect(client.replicationEvents.list(...at));
  });
  return { landedName };
}

class Migration {
  readonly #client: SiteRecoveryManagementClient;
  readonly #wish: MigrationWish;
  #found: Place | undefined;

  constructor(client: SiteRecoveryManagementClient, wish: MigrationWish) {
    this.#client = client;
    this.#wish = wish;
  }

  get #vault(): [string, string] {
    return [this.#wish.vault, this.#wish.resourceGroup];
  }

  get #place(): Place {
    assert.ok(this.#found !== undefined, "the machine was not found");
    return this.#found;
  }

  get #item(): [string, string, string, string, string] {
    return [...this.#vault, this.#place.fabric, this.#place.container, itemName];
  }

  async findMachine(): Promise<void> {
    this.#found = await waitUntil("the machine in the vault", this.#wish.secondsMax, async () => await this.#lookForMachine());
    const details = this.#place.protectable.properties?.customDetails;
    assert.ok(isVMware(details));
    assert.ok((details.diskDetails?.length ?? 0) >= 1);
    assert.equal(details.poweredOn, "On");
  }

  async #lookForMachine(): Promise<Place | undefined> {
    for await (const fabric of this.#client.replicationFabrics.list(...this.#vault)) {
      const details = fabric.properties?.customDetails;
      if (details?.instanceType !== "VMware") continue;
      const { processServers = [], runAsAccounts = [] } = details as VMwareDetails; // instanceType says so.
      const account = runAsAccounts.find(({ accountName }) => accountName === this.#wish.runAsAccount);
      const fabricName = fabric.name ?? "";
      for await (const container of this.#client.replicationProtectionContainers.listByReplicationFabrics(...this.#vault, fabricName)) {
        const items = this.#client.replicationProtectableItems.listByReplicationProtectionContainers(
          ...this.#vault,
          fabricName,
          container.name ?? "",
        );
        const protectable = (await collect(items)).find((item) => item.properties?.friendlyName === this.#wish.machine);
        const [server] = processServers;
        if (protectable === undefined || account?.accountId === undefined || server?.id === undefined) continue;
        const { name = "", id = "" } = container;
        return {
          fabric: fabricName,
          container: name,
          containerId: id,
          accountId: account.accountId,
          processServerId: server.id,
          protectable,
        };
      }
    }
    return undefined;
  }

  async createPolicy(): Promise<void> {
    const policy = await this.#client.replicationPolicies.beginCreateAndWait(...this.#vault, policyName, {
      properties: {
        providerSpecificInput: {
          instanceType: "InMageAzureV2",
          recoveryPointHistory: 1440,
          crashConsistentFrequencyInMinutes: 5,
          appConsistentFrequencyInMinutes: 60,
          multiVmSyncStatus: "Disable",
        },
      },
    });
    assert.equal(policy.name, policyName);
  }

  async enable(): Promise<void> {
    const { rig, resourceGroup, networkId } = this.#wish;
    const policy = await this.#client.replicationPolicies.get(...this.#vault, policyName);
    const enabled = await this.#client.replicationProtectedItems.beginCreateAndWait(...this.#item, {
      properties: {
        policyId: policy.id ?? "",
        protectableItemId: this.#place.protectable.id ?? "",
        providerSpecificDetails: {
          instanceType: "InMageAzureV2",
          processServerId: this.#place.processServerId,
          runAsAccountId: this.#place.accountId,
          targetAzureVmName: landedName,
          targetAzureNetworkId: networkId,
          targetAzureSubnetId: "default",
          targetAzureV2ResourceGroupId: `/subscriptions/${rig.subscriptionId}/resourceGroups/${resourceGroup}`,
        },
      },
    });
    assert.equal(enabled.properties?.friendlyName, this.#wish.machine);
    await waitUntil("the first replication", this.#wish.secondsMax, async () => {
      const { properties } = await this.#read();
      return properties?.protectionState === "Protected" ? true : undefined;
    });
  }

  async readPoints(): Promise<void> {
    const points = await waitUntil("a recovery point", this.#wish.secondsMax, async () => {
      const found = await collect(this.#client.recoveryPoints.listByReplicationProtectedItems(...this.#item));
      return found.length > 0 ? found : undefined;
    });
    const newest = await this.#client.recoveryPoints.get(...this.#item, points[0]?.name ?? "");
    assert.ok(newest.properties?.recoveryPointTime instanceof Date);
  }

  async edit(): Promise<void> {
    const before = await this.#read();
    const nics = detailsOf(before).vmNics ?? [];
    const updated = await this.#client.replicationProtectedItems.beginUpdateAndWait(...this.#item, {
      properties: {
        recoveryAzureVMName: landedName,
        recoveryAzureVMSize: "Standard_F2s_v2",
        selectedRecoveryAzureNetworkId: this.#wish.networkId,
        selectedTfoAzureNetworkId: this.#wish.networkId,
        vmNics: nics.slice(0, 1).map(({ nicId = "" }) => ({ nicId, selectionType: "SelectedByUser", recoveryVMSubnetName: "default" })),
        providerSpecificDetails: { instanceType: "InMageAzureV2", useManagedDisks: "True", targetVmTags: { moved: "yes" } },
      },
    });
    assert.equal(detailsOf(updated).recoveryAzureVMName, landedName);
    assert.equal(detailsOf(await this.#read()).recoveryAzureVMSize, "Standard_F2s_v2");
  }

  async test(): Promise<void> {
    const tested = await this.#client.replicationProtectedItems.beginTestFailoverAndWait(...this.#item, {
      properties: {
        failoverDirection: "PrimaryToRecovery",
        networkType: "VmNetworkAsInput",
        networkId: this.#wish.networkId,
        providerSpecificDetails: { instanceType: "InMageAzureV2" },
      },
    });
    assert.notEqual(tested.properties?.testFailoverState, "None");
    const cleaned = await this.#client.replicationProtectedItems.beginTestFailoverCleanupAndWait(...this.#item, {
      properties: { comments: "it answered" },
    });
    assert.equal(cleaned.properties?.testFailoverState, "None");
  }

  async failOver(): Promise<void> {
    const moved = await this.#client.replicationProtectedItems.beginUnplannedFailoverAndWait(...this.#item, {
      properties: {
        failoverDirection: "PrimaryToRecovery",
        sourceSiteOperations: "Required",
        providerSpecificDetails: { instanceType: "InMageAzureV2" },
      },
    });
    assert.equal(moved.properties?.protectionState, "UnplannedFailoverCommitPending");
  }

  async commit(): Promise<void> {
    const committed = await this.#client.replicationProtectedItems.beginFailoverCommitAndWait(...this.#item);
    assert.equal(committed.properties?.protectionState, "CommitFailoverCompleted");
  }

  async complete(): Promise<void> {
    await this.#client.replicationProtectedItems.beginDeleteAndWait(...this.#item, {
      properties: { disableProtectionReason: "MigrationComplete", replicationProviderInput: { instanceType: "InMage" } },
    });
    await assert.rejects(this.#read(), { statusCode: 404 });
  }

  async #read(): Promise<ReplicationProtectedItem> {
    return await this.#client.replicationProtectedItems.get(...this.#item);
  }
}

function isVMware(details: { readonly instanceType: string } | undefined): details is VMwareVirtualMachineDetails {
  return details?.instanceType === "VMwareVirtualMachine";
}

function detailsOf(item: ReplicationProtectedItem): InMageAzureV2ReplicationDetails {
  const details = item.properties?.providerSpecificDetails;
  assert.equal(details?.instanceType, "InMageAzureV2");
  return details as InMageAzureV2ReplicationDetails; // Checked in the line before.
}
