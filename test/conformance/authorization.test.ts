// Microsoft.Authorization by Microsoft's unmodified client: every operation on roles and who holds them.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { AuthorizationManagementClient } from "@azure/arm-authorization";
import { systemRandom } from "../../src/base/random.ts";
import { collect } from "./journey/wait-until.ts";
import { checkTable, refused, works } from "./operation-table.ts";
import { startRig, type Rig } from "./rig.ts";

let rig: Rig;
let client: AuthorizationManagementClient;
let scope = "";
let group = "";
let principalId = "";
const readerRole = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const ids = { first: systemRandom.uuid(), second: systemRandom.uuid(), role: systemRandom.uuid() };
const roleDefinitionId = (): string =>
  `/subscriptions/${rig.subscriptionId}/providers/Microsoft.Authorization/roleDefinitions/${readerRole}`;
const assignmentId = (name: string): string => `${scope.slice(1)}/providers/Microsoft.Authorization/roleAssignments/${name}`;

before(async () => {
  rig = await startRig();
  client = new AuthorizationManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  group = rig.resourceGroup;
  scope = `/subscriptions/${rig.subscriptionId}/resourceGroups/${group}`;
  const [first] = await collect(client.roleAssignments.listForSubscription());
  principalId = first?.principalId ?? "";
});
after(async () => await rig[Symbol.asyncDispose]());

describe("Microsoft.Authorization", () => {
  const vault = (): [string, string, string, string] => [group, "Microsoft.RecoveryServices", "vaults", rig.vault];
  checkTable(
    {
      roleAssignments: () => client.roleAssignments,
      roleDefinitions: () => client.roleDefinitions,
      permissions: () => client.permissions,
      denyAssignments: () => client.denyAssignments,
      classicAdministrators: () => client.classicAdministrators,
    },
    {
      "roleAssignments.create": works(async () => {
        const made = await client.roleAssignments.create(scope, ids.first, { principalId, roleDefinitionId: roleDefinitionId() });
        assert.deepEqual([made.name, made.principalId], [ids.first, principalId]);
      }),
      "roleAssignments.create twice": refused(
        "RoleAssignmentExists",
        "holds it at this scope already",
        async () => await client.roleAssignments.create(scope, ids.second, { principalId, roleDefinitionId: roleDefinitionId() }),
      ),
      "roleAssignments.get": works(async () => assert.equal((await client.roleAssignments.get(scope, ids.first)).name, ids.first)),
      "roleAssignments.getById": works(async () =>
        assert.equal((await client.roleAssignments.getById(assignmentId(ids.first))).name, ids.first),
      ),
      "roleAssignments.listForSubscription": works(async () =>
        assert.ok((await collect(client.roleAssignments.listForSubscription())).some(({ name }) => name === ids.first)),
      ),
      "roleAssignments.listForResourceGroup": works(async () =>
        assert.ok((await collect(client.roleAssignments.listForResourceGroup(group))).some(({ name }) => name === ids.first)),
      ),
      "roleAssignments.listForResource": works(async () =>
        assert.ok((await collect(client.roleAssignments.listForResource(...vault()))).some(({ name }) => name === ids.first)),
      ),
      "roleAssignments.listForScope": works(async () => {
        const filter = `principalId eq '${principalId}'`;
        assert.ok((await collect(client.roleAssignments.listForScope(scope, { filter }))).some(({ name }) => name === ids.first));
      }),
      "roleAssignments.delete": works(async () => assert.equal((await client.roleAssignments.delete(scope, ids.first)).name, ids.first)),
      "roleAssignments.createById": works(async () => {
        const made = await client.roleAssignments.createById(assignmentId(ids.second), {
          principalId,
          roleDefinitionId: roleDefinitionId(),
        });
        assert.equal(made.name, ids.second);
      }),
      "roleAssignments.deleteById": works(async () =>
        assert.equal((await client.roleAssignments.deleteById(assignmentId(ids.second))).name, ids.second),
      ),
      "roleDefinitions.list": works(async () => {
        const names = (await collect(client.roleDefinitions.list(scope))).map(({ roleName }) => roleName);
        for (const name of ["Owner", "Reader", "Site Recovery Operator"]) assert.ok(names.includes(name), name);
      }),
      "roleDefinitions.get": works(async () => assert.equal((await client.roleDefinitions.get(scope, readerRole)).roleName, "Reader")),
      "roleDefinitions.getById": works(async () =>
        assert.equal((await client.roleDefinitions.getById(roleDefinitionId().slice(1))).roleName, "Reader"),
      ),
      "roleDefinitions.createOrUpdate": works(async () => {
        const made = await client.roleDefinitions.createOrUpdate(scope, ids.role, {
          roleName: "Vault reader",
          description: "reads vaults",
          roleType: "CustomRole",
          permissions: [{ actions: ["Microsoft.RecoveryServices/vaults/read"] }],
          assignableScopes: [scope],
        });
        assert.deepEqual(made.permissions?.[0]?.actions, ["Microsoft.RecoveryServices/vaults/read"]);
      }),
      "roleDefinitions.delete": works(async () =>
        assert.equal((await client.roleDefinitions.delete(scope, ids.role)).roleName, "Vault reader"),
      ),
      "permissions.listForResourceGroup": works(async () =>
        assert.ok((await collect(client.permissions.listForResourceGroup(group))).some(({ actions }) => actions?.includes("*"))),
      ),
      "permissions.listForResource": works(async () =>
        assert.ok(
          (await collect(client.permissions.listForResource(group, "Microsoft.RecoveryServices", "", "vaults", rig.vault))).length > 0,
        ),
      ),
      "denyAssignments.list": works(async () => assert.deepEqual(await collect(client.denyAssignments.list()), [])),
      "denyAssignments.listForResourceGroup": works(async () =>
        assert.deepEqual(await collect(client.denyAssignments.listForResourceGroup(group)), []),
      ),
      "denyAssignments.listForResource": works(async () =>
        assert.deepEqual(
          await collect(client.denyAssignments.listForResource(group, "Microsoft.RecoveryServices", "", "vaults", rig.vault)),
          [],
        ),
      ),
      "denyAssignments.listForScope": works(async () => assert.deepEqual(await collect(client.denyAssignments.listForScope(scope)), [])),
      "denyAssignments.get": refused("ResourceNotFound", "could not find", async () => await client.denyAssignments.get(scope, ids.first)),
      "denyAssignments.getById": refused(
        "ResourceNotFound",
        "could not find",
        async () =>
          await client.denyAssignments.getById(`${scope.slice(1)}/providers/Microsoft.Authorization/denyAssignments/${ids.first}`),
      ),
      "classicAdministrators.list": refused(
        "OperationNotSupported",
        "roles alone",
        async () => await collect(client.classicAdministrators.list()),
      ),
    },
  );

  it("roles for a time are refused with the reason", async () => {
    await assert.rejects(async () => await collect(client.roleAssignmentSchedules.listForScope(scope)), { code: "OperationNotSupported" });
    await assert.rejects(async () => await collect(client.roleEligibilitySchedules.listForScope(scope)), { code: "OperationNotSupported" });
    await assert.rejects(async () => await collect(client.roleManagementPolicies.listForScope(scope)), { code: "OperationNotSupported" });
  });
});
