// Microsoft.Resources by Microsoft's unmodified client: groups and their removal, lists of everything, tags, providers.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { z } from "zod";
import { NetworkManagementClient } from "@azure/arm-network";
import { PrivateDnsManagementClient } from "@azure/arm-privatedns";
import { ResourceManagementClient } from "@azure/arm-resources";
import { StorageManagementClient } from "@azure/arm-storage";
import { collect } from "./journey/wait-until.ts";
import { checkTable, refused, works } from "./operation-table.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let client: ResourceManagementClient;
let zones: PrivateDnsManagementClient;
let storage: StorageManagementClient;
let network: NetworkManagementClient;
const group = "conf-group";
const unsupported = "OperationNotSupported";
const version = "2024-06-01";
const zoneType = "Microsoft.Network/privateDnsZones";
const idOf = (name: string): string => `/subscriptions/${rig.subscriptionId}/resourceGroups/${group}/providers/${zoneType}/${name}`;

before(async () => {
  rig = await startRig();
  client = new ResourceManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  zones = new PrivateDnsManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  storage = new StorageManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  network = new NetworkManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
});
after(async () => await rig[Symbol.asyncDispose]());

async function read(path: string): Promise<unknown> {
  const answer = await fetch(`${rig.endpoint}${path}`, { headers: { authorization: `Bearer ${await rig.token()}` } });
  assert.equal(answer.status, 200, path);
  return await answer.json();
}
const names = (list: readonly { readonly name?: string | undefined }[]): readonly string[] => list.map(({ name = "" }) => name);

describe("Microsoft.Resources", () => {
  const at = [group, "Microsoft.Network", "", "privateDnsZones"] as const;
  checkTable(
    {
      resourceGroups: () => client.resourceGroups,
      resources: () => client.resources,
      tagsOperations: () => client.tagsOperations,
      providers: () => client.providers,
      providerResourceTypes: () => client.providerResourceTypes,
      operations: () => client.operations,
    },
    {
      "resourceGroups.createOrUpdate": works(async () => {
        const made = await client.resourceGroups.createOrUpdate(group, { location: "lab one", tags: { stage: "test" } });
        assert.deepEqual([made.name, made.location, made.properties?.provisioningState], [group, "lab one", "Succeeded"]);
      }),
      "resourceGroups.createOrUpdate of a wrong name": refused(
        "InvalidRequestContent",
        "its name has a wrong form",
        async () => await client.resourceGroups.createOrUpdate("ends.", { location: "lab" }),
      ),
      "resourceGroups.get": works(async () => assert.deepEqual((await client.resourceGroups.get(group)).tags, { stage: "test" })),
      "resourceGroups.checkExistence": works(async () => {
        assert.equal((await client.resourceGroups.checkExistence(group)).body, true);
        assert.equal((await client.resourceGroups.checkExistence("nothing-here")).body, false);
      }),
      "resourceGroups.update": works(async () => {
        const changed = await client.resourceGroups.update(group, { tags: { stage: "test", owner: "Kyoko" } });
        assert.deepEqual(changed.tags, { stage: "test", owner: "Kyoko" });
      }),
      "resourceGroups.list": works(async () => {
        const find = async (filter: string): Promise<readonly string[]> => names(await collect(client.resourceGroups.list({ filter })));
        assert.ok(names(await collect(client.resourceGroups.list())).includes(rig.resourceGroup));
        assert.deepEqual(await find("tagName eq 'OWNER' and tagValue eq 'Kyoko'"), [group]);
        assert.deepEqual(await find("tagName eq 'owner' and tagValue eq 'test'"), []);
        assert.deepEqual(await find("tagName eq 'owner'"), [group]);
      }),
      "resourceGroups.list by what has no filter": refused(
        "InvalidFilter",
        "Pagination",
        async () => await collect(client.resourceGroups.list({ filter: "colour eq 'red'" })),
      ),
      "resourceGroups.exportTemplate": refused(
        unsupported,
        "no templates",
        async () => await client.resourceGroups.exportTemplate(group, { resources: ["*"] }),
      ),
      "resources.createOrUpdate": works(async () => {
        const made = await client.resources.createOrUpdate(...at, "one.test", version, { location: "global", tags: { owner: "Kyoko" } });
        assert.equal(made.id, idOf("one.test"));
      }),
      "resources.createOrUpdateById": works(async () => {
        const made = await client.resources.createOrUpdateById(idOf("two.test"), version, { location: "global" });
        assert.equal(made.type, zoneType);
      }),
      "resources.get": works(async () => assert.equal((await client.resources.get(...at, "one.test", version)).name, "one.test")),
      "resources.getById": works(async () => assert.equal((await client.resources.getById(idOf("one.test"), version)).location, "global")),
      "resources.checkExistence": works(async () => {
        assert.equal((await client.resources.checkExistence(...at, "one.test", version)).body, true);
        assert.equal((await client.resources.checkExistence(...at, "none.test", version)).body, false);
      }),
      "resources.checkExistenceById": works(async () => {
        assert.equal((await client.resources.checkExistenceById(idOf("one.test"), version)).body, true);
        assert.equal((await client.resources.checkExistenceById(idOf("none.test"), version)).body, false);
      }),
      "resources.update": works(async () => {
        const changed = await client.resources.update(...at, "two.test", version, { tags: { owner: "Ken" } });
        assert.deepEqual(changed.tags, { owner: "Ken" });
      }),
      "resources.updateById": works(async () => {
        const changed = await client.resources.updateById(idOf("two.test"), version, { tags: { owner: "Ken", stage: "test" } });
        assert.deepEqual(changed.tags, { owner: "Ken", stage: "test" });
      }),
      "resources.list": works(async () => {
        const find = async (filter: string): Promise<readonly string[]> => names(await collect(client.resources.list({ filter })));
        const all = await collect(client.resources.list());
        for (const type of [
          "Microsoft.RecoveryServices/vaults",
          "Microsoft.Storage/storageAccounts",
          zoneType,
          "Microsoft.Network/networkInterfaces",
        ])
          assert.ok(
            all.some((each) => each.type === type),
            type,
          );
        assert.equal(new Set(all.map(({ id }) => id)).size, all.length);
        assert.deepEqual(await find("tagName eq 'owner' and tagValue eq 'Ken'"), ["two.test"]);
        assert.deepEqual(await find(`resourceType eq '${zoneType}' and resourceGroup eq '${group}'`), ["one.test", "two.test"]);
        assert.deepEqual(await find("name eq 'one.test'"), ["one.test"]);
        const paged = [];
        for await (const page of client.resources.list({ top: 1, expand: "createdTime" }).byPage()) paged.push(...page);
        assert.deepEqual(
          paged.map(({ id }) => id),
          all.map(({ id }) => id),
        );
        assert.ok(paged.some(({ createdTime }) => createdTime instanceof Date));
      }),
      "resources.listByResourceGroup": works(async () =>
        assert.deepEqual(names(await collect(client.resources.listByResourceGroup(group))), ["one.test", "two.test"]),
      ),
      "resources.moveResources": refused(
        unsupported,
        "stays in the group",
        async () => await client.resources.moveResources(group, { resources: [idOf("one.test")], targetResourceGroup: "x" }),
      ),
      "resources.validateMoveResources": refused(
        unsupported,
        "stays in the group",
        async () => await client.resources.validateMoveResources(group, { resources: [idOf("one.test")], targetResourceGroup: "x" }),
      ),
      "resources.delete": works(async () => {
        await client.resources.delete(...at, "one.test", version);
        assert.equal((await client.resources.checkExistenceById(idOf("one.test"), version)).body, false);
      }),
      "resources.deleteById": works(async () => {
        await client.resources.deleteById(idOf("two.test"), version);
        assert.equal((await client.resources.checkExistenceById(idOf("two.test"), version)).body, false);
      }),
      "tagsOperations.createOrUpdateAtScope": works(async () => {
        const scope = `subscriptions/${rig.subscriptionId}/resourceGroups/${group}`;
        const set = await client.tagsOperations.createOrUpdateAtScope(scope, { properties: { tags: { a: "1", b: "2" } } });
        assert.deepEqual(set.properties.tags, { a: "1", b: "2" });
        assert.deepEqual((await client.resourceGroups.get(group)).tags, { a: "1", b: "2" });
      }),
      "tagsOperations.updateAtScope": works(async () => {
        const scope = `subscriptions/${rig.subscriptionId}/resourceGroups/${group}`;
        const change = async (operation: string, tags: Record<string, string>): Promise<unknown> =>
          (await client.tagsOperations.updateAtScope(scope, { operation, properties: { tags } })).properties.tags;
        assert.deepEqual(await change("Merge", { c: "3" }), { a: "1", b: "2", c: "3" });
        assert.deepEqual(await change("Delete", { a: "1", b: "other" }), { b: "2", c: "3" });
        assert.deepEqual(await change("Replace", { d: "4" }), { d: "4" });
      }),
      "tagsOperations.getAtScope": works(async () => {
        const scope = `subscriptions/${rig.subscriptionId}/resourceGroups/${group}`;
        assert.deepEqual((await client.tagsOperations.getAtScope(scope)).properties.tags, { d: "4" });
      }),
      "tagsOperations.list": works(async () => {
        const tag = (await collect(client.tagsOperations.list())).find(({ tagName }) => tagName === "d");
        assert.deepEqual([tag?.count?.value, tag?.values?.[0]?.tagValue], [1, "4"]);
      }),
      "tagsOperations.deleteAtScope": works(async () => {
        const scope = `subscriptions/${rig.subscriptionId}`;
        await client.tagsOperations.createOrUpdateAtScope(scope, { properties: { tags: { whole: "yes" } } });
        await client.tagsOperations.deleteAtScope(scope);
        assert.deepEqual((await client.tagsOperations.getAtScope(scope)).properties.tags, {});
      }),
      ...Object.fromEntries(
        Object.entries({
          createOrUpdate: async () => await client.tagsOperations.createOrUpdate("t"),
          createOrUpdateValue: async () => await client.tagsOperations.createOrUpdateValue("t", "v"),
          delete: async () => await client.tagsOperations.delete("t"),
          deleteValue: async () => await client.tagsOperations.deleteValue("t", "v"),
        }).map(([name, call]) => {
          const code = name.endsWith("Value") ? unsupported : "MethodNotAllowed";
          return [`tagsOperations.${name}`, refused(code, "comes and goes with the resources", call)];
        }),
      ),
      "providers.list": works(async () => {
        const all = await collect(client.providers.list());
        assert.ok(all.some(({ namespace }) => namespace === "Microsoft.RecoveryServices"));
      }),
      "providers.get": works(async () => {
        const found = await client.providers.get("microsoft.storage");
        assert.deepEqual([found.namespace, found.registrationState], ["Microsoft.Storage", "Registered"]);
        const accounts = found.resourceTypes?.find(({ resourceType }) => resourceType === "storageAccounts");
        assert.ok(accounts?.apiVersions?.includes("2025-06-01"));
      }),
      "providers.get of nothing": refused(
        "ResourceNotFound",
        "could not find",
        async () => await client.providers.get("Microsoft.Nonesuch"),
      ),
      "providers.listAtTenantScope": works(async () => assert.ok((await collect(client.providers.listAtTenantScope())).length > 3)),
      "providers.getAtTenantScope": works(async () =>
        assert.equal((await client.providers.getAtTenantScope("Microsoft.Network")).id, "/providers/Microsoft.Network"),
      ),
      "providers.register": works(async () =>
        assert.equal((await client.providers.register("Microsoft.Network")).registrationState, "Registered"),
      ),
      "providers.unregister": refused(
        "MethodNotAllowed",
        "is always there",
        async () => await client.providers.unregister("Microsoft.Network"),
      ),
      "providers.providerPermissions": works(async () =>
        assert.deepEqual((await client.providers.providerPermissions("Microsoft.Network")).value, []),
      ),
      "providers.registerAtManagementGroupScope": refused(
        "ResourceNotFound",
        "could not find",
        async () => await client.providers.registerAtManagementGroupScope("Microsoft.Network", "group"),
      ),
      "providerResourceTypes.list": works(async () => {
        const { value } = await client.providerResourceTypes.list("Microsoft.Compute");
        assert.ok(value.some(({ resourceType }) => resourceType === "virtualMachines"));
      }),
      "operations.list": works(async () => {
        const all = await collect(client.operations.list());
        assert.ok(all.some(({ name }) => name === "Microsoft.Resources/resourceGroups/delete"));
      }),
      "resourceGroups.delete": works(async () => await removeWhole()),
    },
  );

  /** What stands in the way is told before anything is removed; then everything goes, in the order that its rules want. */
  async function removeWhole(): Promise<void> {
    await zones.privateZones.beginCreateOrUpdateAndWait(group, "gone.test", { location: "global" });
    const [net] = await collect(network.virtualNetworks.list(rig.resourceGroup));
    const link = { location: "global", virtualNetwork: { id: net?.id ?? "" }, registrationEnabled: false };
    await zones.virtualNetworkLinks.beginCreateOrUpdateAndWait(group, "gone.test", "link", link);
    const sku = { name: "Standard_LRS" };
    const account = await storage.storageAccounts.create(group, "confgroup1", { location: "lab", kind: "StorageV2", sku });
    const connect = async (inGroup: string): Promise<void> => {
      await network.privateEndpoints.beginCreateOrUpdateAndWait(inGroup, "pe", {
        location: "lab",
        subnet: { id: net?.subnets?.[0]?.id ?? "" },
        privateLinkServiceConnections: [{ name: "blob", groupIds: ["blob"], privateLinkServiceId: account.id ?? "" }],
      });
    };
    await connect(rig.resourceGroup);
    await assert.rejects(async () => await client.resourceGroups.delete(group), { code: "Conflict", message: /of other groups use/ });
    await network.privateEndpoints.beginDeleteAndWait(rig.resourceGroup, "pe");
    await connect(group);
    await client.resourceGroups.delete(group);
    assert.equal((await client.resourceGroups.checkExistence(group)).body, false);
    assert.deepEqual(await collect(client.resources.list({ filter: `resourceGroup eq '${group}'` })), []);
    const type = "Microsoft.Storage/storageAccounts" as const;
    assert.equal((await storage.storageAccounts.checkNameAvailability({ name: "confgroup1", type })).nameAvailable, true);
  }

  it("deployments and locks are refused with the reason", async () => {
    const call = async (method: string, path: string): Promise<unknown> => {
      const headers = { authorization: `Bearer ${await rig.token()}`, "content-type": "application/json" };
      const url = `${rig.endpoint}/subscriptions/${rig.subscriptionId}/resourceGroups/${rig.resourceGroup}/providers/${path}`;
      const answer = await fetch(url, { method, headers, body: "{}" });
      return [answer.status, z.object({ error: z.object({ code: z.string() }) }).parse(await answer.json()).error.code];
    };
    assert.deepEqual(await call("PUT", "Microsoft.Resources/deployments/one?api-version=2024-03-01"), [405, unsupported]);
    assert.deepEqual(await call("PUT", "Microsoft.Authorization/locks/one?api-version=2016-09-01"), [405, unsupported]);
  });

  it("subscriptions, their locations and the tenant are read as documented", async () => {
    const list = z.object({ value: z.array(z.looseObject({})) });
    const { value: all } = list.parse(await read("/subscriptions?api-version=2022-12-01"));
    assert.deepEqual(
      all.map((each) => each["subscriptionId"]),
      [rig.subscriptionId],
    );
    const one = z.looseObject({}).parse(await read(`/subscriptions/${rig.subscriptionId}?api-version=2022-12-01`));
    assert.deepEqual([one["subscriptionId"], one["state"]], [rig.subscriptionId, "Enabled"]);
    const { value: locations } = list.parse(await read(`/subscriptions/${rig.subscriptionId}/locations?api-version=2022-12-01`));
    assert.ok(locations.length > 0 && locations.every((each) => each["type"] === "Region"));
    const { value: tenants } = list.parse(await read("/tenants?api-version=2022-12-01"));
    assert.deepEqual(
      tenants.map((each) => each["tenantId"]),
      [rig.facts.tenantId],
    );
  });
});
