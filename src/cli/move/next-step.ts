// What comes next in a move, from what the hub shows of it. Pure: called anew after each step, so that any call goes on where it was.

import type { MoveOutcome } from "./wish.ts";

/** The protected item, as far as the way depends on it. */
export interface SeenItem {
  readonly protectionState: string;
  readonly testFailoverState: string;
  /** Whether a test migration ever succeeded. */
  readonly isTested: boolean;
  /** The last job that was begun for it. */
  readonly jobId: string | undefined;
  /** The point from which it was cut over. */
  readonly finalPointId: string | undefined;
}

export interface Seen {
  readonly item: SeenItem | undefined;
  /** A migrated machine of this hub. */
  readonly landedName: string | undefined;
  readonly exported: { readonly pointId: string; readonly isFinal: boolean } | undefined;
  /** What this very call has done already. */
  readonly done: { readonly isTested: boolean; readonly isExported: boolean };
}

export type Step =
  | { readonly kind: "protect" }
  /** A protection that failed is taken away, so that it can be begun anew. */
  | { readonly kind: "clear" }
  | { readonly kind: "wait"; readonly jobId: string }
  | { readonly kind: "test" }
  | { readonly kind: "cleanUp" }
  | { readonly kind: "export"; readonly pointId: string | undefined }
  | { readonly kind: "cutOver" }
  /** A cut-over whose rollback could not be finished is cancelled. */
  | { readonly kind: "cancel" }
  | { readonly kind: "commit" }
  | { readonly kind: "complete" }
  /** The landed machine was only the proof of the files. */
  | { readonly kind: "discard"; readonly name: string }
  | { readonly kind: "end"; readonly reached: "tested" | "landed" | "exported" };

export function nextStep(seen: Seen, wish: { readonly until: "test" | "end"; readonly outcome: Pick<MoveOutcome, "kind"> }): Step {
  const { item } = seen;
  if (item === undefined) return withoutItem(seen, wish.outcome);
  const wait: Step | undefined = item.jobId === undefined ? undefined : { kind: "wait", jobId: item.jobId };
  switch (item.protectionState) {
    case "EnablingFailed":
      return { kind: "clear" };
    case "Protected":
      return whileProtected(seen, item, wish);
    case "UnplannedFailoverFailed":
    case "CancelFailoverFailedOnRecovery":
      return { kind: "cancel" };
    case "UnplannedFailoverCommitPending":
    case "CommitFailoverFailedOnRecovery":
      if (wish.outcome.kind === "files" && seen.exported?.isFinal !== true) return { kind: "export", pointId: item.finalPointId };
      return { kind: "commit" };
    case "CommitFailoverCompleted":
    case "DisablingFailed":
      return { kind: "complete" };
    default:
      // Everything else has a job under way.
      return wait ?? { kind: "clear" };
  }
}

function withoutItem(seen: Seen, outcome: Pick<MoveOutcome, "kind">): Step {
  const isFinal = seen.exported?.isFinal === true;
  if (seen.landedName !== undefined) {
    return outcome.kind === "files" && isFinal ? { kind: "discard", name: seen.landedName } : { kind: "end", reached: "landed" };
  }
  return isFinal ? { kind: "end", reached: "exported" } : { kind: "protect" };
}

function whileProtected(
  seen: Seen,
  item: SeenItem,
  wish: { readonly until: "test" | "end"; readonly outcome: Pick<MoveOutcome, "kind"> },
): Step {
  switch (item.testFailoverState) {
    case "TestMigrationInProgress":
    case "TestMigrationCleanupInProgress":
      return item.jobId === undefined ? { kind: "test" } : { kind: "wait", jobId: item.jobId };
    case "TestMigrationSucceeded":
      return { kind: "cleanUp" };
    default:
  }
  // Who asks for a test only gets one each time; on the way to the cut-over one that succeeded earlier counts.
  const isTested = wish.until === "test" ? seen.done.isTested : item.isTested;
  if (!isTested) return { kind: "test" };
  if (wish.until === "end") return { kind: "cutOver" };
  if (wish.outcome.kind === "files" && !seen.done.isExported) return { kind: "export", pointId: undefined };
  return { kind: "end", reached: "tested" };
}
