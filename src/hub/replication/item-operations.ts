// What may be done with a protected item in each of its states: the documented operations, and the refusal of all others.

import { Fault } from "../../contract/errors.ts";
import type { Item, ProtectionState, TestFailoverState } from "./item.ts";

/** The documented ReplicationProtectedItemOperation values that this hub ever allows. */
export type ItemOperation =
  | "TestFailover"
  | "TestFailoverCleanup"
  | "UnplannedFailover"
  | "Commit"
  | "CancelFailover"
  | "ChangePit"
  | "RepairReplication"
  | "DisableProtection"
  | "CompleteMigration";

const byState: Readonly<Record<Exclude<ProtectionState, "Protected">, readonly ItemOperation[]>> = {
  EnablingProtection: [],
  EnablingFailed: ["DisableProtection"],
  InitialReplicationInProgress: [],
  UnplannedFailoverInitiated: [],
  UnplannedFailoverFailed: ["CancelFailover"],
  UnplannedFailoverCommitPending: ["Commit", "CancelFailover", "ChangePit"],
  ChangeRecoveryPointInitiated: [],
  ChangeRecoveryPointFailed: ["CancelFailover", "ChangePit"],
  CancelFailoverInProgressOnRecovery: [],
  CancelFailoverFailedOnRecovery: ["CancelFailover"],
  CommitFailoverInProgressOnRecovery: [],
  CommitFailoverFailedOnRecovery: ["Commit", "CancelFailover", "ChangePit"],
  CommitFailoverCompleted: ["CompleteMigration", "DisableProtection"],
  DisablingProtection: [],
  DisablingFailed: ["DisableProtection"],
};

const whileProtected: Readonly<Record<TestFailoverState, readonly ItemOperation[]>> = {
  None: ["TestFailover", "UnplannedFailover", "DisableProtection", "RepairReplication"],
  TestMigrationInProgress: [],
  TestMigrationSucceeded: ["TestFailoverCleanup", "RepairReplication"],
  TestMigrationFailed: ["TestFailover", "UnplannedFailover", "DisableProtection", "RepairReplication"],
  TestMigrationCleanupInProgress: [],
};

export function allowedOperations(item: Pick<Item, "protectionState" | "testFailoverState" | "busyWith">): readonly ItemOperation[] {
  if (item.busyWith !== undefined) return [];
  return item.protectionState === "Protected" ? whileProtected[item.testFailoverState] : byState[item.protectionState];
}

/** Throws StateConflict unless the operation is allowed now; the evidence says what is. */
export function requireOperation(item: Item, operation: ItemOperation, doing: string): void {
  const allowed = allowedOperations(item);
  if (!allowed.includes(operation)) refuse(item, doing, allowed);
}

/** Operations on replication that ARM has no word for in allowedOperations (disks, the agent): while nothing else is under way. */
export function requireReplicating(item: Item, doing: string): void {
  if (item.protectionState !== "Protected" || !allowedOperations(item).includes("RepairReplication"))
    refuse(item, doing, allowedOperations(item));
}

function refuse(item: Item, doing: string, allowed: readonly ItemOperation[]): never {
  const action =
    item.testFailoverState === "TestMigrationSucceeded"
      ? "clean up the test migration first"
      : allowed.length > 0
        ? `what can be done now: ${allowed.join(", ")}`
        : "wait for the job that is under way";
  throw new Fault("StateConflict", `could not ${doing} ${item.machineName}: it is ${item.protectionState}`, {
    evidence: {
      protectionState: item.protectionState,
      testFailoverState: item.testFailoverState,
      allowedOperations: [...allowed],
      ...(item.busyWith === undefined ? {} : { busyWith: item.busyWith }),
    },
    action,
  });
}
