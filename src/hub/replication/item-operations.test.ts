// What each state of a protected item allows, as a table; and that everything else is refused with what is allowed.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Fault } from "../../contract/errors.ts";
import { allowedOperations, requireOperation, type ItemOperation } from "./item-operations.ts";
import { parseItem, protectionStates, testFailoverStates, type Item, type ProtectionState, type TestFailoverState } from "./item.ts";

const replicating = ["TestFailover", "UnplannedFailover", "DisableProtection", "RepairReplication"] as const;

const table: readonly (readonly [ProtectionState, TestFailoverState, readonly ItemOperation[]])[] = [
  ["EnablingProtection", "None", []],
  ["EnablingFailed", "None", ["DisableProtection"]],
  ["InitialReplicationInProgress", "None", []],
  ["Protected", "None", replicating],
  ["Protected", "TestMigrationInProgress", []],
  ["Protected", "TestMigrationSucceeded", ["TestFailoverCleanup", "RepairReplication"]],
  ["Protected", "TestMigrationFailed", replicating],
  ["Protected", "TestMigrationCleanupInProgress", []],
  ["UnplannedFailoverInitiated", "None", []],
  ["UnplannedFailoverFailed", "None", ["CancelFailover"]],
  ["UnplannedFailoverCommitPending", "None", ["Commit", "CancelFailover", "ChangePit"]],
  ["ChangeRecoveryPointInitiated", "None", []],
  ["ChangeRecoveryPointFailed", "None", ["CancelFailover", "ChangePit"]],
  ["CancelFailoverInProgressOnRecovery", "None", []],
  ["CancelFailoverFailedOnRecovery", "None", ["CancelFailover"]],
  ["CommitFailoverInProgressOnRecovery", "None", []],
  ["CommitFailoverFailedOnRecovery", "None", ["Commit", "CancelFailover", "ChangePit"]],
  ["CommitFailoverCompleted", "None", ["CompleteMigration", "DisableProtection"]],
  ["DisablingProtection", "None", []],
  ["DisablingFailed", "None", ["DisableProtection"]],
];
const everyOperation = [...new Set(table.flatMap(([, , allowed]) => allowed))];

function itemIn(protectionState: ProtectionState, testFailoverState: TestFailoverState, busyWith?: string): Item {
  return parseItem({
    infrastructureId: "i",
    applianceId: "a",
    machineName: "web",
    runAsAccountId: "root",
    policyName: "default",
    protectionState,
    testFailoverState,
    ...(busyWith === undefined ? {} : { busyWith }),
  });
}

describe("a protected item", () => {
  for (const [state, test, allowed] of table)
    it(`allows ${allowed.join(", ") || "nothing"} while ${state}, test ${test}`, () => {
      const item = itemIn(state, test);
      assert.deepEqual(allowedOperations(item), allowed);
      for (const operation of everyOperation.filter((each) => !allowed.includes(each)))
        assert.throws(
          () => requireOperation(item, operation, "change"),
          (error) => error instanceof Fault && error.code === "StateConflict" && Array.isArray(error.evidence["allowedOperations"]),
        );
      for (const operation of allowed) requireOperation(item, operation, "change");
    });

  it("allows nothing while its replication is being changed", () => {
    assert.deepEqual(allowedOperations(itemIn("Protected", "None", "RepairReplication")), []);
  });

  it("has a row for every state", () => {
    assert.deepEqual([...new Set(table.map(([state]) => state))].toSorted(), [...protectionStates].toSorted());
    assert.deepEqual([...new Set(table.map(([, test]) => test))].toSorted(), [...testFailoverStates].toSorted());
  });
});
