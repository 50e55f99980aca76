// Roles through the API: custom roles, filters, no way to more rights than one's own, and no leak to a neighbouring scope.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { openPrincipals } from "../db/principals.ts";
import {
  callTarget,
  codeOf,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  signIn,
  testDomain,
  type Answer,
  type TestHub,
} from "../test-client.ts";

const provider = "providers/Microsoft.Authorization";
const builtin = (roleId: string): string => `/${provider}/roleDefinitions/${roleId}`;
const contributor = builtin("b24988ac-6180-42a0-ab88-20f7382dd24c");
const owner = builtin("8e3af657-a8ff-443c-a75c-2fe8c4bcb635");
const accessAdministrator = builtin("18d7d88d-d35e-4fb5-a5c3-7773c20a72d9");
const pageShape = z.object({ value: z.array(z.record(z.string(), z.unknown())) });

let stateDir: string;
let hub: TestHub;
let otherGroup: string;

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-rights-"));
  hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() });
  otherGroup = `/subscriptions/${hub.operator.subscriptionId}/resourceGroups/Other`;
  for (const group of [hub.groupPath, otherGroup]) assert.equal((await hub.arm("PUT", group, { location: "lab1" })).status, 201);
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

interface Person {
  readonly principalId: string;
  call(method: string, path: string, body?: unknown): Promise<Answer>;
}

async function openPerson(): Promise<Person> {
  const [principalId, clientId, clientSecret] = [systemRandom.uuid(), systemRandom.uuid(), systemRandom.uuid()];
  const principals = openPrincipals({ db: hub.hub.services.database.db, clock: systemClock });
  await principals.add({ principalId, clientId, kind: "operator", name: "person" }, clientSecret);
  const token = await signIn(hub.target(`login.${testDomain}`), { tenantId: hub.operator.tenantId, clientId, clientSecret });
  const headers = { authorization: `Bearer ${token}` };
  const target = hub.target(`management.${testDomain}`);
  return {
    principalId,
    call: async (method, path, body) =>
      await callTarget(target, { method, path: `${path}${path.includes("?") ? "&" : "?"}api-version=2022-04-01`, body, headers }),
  };
}

async function assign(scope: string, principalId: string, roleDefinitionId: string): Promise<Answer> {
  return await hub.arm("PUT", `${scope}/${provider}/roleAssignments/${systemRandom.uuid()}`, {
    properties: { principalId, roleDefinitionId },
  });
}

test("a role at one resource group says nothing about its neighbour", async () => {
  const person = await openPerson();
  assert.equal((await assign(hub.groupPath, person.principalId, contributor)).status, 201);
  assert.equal((await person.call("GET", hub.groupPath)).status, 200);
  for (const path of [otherGroup, `${hub.groupPath}2`, `/subscriptions/${hub.operator.subscriptionId}`])
    assert.deepEqual([(await person.call("GET", path)).status, path], [403, path]);
});

test("a contributor grants nothing: no assignment, no role, not even by a role of his own", async () => {
  const person = await openPerson();
  await assign(hub.groupPath, person.principalId, contributor);
  const wish = { properties: { principalId: person.principalId, roleDefinitionId: owner } };
  const role = { roleName: "all", permissions: [{ actions: ["*"] }], assignableScopes: [hub.groupPath] };
  const id = systemRandom.uuid();
  const answers = [
    await person.call("PUT", `${hub.groupPath}/${provider}/roleAssignments/${id}`, wish),
    await person.call("PUT", `${hub.groupPath}/${provider}/roleDefinitions/${id}`, { properties: role }),
    await person.call("DELETE", `${hub.groupPath}/${provider}/roleAssignments/${id}`),
  ];
  assert.deepEqual(answers.map(codeOf), ["Forbidden", "Forbidden", "Forbidden"]);
});

test("who may give access at one group gives none outside it", async () => {
  const person = await openPerson();
  await assign(hub.groupPath, person.principalId, accessAdministrator);
  const wish = { properties: { principalId: person.principalId, roleDefinitionId: owner } };
  const grant = async (scope: string): Promise<number> =>
    (await person.call("PUT", `${scope}/${provider}/roleAssignments/${systemRandom.uuid()}`, wish)).status;
  assert.deepEqual([await grant(otherGroup), await grant(`/subscriptions/${hub.operator.subscriptionId}`)], [403, 403]);
  const role = { roleName: "far", permissions: [{ actions: ["*"] }], assignableScopes: [otherGroup] };
  const made = await person.call("PUT", `${hub.groupPath}/${provider}/roleDefinitions/${systemRandom.uuid()}`, { properties: role });
  assert.deepEqual([made.status, codeOf(made)], [400, "InputInvalid"]);
});

test("a custom role gives what it lists inside its scopes, and goes only when nobody holds it", async () => {
  const person = await openPerson();
  const rolePath = `${hub.groupPath}/${provider}/roleDefinitions/${systemRandom.uuid()}`;
  const permissions = [{ actions: ["Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Authorization/permissions/read"] }];
  const role = { properties: { roleName: "Looker", permissions, assignableScopes: [hub.groupPath] } };
  assert.equal((await hub.arm("PUT", rolePath, role)).status, 201);
  assert.equal(codeOf(await assign(otherGroup, person.principalId, rolePath)), "InputInvalid");
  const assignment = z.object({ id: z.string() }).parse((await assign(hub.groupPath, person.principalId, rolePath)).body);
  assert.equal((await person.call("GET", hub.groupPath)).status, 200);
  assert.equal((await person.call("DELETE", hub.groupPath)).status, 403);
  const own = pageShape.parse((await person.call("GET", `${hub.groupPath}/${provider}/permissions`)).body);
  assert.deepEqual(own.value, [{ ...permissions[0], notActions: [], dataActions: [], notDataActions: [] }]);
  const found = await hub.arm("GET", `${hub.groupPath}/${provider}/roleDefinitions?$filter=${encodeURIComponent("roleName eq 'Looker'")}`);
  assert.equal(pageShape.parse(found.body).value.length, 1);
  assert.equal(codeOf(await hub.arm("DELETE", rolePath)), "StateConflict");
  assert.equal((await hub.arm("DELETE", assignment.id)).status, 200);
  assert.equal((await person.call("GET", hub.groupPath)).status, 403);
  assert.equal((await hub.arm("DELETE", rolePath)).status, 200);
});

test("the right to write definitions alone makes no role", async () => {
  const person = await openPerson();
  const path = (): string => `${hub.groupPath}/${provider}/roleDefinitions/${systemRandom.uuid()}`;
  const writer = path();
  const role = (actions: readonly string[]) => ({
    properties: { roleName: "w", permissions: [{ actions }], assignableScopes: [hub.groupPath] },
  });
  assert.equal((await hub.arm("PUT", writer, role(["Microsoft.Authorization/roleDefinitions/*"]))).status, 201);
  await assign(hub.groupPath, person.principalId, writer);
  assert.equal((await person.call("GET", writer)).status, 200);
  assert.deepEqual(
    [codeOf(await person.call("PUT", writer, role(["*"]))), codeOf(await person.call("PUT", path(), role(["*"])))],
    ["Forbidden", "Forbidden"],
  );
});

test("assignments are listed with what is inherited and what is below, narrowed by filters, and never doubled", async () => {
  const person = await openPerson();
  const subscription = `/subscriptions/${hub.operator.subscriptionId}`;
  await assign(subscription, person.principalId, contributor);
  await assign(hub.groupPath, person.principalId, owner);
  const count = async (scope: string, filter: string): Promise<number> => {
    const answer = await hub.arm("GET", `/${scope}/${provider}/roleAssignments?$filter=${encodeURIComponent(filter)}`);
    return answer.status === 200 ? pageShape.parse(answer.body).value.length : answer.status;
  };
  const mine = `principalId eq '${person.principalId}'`;
  assert.deepEqual(
    [
      await count(subscription, mine),
      await count(subscription, `atScope() and assignedTo('${person.principalId}')`),
      await count(hub.groupPath, mine),
      await count(otherGroup, mine),
      await count(otherGroup, "condition ne null"),
    ],
    [2, 1, 2, 1, 400],
  );
  assert.equal(codeOf(await assign(hub.groupPath, person.principalId, owner)), "StateConflict");
  const narrowed = { principalId: person.principalId, roleDefinitionId: owner, condition: "@Resource[x] StringEquals 'y'" };
  const conditional = await hub.arm("PUT", `${otherGroup}/${provider}/roleAssignments/${systemRandom.uuid()}`, { properties: narrowed });
  assert.equal(codeOf(conditional), "InputInvalid");
});

test("a group holds a role for its members, from the call after they were added to the call after they were removed", async () => {
  const [person, groupId] = [await openPerson(), systemRandom.uuid()];
  const group = `/subscriptions/${hub.operator.subscriptionId}/providers/Watari.Identity/groups/${groupId}`;
  assert.equal((await assign(hub.groupPath, groupId, contributor)).status, 404, "no group, no role");
  assert.equal((await hub.arm("PUT", group, { properties: { displayName: "movers", claimValue: `movers ${groupId}` } })).status, 201);
  const second = `/subscriptions/${hub.operator.subscriptionId}/providers/Watari.Identity/groups/${systemRandom.uuid()}`;
  const taken = await hub.arm("PUT", second, { properties: { displayName: "others", claimValue: `movers ${groupId}` } });
  assert.equal(taken.status, 409, "a claim value stands for one group");
  const asUser = { properties: { principalId: groupId, roleDefinitionId: contributor, principalType: "User" } };
  const wrong = await hub.arm("PUT", `${hub.groupPath}/${provider}/roleAssignments/${systemRandom.uuid()}`, asUser);
  assert.deepEqual(
    [wrong.status, z.object({ error: z.object({ code: z.string() }) }).parse(wrong.body).error.code],
    [400, "UnmatchedPrincipalType"],
  );
  const made = await assign(hub.groupPath, groupId, contributor);
  const assignment = z.object({ id: z.string(), properties: z.object({ principalType: z.string() }) }).parse(made.body);
  assert.equal(assignment.properties.principalType, "Group");

  assert.equal((await person.call("GET", hub.groupPath)).status, 403);
  assert.equal((await hub.arm("POST", `${group}/addMember`, { principalId: person.principalId })).status, 204);
  assert.equal((await person.call("GET", hub.groupPath)).status, 200);
  assert.equal((await person.call("GET", otherGroup)).status, 403);
  const listed = async (filter: string): Promise<readonly unknown[]> => {
    const answer = await hub.arm("GET", `${hub.groupPath}/${provider}/roleAssignments?$filter=${encodeURIComponent(filter)}`);
    return pageShape.parse(answer.body).value.map((item) => item["id"]);
  };
  assert.deepEqual(await listed(`assignedTo('${person.principalId}')`), [assignment.id]);
  assert.deepEqual(await listed(`principalId eq '${person.principalId}'`), [], "only assignedTo looks through groups");
  assert.deepEqual(await listed(`principalId eq '${groupId}'`), [assignment.id]);

  assert.equal((await hub.arm("POST", `${group}/removeMember`, { principalId: person.principalId })).status, 204);
  assert.equal((await hub.arm("POST", `${group}/removeMember`, { principalId: person.principalId })).status, 404);
  assert.equal((await person.call("GET", hub.groupPath)).status, 403);
  await hub.arm("POST", `${group}/addMember`, { principalId: person.principalId });
  assert.equal((await hub.arm("DELETE", group)).status, 200);
  assert.equal((await person.call("GET", hub.groupPath)).status, 403, "an assignment to a group that is gone gives nothing");
});
