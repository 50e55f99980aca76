// Resource ids: what is accepted, what is refused, and that parsing then printing is the identity.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fault } from "../../contract/errors.ts";
import { ancestorOfType, childId, parentOf, parseArmPath, parseNextId, parseResourceId } from "./resource-id.ts";

const subscription = "/subscriptions/11111111-2222-3333-4444-555555555555";
const vault = `${subscription}/resourceGroups/Move/providers/Microsoft.RecoveryServices/vaults/Vault1`;

test("an id knows its type, names, group and parent", () => {
  const id = parseResourceId(`${vault}/replicationFabrics/site/replicationProtectionContainers/all/`);
  assert.equal(id.type, "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers");
  assert.deepEqual(id.names, ["Vault1", "site", "all"]);
  assert.equal(id.resourceGroup, "Move");
  assert.equal(id.parentText, `${vault}/replicationFabrics/site`);
  assert.equal(id.text.toLowerCase(), id.key);
  assert.equal(ancestorOfType(id, "microsoft.recoveryservices/VAULTS").text, vault);
  assert.equal(childId(parseResourceId(vault), "replicationPolicies", "p").text, `${vault}/replicationPolicies/p`);
});

test("an id parsed after another is the same as parsed alone", () => {
  const texts = [
    ...[
      subscription,
      `${subscription}/resourceGroups/Move`,
      `${subscription}/resourceGroups/Stay`,
      vault,
      `${vault}2`,
      `${vault}/policies/a`,
    ],
    ...[`${vault}/policies/b`, `${vault}/POLICIES/c`, `${vault}/policies/a/points/1`, `${vault}/policies/a/points/2`],
    ...[`${vault}/providers/Microsoft.Authorization/roleAssignments/a`, `${vault}/providers/Microsoft.Authorization/roleAssignments/b`],
    ...[`${subscription}/providers/Microsoft.Network`, `${subscription}/providers/Microsoft.Storage`, `${subscription}/tagNames/x`],
  ];
  for (const before of texts.map(parseResourceId))
    for (const text of texts) {
      const next = parseNextId(text, before);
      assert.deepEqual(next, parseResourceId(text), `${text} after ${before.text}`);
      assert.deepEqual(parentOf(next), parentOf(parseResourceId(text)));
    }
  assert.throws(() => parseNextId(`${vault}/policies/<`, parseResourceId(`${vault}/policies/a`)), isFault);
});

const isFault = (error: unknown): boolean => error instanceof Fault;

test("an id of an extension resource belongs to what it extends", () => {
  const id = parseResourceId(`${vault}/providers/Microsoft.Authorization/roleAssignments/abc`);
  assert.equal(id.type, "Microsoft.Authorization/roleAssignments");
  assert.deepEqual(id.names, ["abc"]);
  assert.equal(id.parentText, vault);
});

test("a path ends in a resource, a list or an action", () => {
  assert.equal(parseArmPath(`${subscription}/resourceGroups`).kind, "tail");
  assert.equal(parseArmPath(`${subscription}/resourcegroups/x`).kind, "resource");
  assert.deepEqual(
    [parseArmPath(`${subscription}/providers/Microsoft.RecoveryServices/vaults`)].map(
      (path) => path.kind === "tail" && [path.provider, path.segment],
    ),
    [["Microsoft.RecoveryServices", "vaults"]],
  );
});

test("ids that differ in case are equal", () => {
  assert.equal(parseResourceId(vault.toUpperCase().replace("SUBSCRIPTIONS", "subscriptions")).key, parseResourceId(vault).key);
});

for (const bad of [
  "",
  "/",
  "subscriptions/x",
  "/subscriptions/not-a-uuid",
  `${subscription}/resourceGroups/a/vaults/b`,
  `${subscription}/resourceGroups/a/providers/Microsoft.X`,
  `${subscription}/providers/nodot`,
  `${subscription}/providers/nodot/a/b`,
  `${vault}/../x`,
  `${vault}/a?b/c`,
  `${subscription}/resourceGroups//providers/Microsoft.X/a/b`,
  `/subscriptions/${"1".repeat(3000)}`,
])
  test(`the id ${JSON.stringify(bad.slice(0, 60))} is refused as bad input`, () => {
    assert.throws(
      () => parseResourceId(bad),
      (error) => error instanceof Fault && error.code === "InputInvalid",
    );
  });

test("any well-formed id survives parsing; any text gives an id or a Fault", () => {
  const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/);
  const type = fc.stringMatching(/^[A-Za-z][A-Za-z0-9]{0,15}$/).filter((text) => text.toLowerCase() !== "providers");
  fc.assert(
    fc.property(name, fc.array(fc.tuple(type, name), { minLength: 1, maxLength: 5 }), (group, pairs) => {
      const text = `${subscription}/resourceGroups/${group}/providers/Microsoft.Test/${pairs.flat().join("/")}`;
      const id = parseResourceId(text);
      assert.equal(id.text, text);
      assert.equal(id.names.length, pairs.length);
    }),
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => {
      try {
        parseResourceId(`${subscription}/${text}`);
      } catch (error) {
        assert.ok(error instanceof Fault);
      }
    }),
  );
});
