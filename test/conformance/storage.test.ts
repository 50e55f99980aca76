// Microsoft.Storage by Microsoft's unmodified clients: every operation, and signatures that the blob service holds callers to.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { NetworkManagementClient } from "@azure/arm-network";
import { StorageManagementClient } from "@azure/arm-storage";
import { systemClock, toDate } from "../../src/base/clock.ts";
import { checkSignatures } from "./blob-signatures.ts";
import { collect } from "./journey/wait-until.ts";
import { checkTable, refused, works } from "./operation-table.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let client: StorageManagementClient;
let network: NetworkManagementClient;
let group = "";
const account = "confstore1";
const at = (): [string, string] => [group, account];
const unsupported = "OperationNotSupported";
const hourMs = 3_600_000;
const inOneHour = (): Date => toDate(systemClock.nowMs() + hourMs);

before(async () => {
  rig = await startRig();
  client = new StorageManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  network = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  group = rig.resourceGroup;
});
after(async () => await rig[Symbol.asyncDispose]());

describe("Microsoft.Storage", () => {
  const onlyBlobs = "a blob service and no other";
  const oneCopy = "keeps an account's blobs once";
  const immutable = "packs of a vault are immutable by themselves";
  const noTasks = "runs no storage tasks";
  checkTable(
    {
      storageAccounts: () => client.storageAccounts,
      blobServices: () => client.blobServices,
      blobContainers: () => client.blobContainers,
      privateEndpointConnections: () => client.privateEndpointConnections,
      privateLinkResources: () => client.privateLinkResources,
      usages: () => client.usages,
      skus: () => client.skus,
      deletedAccounts: () => client.deletedAccounts,
      managementPolicies: () => client.managementPolicies,
      blobInventoryPolicies: () => client.blobInventoryPolicies,
      encryptionScopes: () => client.encryptionScopes,
      objectReplicationPolicies: () => client.objectReplicationPolicies,
      localUsers: () => client.localUsers,
      fileServices: () => client.fileServices,
      fileShares: () => client.fileShares,
      queueServices: () => client.queueServices,
      queue: () => client.queue,
      tableServices: () => client.tableServices,
      table: () => client.table,
      networkSecurityPerimeterConfigurations: () => client.networkSecurityPerimeterConfigurations,
      storageTaskAssignments: () => client.storageTaskAssignments,
      storageTaskAssignmentsInstancesReport: () => client.storageTaskAssignmentsInstancesReport,
      storageTaskAssignmentInstancesReport: () => client.storageTaskAssignmentInstancesReport,
    },
    {
      "storageAccounts.checkNameAvailability": works(async () => {
        const type = "Microsoft.Storage/storageAccounts" as const;
        assert.equal((await client.storageAccounts.checkNameAvailability({ name: account, type })).nameAvailable, true);
        assert.equal((await client.storageAccounts.checkNameAvailability({ name: "No", type })).reason, "AccountNameInvalid");
      }),
      "storageAccounts.create": works(async () => {
        const made = await client.storageAccounts.create(...at(), {
          ...{ location: "local", kind: "StorageV2", sku: { name: "Standard_LRS" }, tags: { made: "by the test" } },
          ...{ publicNetworkAccess: "Enabled", accessTier: "Cool", allowBlobPublicAccess: false },
        });
        assert.equal(made.sku?.tier, "Standard");
        assert.equal(made.accessTier, "Cool");
        assert.equal(made.publicNetworkAccess, "Enabled");
        assert.match(made.primaryEndpoints?.blob ?? "", /^https:\/\/confstore1\.blob\./);
        const type = "Microsoft.Storage/storageAccounts" as const;
        assert.equal((await client.storageAccounts.checkNameAvailability({ name: account, type })).reason, "AlreadyExists");
      }),
      "storageAccounts.create asks for files": refused("InvalidRequestContent", "isHnsEnabled cannot be set here", async () => {
        const wanted = { location: "local", kind: "StorageV2", sku: { name: "Standard_LRS" }, isHnsEnabled: true };
        await client.storageAccounts.create(group, "confstore2", wanted);
      }),
      "storageAccounts.create forbids keys": refused("InvalidRequestContent", "has the wrong form", async () => {
        const wanted = { location: "local", kind: "StorageV2", sku: { name: "Standard_LRS" }, allowSharedKeyAccess: false };
        await client.storageAccounts.create(group, "confstore2", wanted);
      }),
      "storageAccounts.getProperties": works(async () => {
        const found = await client.storageAccounts.getProperties(...at());
        assert.ok(found.creationTime instanceof Date && found.keyCreationTime?.key1 instanceof Date);
        assert.deepEqual(found.privateEndpointConnections, []);
      }),
      "storageAccounts.update": works(async () => {
        const changed = await client.storageAccounts.update(...at(), { tags: { other: "1" }, accessTier: "Hot" });
        assert.deepEqual([changed.tags, changed.accessTier, changed.publicNetworkAccess], [{ other: "1" }, "Hot", "Enabled"]);
      }),
      "storageAccounts.list": works(async () =>
        assert.ok((await collect(client.storageAccounts.list())).some(({ name }) => name === account)),
      ),
      "storageAccounts.listByResourceGroup": works(async () =>
        assert.ok((await collect(client.storageAccounts.listByResourceGroup(group))).some(({ name }) => name === account)),
      ),
      "storageAccounts.listKeys": works(async () => {
        const { keys = [] } = await client.storageAccounts.listKeys(...at());
        assert.deepEqual(
          keys.map(({ keyName, permissions }) => `${keyName} ${permissions}`),
          ["key1 FULL", "key2 FULL"],
        );
      }),
      "storageAccounts.regenerateKey": works(async () => {
        const before = (await client.storageAccounts.listKeys(...at())).keys ?? [];
        const after = (await client.storageAccounts.regenerateKey(...at(), { keyName: "key2" })).keys ?? [];
        assert.equal(after[0]?.value, before[0]?.value);
        assert.notEqual(after[1]?.value, before[1]?.value);
      }),
      "storageAccounts.regenerateKey of Kerberos": refused(
        "InvalidRequestContent",
        "has the wrong form",
        async () => await client.storageAccounts.regenerateKey(...at(), { keyName: "kerb1" }),
      ),
      "storageAccounts.listAccountSAS": works(async () => {
        const wish = { services: "b", resourceTypes: "sco", permissions: "rl", sharedAccessExpiryTime: inOneHour() };
        const { accountSasToken = "" } = await client.storageAccounts.listAccountSAS(...at(), wish);
        assert.deepEqual(new URLSearchParams(accountSasToken).get("srt"), "sco");
      }),
      "storageAccounts.listAccountSAS for queues": refused("InvalidRequestContent", "has the wrong form", async () => {
        const wish = { services: "bq", resourceTypes: "sco", permissions: "rl", sharedAccessExpiryTime: inOneHour() };
        await client.storageAccounts.listAccountSAS(...at(), wish);
      }),
      "storageAccounts.listServiceSAS": works(async () => {
        const wish = {
          canonicalizedResource: `/blob/${account}/box`,
          resource: "c",
          permissions: "r",
          sharedAccessExpiryTime: inOneHour(),
        };
        const { serviceSasToken = "" } = await client.storageAccounts.listServiceSAS(...at(), wish);
        assert.equal(new URLSearchParams(serviceSasToken).get("sr"), "c");
      }),
      "storageAccounts.listServiceSAS of another account": refused("InvalidRequestContent", "of another account", async () => {
        const wish = { canonicalizedResource: "/blob/other/box", resource: "c", permissions: "r", sharedAccessExpiryTime: inOneHour() };
        await client.storageAccounts.listServiceSAS(...at(), wish);
      }),
      "storageAccounts.listServiceSAS with a policy": refused("InvalidRequestContent", "has the wrong form", async () => {
        const wish = { canonicalizedResource: `/blob/${account}/box`, resource: "c", identifier: "p", sharedAccessExpiryTime: inOneHour() };
        await client.storageAccounts.listServiceSAS(...at(), { ...wish, permissions: "r" });
      }),
      "storageAccounts.failover": refused(unsupported, oneCopy, async () => await client.storageAccounts.failover(...at())),
      "storageAccounts.customerInitiatedMigration": refused(
        unsupported,
        oneCopy,
        async () => await client.storageAccounts.customerInitiatedMigration(...at(), { targetSkuName: "Standard_ZRS" }),
      ),
      "storageAccounts.getCustomerInitiatedMigration": refused(
        unsupported,
        oneCopy,
        async () => await client.storageAccounts.getCustomerInitiatedMigration(...at(), "default"),
      ),
      "storageAccounts.hierarchicalNamespaceMigration": refused(
        unsupported,
        onlyBlobs,
        async () => await client.storageAccounts.hierarchicalNamespaceMigration(...at(), "HnsOnValidationRequest"),
      ),
      "storageAccounts.abortHierarchicalNamespaceMigration": refused(
        unsupported,
        onlyBlobs,
        async () => await client.storageAccounts.abortHierarchicalNamespaceMigration(...at()),
      ),
      "storageAccounts.restoreBlobRanges": refused(
        unsupported,
        "deleted is gone",
        async () => await client.storageAccounts.restoreBlobRanges(...at(), { timeToRestore: inOneHour(), blobRanges: [] }),
      ),
      "storageAccounts.revokeUserDelegationKeys": refused(
        unsupported,
        "regenerate the key",
        async () => await client.storageAccounts.revokeUserDelegationKeys(...at()),
      ),
      "blobServices.getServiceProperties": works(async () => {
        const found = await client.blobServices.getServiceProperties(...at());
        assert.deepEqual([found.name, found.deleteRetentionPolicy?.enabled, found.isVersioningEnabled], ["default", false, false]);
      }),
      "blobServices.setServiceProperties": works(async () => {
        const set = await client.blobServices.setServiceProperties(...at(), { defaultServiceVersion: "2021-12-02" });
        assert.equal(set.defaultServiceVersion, "2021-12-02");
        assert.equal((await client.blobServices.getServiceProperties(...at())).defaultServiceVersion, "2021-12-02");
      }),
      "blobServices.setServiceProperties with versions": refused(
        "InvalidRequestContent",
        "isVersioningEnabled cannot be set here",
        async () => await client.blobServices.setServiceProperties(...at(), { isVersioningEnabled: true }),
      ),
      "blobServices.list": works(async () => assert.equal((await collect(client.blobServices.list(...at()))).length, 1)),
      "blobContainers.create": works(async () => {
        const made = await client.blobContainers.create(...at(), "box", { metadata: { owner: "test" } });
        assert.deepEqual([made.name, made.publicAccess, made.metadata], ["box", "None", { owner: "test" }]);
      }),
      "blobContainers.create open to all": refused(
        "InvalidRequestContent",
        "has the wrong form",
        async () => await client.blobContainers.create(...at(), "open", { publicAccess: "Blob" }),
      ),
      "blobContainers.get": works(async () => {
        const found = await client.blobContainers.get(...at(), "box");
        assert.ok(found.lastModifiedTime instanceof Date);
        assert.deepEqual([found.leaseState, found.hasLegalHold], ["Available", false]);
      }),
      "blobContainers.update": works(async () => {
        const changed = await client.blobContainers.update(...at(), "box", { metadata: { owner: "other" } });
        assert.deepEqual(changed.metadata, { owner: "other" });
      }),
      "blobContainers.list": works(async () => {
        for (const name of ["box2", "box3"]) await client.blobContainers.create(...at(), name, {});
        const names = (await collect(client.blobContainers.list(...at()))).map(({ name }) => name);
        assert.deepEqual(names, ["box", "box2", "box3"]);
      }),
      "blobContainers.getImmutabilityPolicy": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.getImmutabilityPolicy(...at(), "box"),
      ),
      "blobContainers.createOrUpdateImmutabilityPolicy": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.createOrUpdateImmutabilityPolicy(...at(), "box"),
      ),
      "blobContainers.deleteImmutabilityPolicy": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.deleteImmutabilityPolicy(...at(), "box", "*"),
      ),
      "blobContainers.lockImmutabilityPolicy": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.lockImmutabilityPolicy(...at(), "box", "*"),
      ),
      "blobContainers.extendImmutabilityPolicy": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.extendImmutabilityPolicy(...at(), "box", "*"),
      ),
      "blobContainers.setLegalHold": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.setLegalHold(...at(), "box", { tags: ["abc"] }),
      ),
      "blobContainers.clearLegalHold": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.clearLegalHold(...at(), "box", { tags: ["abc"] }),
      ),
      "blobContainers.objectLevelWorm": refused(
        unsupported,
        immutable,
        async () => await client.blobContainers.objectLevelWorm(...at(), "box"),
      ),
      "blobContainers.lease": refused(unsupported, "not leased", async () => await client.blobContainers.lease(...at(), "box")),
      "blobContainers.delete": works(async () => {
        await client.blobContainers.delete(...at(), "box3");
        await client.blobContainers.delete(...at(), "box3");
        await assert.rejects(client.blobContainers.get(...at(), "box3"), { code: "ResourceNotFound" });
      }),
      "privateLinkResources.listByStorageAccount": works(async () => {
        const { value = [] } = await client.privateLinkResources.listByStorageAccount(...at());
        assert.deepEqual(
          value.map((each) => [each.groupId, each.requiredMembers]),
          [["blob", ["blob"]]],
        );
      }),
      "privateEndpointConnections.list": works(async () => {
        await connect("conf-pe");
        const [connection, ...rest] = await collect(client.privateEndpointConnections.list(...at()));
        assert.deepEqual(rest, []);
        assert.equal(connection?.privateLinkServiceConnectionState?.status, "Approved");
      }),
      "privateEndpointConnections.get": works(async () => {
        const found = await client.privateEndpointConnections.get(...at(), "conf-pe");
        assert.match(found.privateEndpoint?.id ?? "", /privateEndpoints\/conf-pe$/);
      }),
      "privateEndpointConnections.put": works(async () => {
        for (const status of ["Rejected", "Approved"]) {
          const state = { status, description: "by the test" };
          const set = await client.privateEndpointConnections.put(...at(), "conf-pe", { privateLinkServiceConnectionState: state });
          assert.equal(set.privateLinkServiceConnectionState?.status, status);
          const endpoint = await network.privateEndpoints.get(group, "conf-pe");
          assert.equal(endpoint.privateLinkServiceConnections?.[0]?.privateLinkServiceConnectionState?.status, status);
        }
      }),
      "privateEndpointConnections.delete": works(async () => {
        await client.privateEndpointConnections.delete(...at(), "conf-pe");
        const left = await client.privateEndpointConnections.get(...at(), "conf-pe");
        assert.equal(left.privateLinkServiceConnectionState?.status, "Disconnected");
      }),
      "privateEndpointConnections.put of a removed one": refused("Conflict", "it was removed", async () => {
        const state = { status: "Approved" };
        await client.privateEndpointConnections.put(...at(), "conf-pe", { privateLinkServiceConnectionState: state });
      }),
      "usages.listByLocation": works(async () => {
        const [usage] = await collect(client.usages.listByLocation("local"));
        assert.equal(usage?.name?.value, "StorageAccounts");
        assert.ok((usage.currentValue ?? 0) >= 1);
      }),
      "skus.list": works(async () => assert.ok((await collect(client.skus.list())).some(({ name }) => name === "Standard_LRS"))),
      "deletedAccounts.list": refused(unsupported, "gone at once", async () => await collect(client.deletedAccounts.list())),
      "deletedAccounts.get": refused(unsupported, "gone at once", async () => await client.deletedAccounts.get("gone", "local")),
      ...refusedGroup("managementPolicies", "own retention", {
        get: async () => await client.managementPolicies.get(...at(), "default"),
        createOrUpdate: async () => await client.managementPolicies.createOrUpdate(...at(), "default", { policy: { rules: [] } }),
        delete: async () => await client.managementPolicies.delete(...at(), "default"),
      }),
      ...refusedGroup("blobInventoryPolicies", "writes no inventories", {
        list: async () => await collect(client.blobInventoryPolicies.list(...at())),
        get: async () => await client.blobInventoryPolicies.get(...at(), "default"),
        createOrUpdate: async () => await client.blobInventoryPolicies.createOrUpdate(...at(), "default", {}),
        delete: async () => await client.blobInventoryPolicies.delete(...at(), "default"),
      }),
      ...refusedGroup("encryptionScopes", "encrypted with their vault's key", {
        list: async () => await collect(client.encryptionScopes.list(...at())),
        get: async () => await client.encryptionScopes.get(...at(), "scope"),
        put: async () => await client.encryptionScopes.put(...at(), "scope", {}),
        patch: async () => await client.encryptionScopes.patch(...at(), "scope", {}),
      }),
      ...refusedGroup("objectReplicationPolicies", oneCopy, {
        list: async () => await collect(client.objectReplicationPolicies.list(...at())),
        get: async () => await client.objectReplicationPolicies.get(...at(), "policy"),
        createOrUpdate: async () => await client.objectReplicationPolicies.createOrUpdate(...at(), "policy", {}),
        delete: async () => await client.objectReplicationPolicies.delete(...at(), "policy"),
      }),
      ...refusedGroup("localUsers", onlyBlobs, {
        list: async () => await collect(client.localUsers.list(...at())),
        get: async () => await client.localUsers.get(...at(), "user"),
        createOrUpdate: async () => await client.localUsers.createOrUpdate(...at(), "user", {}),
        delete: async () => await client.localUsers.delete(...at(), "user"),
        listKeys: async () => await client.localUsers.listKeys(...at(), "user"),
        regeneratePassword: async () => await client.localUsers.regeneratePassword(...at(), "user"),
      }),
      ...refusedGroup("fileServices", onlyBlobs, {
        list: async () => await client.fileServices.list(...at()),
        getServiceProperties: async () => await client.fileServices.getServiceProperties(...at()),
        setServiceProperties: async () => await client.fileServices.setServiceProperties(...at(), {}),
        getServiceUsage: async () => await client.fileServices.getServiceUsage(...at()),
        listServiceUsages: async () => await collect(client.fileServices.listServiceUsages(...at())),
      }),
      ...refusedGroup("fileShares", onlyBlobs, {
        list: async () => await collect(client.fileShares.list(...at())),
        get: async () => await client.fileShares.get(...at(), "share"),
        create: async () => await client.fileShares.create(...at(), "share", {}),
        update: async () => await client.fileShares.update(...at(), "share", {}),
        delete: async () => await client.fileShares.delete(...at(), "share"),
        restore: async () => await client.fileShares.restore(...at(), "share", { deletedShareName: "share", deletedShareVersion: "1" }),
        lease: async () => await client.fileShares.lease(...at(), "share"),
      }),
      ...refusedGroup("queueServices", onlyBlobs, {
        list: async () => await client.queueServices.list(...at()),
        getServiceProperties: async () => await client.queueServices.getServiceProperties(...at()),
        setServiceProperties: async () => await client.queueServices.setServiceProperties(...at(), {}),
      }),
      ...refusedGroup("queue", onlyBlobs, {
        list: async () => await collect(client.queue.list(...at())),
        get: async () => await client.queue.get(...at(), "queue"),
        create: async () => await client.queue.create(...at(), "queue", {}),
        update: async () => await client.queue.update(...at(), "queue", {}),
        delete: async () => await client.queue.delete(...at(), "queue"),
      }),
      ...refusedGroup("tableServices", onlyBlobs, {
        list: async () => await client.tableServices.list(...at()),
        getServiceProperties: async () => await client.tableServices.getServiceProperties(...at()),
        setServiceProperties: async () => await client.tableServices.setServiceProperties(...at(), {}),
      }),
      ...refusedGroup("table", onlyBlobs, {
        list: async () => await collect(client.table.list(...at())),
        get: async () => await client.table.get(...at(), "table"),
        create: async () => await client.table.create(...at(), "table"),
        update: async () => await client.table.update(...at(), "table"),
        delete: async () => await client.table.delete(...at(), "table"),
      }),
      ...refusedGroup("networkSecurityPerimeterConfigurations", "no perimeters", {
        list: async () => await collect(client.networkSecurityPerimeterConfigurations.list(...at())),
        get: async () => await client.networkSecurityPerimeterConfigurations.get(...at(), "one"),
        reconcile: async () => await client.networkSecurityPerimeterConfigurations.reconcile(...at(), "one"),
      }),
      ...refusedGroup("storageTaskAssignments", noTasks, {
        list: async () => await collect(client.storageTaskAssignments.list(...at())),
        get: async () => await client.storageTaskAssignments.get(...at(), "task"),
        create: async () => await client.storageTaskAssignments.create(...at(), "task", { properties: taskAssignment }),
        update: async () => await client.storageTaskAssignments.update(...at(), "task", {}),
        delete: async () => await client.storageTaskAssignments.delete(...at(), "task"),
        stopAssignment: async () => await client.storageTaskAssignments.stopAssignment(...at(), "task", {}),
      }),
      "storageTaskAssignmentsInstancesReport.list": refused(
        unsupported,
        noTasks,
        async () => await collect(client.storageTaskAssignmentsInstancesReport.list(...at())),
      ),
      "storageTaskAssignmentInstancesReport.list": refused(
        unsupported,
        noTasks,
        async () => await collect(client.storageTaskAssignmentInstancesReport.list(...at(), "task")),
      ),
      "storageAccounts.delete while connected": refused(
        "Conflict",
        "private endpoints lead to it",
        async () => await client.storageAccounts.delete(...at()),
      ),
    },
  );
});

const taskAssignment = {
  taskId: "task",
  enabled: false,
  description: "none",
  executionContext: { trigger: { type: "RunOnce" as const, parameters: {} } },
  report: { prefix: "p" },
};

function refusedGroup(
  name: string,
  why: string,
  calls: Readonly<Record<string, () => Promise<unknown>>>,
): Record<string, ReturnType<typeof refused>> {
  return Object.fromEntries(Object.entries(calls).map(([operation, call]) => [`${name}.${operation}`, refused(unsupported, why, call)]));
}

async function connect(name: string): Promise<void> {
  const [net] = await collect(network.virtualNetworks.list(group));
  await network.privateEndpoints.beginCreateOrUpdateAndWait(group, name, {
    location: "local",
    subnet: { id: net?.subnets?.[0]?.id ?? "" },
    privateLinkServiceConnections: [
      {
        name: "blob",
        groupIds: ["blob"],
        privateLinkServiceId: (await client.storageAccounts.getProperties(...at())).id ?? "",
      },
    ],
  });
}

describe("signatures of the management API at the blob service", () => {
  checkSignatures(() => ({ endpoint: rig.endpoint, client, group, account }));

  it("storageAccounts.delete works once nothing leads to the account", async () => {
    await network.privateEndpoints.beginDeleteAndWait(group, "conf-pe");
    await client.storageAccounts.delete(...at());
    await assert.rejects(client.storageAccounts.getProperties(...at()), { code: "ResourceNotFound" });
  });
});
