// Keeps each machine's recovery points within its policy, and collects what is left behind: off the way of points that come in.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { asFault, type Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import { choosePointsToRemove, defaultRules } from "../../vault/retention.ts";
import type { CollectionReport, Vault } from "../../vault/vault.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import type { PointLedger } from "./point-ledger.ts";

const lookEveryMs = 60_000;
const collectEveryMs = 3_600_000;
/** Points that one look removes of one machine; the next goes on. */
const removalsPerLookMax = 200;

export interface PointKeeperParts {
  readonly vault: Pick<Vault, "removePoint" | "collect">;
  readonly ledger: PointLedger;
  readonly registry: Pick<MachineRegistry, "list">;
  readonly clock: Clock;
  readonly log: Log;
  /** Told of each round's outcome, for the health list. */
  readonly onOutcome: (fault: Fault | undefined) => void;
}

/** Looks each minute, and collects each hour when points went since. */
export function startPointKeeper(parts: PointKeeperParts): AsyncDisposable {
  const ending = new AbortController();
  const { signal } = ending;
  const running = run(parts, signal);
  return {
    [Symbol.asyncDispose]: async () => {
      ending.abort();
      await running;
    },
  };
}

async function run(parts: PointKeeperParts, signal: AbortSignal): Promise<void> {
  const { clock, log, onOutcome } = parts;
  // What an earlier run has left behind is collected an hour after the start, when copies that were cut have gone on.
  let hasGarbage = true;
  let collectedMs = clock.monotonicMs();
  while (!signal.aborted) {
    try {
      if ((await removeExpired(parts, signal)) > 0) hasGarbage = true;
      if (hasGarbage && clock.monotonicMs() - collectedMs >= collectEveryMs) {
        collectedMs = clock.monotonicMs();
        logCollection(log, await parts.vault.collect({ signal }));
        hasGarbage = false;
      }
      onOutcome(undefined);
    } catch (error) {
      if (signal.aborted) return;
      const fault = asFault(error, "keep recovery points within their policies");
      onOutcome(fault);
      log.warn("recovery points could not be kept within their policies", { fault: fault.code, reason: fault.message });
    }
    await clock.sleep(lookEveryMs, signal).catch(() => undefined); // The loop's head sees the abort.
  }
}

/** Removes what the machines' policies do not keep. Answers how many points went. */
export async function removeExpired(
  { vault, ledger, registry, clock, log }: Omit<PointKeeperParts, "onOutcome">,
  signal: AbortSignal,
): Promise<number> {
  let removedCount = 0;
  for (const { machineId, policy } of registry.list()) {
    if (policy?.historyMinutes === undefined) continue;
    const rules = defaultRules(policy.historyMinutes * 60_000);
    const chosen = choosePointsToRemove(ledger.pointsOf(machineId), rules, clock.nowMs()).slice(0, removalsPerLookMax);
    const counts = { removed: 0, held: 0 };
    for (const pointId of chosen) {
      signal.throwIfAborted();
      const outcome = await vault.removePoint(machineId, pointId);
      counts[outcome] += 1;
      // After the vault: a crash in between leaves a point in the list that the next look removes again.
      if (outcome === "removed") ledger.remove(pointId);
    }
    removedCount += counts.removed;
    logRemovals(log, machineId, counts);
  }
  return removedCount;
}

function logRemovals(log: Log, machineId: MachineId, { removed, held }: { readonly removed: number; readonly held: number }): void {
  if (removed > 0) log.info("recovery points removed by retention", { machineId, removedCount: removed, heldCount: held });
}

function logCollection(log: Log, report: CollectionReport): void {
  const { damagedPacks, ...counts } = report;
  log[damagedPacks.length > 0 ? "warn" : "info"]("garbage collected", { ...counts, damagedPacks: damagedPacks.join(" ").slice(0, 1000) });
}
