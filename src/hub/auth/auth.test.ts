// Tokens and roles: what is accepted, and that nothing changed, foreign or stale is.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { findBuiltinRole, rolesFor } from "./roles.ts";
import { openTokens } from "./tokens.ts";

const isUnauthorized = (error: unknown): boolean => error instanceof Fault && error.code === "Unauthorized";

test("a token is accepted whole, by its own hub, for its own audience, in its hour", async () => {
  const folder = await mkdtemp(join(tmpdir(), "watari-auth-"));
  try {
    let nowMs = 1_800_000_000_000;
    const clock = { ...systemClock, nowMs: () => nowMs };
    const facts = {
      keyFile: join(folder, "key.pem"),
      issuer: "https://login.x/t",
      audience: "https://management.x/",
      tenantId: "t",
      clock,
      random: systemRandom,
    };
    const tokens = await openTokens(facts);
    const subject = { principalId: systemRandom.uuid(), clientId: systemRandom.uuid(), name: "operator", sessionId: undefined };
    const { token } = tokens.issue(subject);
    assert.deepEqual(tokens.check(token), subject);
    assert.deepEqual((await openTokens(facts)).check(token), subject, "the key outlives the program");
    const strangers = await Promise.all(
      [{ audience: "https://other/" }, { issuer: "https://other/" }, { keyFile: join(folder, "other.pem") }].map((other) =>
        openTokens({ ...facts, ...other }),
      ),
    );
    for (const stranger of strangers) assert.throws(() => stranger.check(token), isUnauthorized);
    fc.assert(
      fc.property(fc.nat(token.length - 1), fc.constantFrom("A", "B", "_", ".", ""), (index, letter) => {
        if (token[index] === letter) return;
        const changed = token.slice(0, index) + letter + token.slice(index + 1);
        // The last letter of base64url carries bits that no byte has.
        if (
          Buffer.from(changed.split(".")[2] ?? "", "base64url").equals(Buffer.from(token.split(".")[2] ?? "", "base64url")) &&
          changed.split(".").slice(0, 2).join(".") === token.split(".").slice(0, 2).join(".")
        )
          return;
        assert.throws(() => tokens.check(changed), isUnauthorized);
      }),
    );
    nowMs += 3600_000;
    assert.deepEqual(tokens.check(token), subject, "by its signature that was checked before");
    nowMs += 100_000;
    assert.throws(() => tokens.check(token), isUnauthorized);
    nowMs -= 100_000;
    assert.deepEqual(tokens.check(token), subject, "what was refused is proved anew");
    nowMs -= 3700_000;
    assert.throws(() => tokens.check(token), isUnauthorized);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("roles allow what Azure's roles of the same name allow", () => {
  const can = (name: string, action: string): boolean => rolesFor(action).includes(name);
  const item = "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems";
  for (const [name, action, isAllowed] of [
    ["Owner", "Microsoft.Authorization/roleAssignments/write", true],
    ["Contributor", "Microsoft.Storage/storageAccounts/listKeys/action", true],
    ["Contributor", "Microsoft.Authorization/roleAssignments/write", false],
    ["Contributor", "Microsoft.Authorization/roleDefinitions/delete", false],
    ["Contributor", "Watari.Identity/servicePrincipals/addSecret/action", false],
    ["User Access Administrator", "Microsoft.Authorization/roleAssignments/write", true],
    ["User Access Administrator", "Microsoft.RecoveryServices/vaults/write", false],
    ["Reader", "Microsoft.RecoveryServices/vaults/read", true],
    ["Reader", "Microsoft.Storage/storageAccounts/listKeys/action", false],
    ["Reader", "Microsoft.Storage/storageAccounts/readers/write", false],
    ["Storage Blob Data Contributor", "Microsoft.Storage/storageAccounts/read", false],
    ["Site Recovery Operator", `${item}/testFailover/action`, true],
    ["Site Recovery Operator", `${item}/write`, false],
    ["Site Recovery Contributor", `${item}/write`, true],
    ["Site Recovery Contributor", "Microsoft.RecoveryServices/vaults/write", false],
    ["Site Recovery Reader", `${item}/read`, true],
    ["Site Recovery Reader", `${item}/testFailover/action`, false],
    ["Network Contributor", "Microsoft.Resources/resourceGroups/read", true],
    ["Network Contributor", "Microsoft.Resources/resourceGroups/write", false],
    ["Site Recovery Operator", "Microsoft.RecoveryServices/vaults/replicationRecoveryPlans/unplannedFailover/action", true],
    ["Site Recovery Operator", "Microsoft.RecoveryServices/vaults/replicationRecoveryPlans/write", false],
    ["Site Recovery Contributor", "Microsoft.RecoveryServices/vaults/replicationRecoveryPlans/write", true],
    ["Private DNS Zone Contributor", "Microsoft.Network/virtualNetworks/write", false],
  ] as const)
    assert.equal(can(name, action), isAllowed, `${name} ${action}`);
  assert.equal(findBuiltinRole("/providers/Microsoft.Authorization/roleDefinitions/8E3AF657-a8ff-443c-a75c-2fe8c4bcb635")?.name, "Owner");
});
