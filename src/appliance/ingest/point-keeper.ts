// Keeps each machine's recovery points within its policy, and collects what is left behind: off the way of points that come in.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { asFault, type Fault } from "../../contract/errors.ts";
import type { MachineId, PointId } from "../../contract/ids.ts";
import { choosePointsToRemove, defaultRules, type RetainedPoint } from "../../vault/retention.ts";
import type { CollectionReport, Vault } from "../../vault/vault.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import type { PointLedger } from "./point-ledger.ts";

const lookEveryMs = 60_000;
const collectEveryMs = 3_600_000;
/** While packs of an older key generation are left: each collection rewrites a bounded part of them. */
const rewriteEveryMs = 600_000;
/** A machine that comes from another appliance is noticed this late; its points are kept longer by that much. */
const listEveryMs = 3_600_000;
/** Points that one look removes of one machine; the next goes on. */
const removalsPerLookMax = 200;

export interface PointKeeperParts {
  readonly vault: Pick<Vault, "removePoint" | "collect" | "listPoints" | "hasOlderSeals">;
  readonly ledger: PointLedger;
  readonly registry: Pick<MachineRegistry, "list">;
  readonly clock: Clock;
  readonly log: Log;
  /** Told of each round's outcome, for the health list. */
  readonly onOutcome: (fault: Fault | undefined) => void;
}

type BroughtPoints = ReadonlyMap<MachineId, Map<PointId, RetainedPoint>>;

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
  let listedMs = Number.NEGATIVE_INFINITY;
  let brought: BroughtPoints = new Map();
  while (!signal.aborted) {
    try {
      if (clock.monotonicMs() - listedMs >= listEveryMs) {
        brought = await listBrought(parts, signal);
        listedMs = clock.monotonicMs();
      }
      if ((await removeExpired(parts, brought, signal)) > 0) hasGarbage = true;
      const sinceMs = clock.monotonicMs() - collectedMs;
      if ((hasGarbage && sinceMs >= collectEveryMs) || (sinceMs >= rewriteEveryMs && parts.vault.hasOlderSeals())) {
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

/** Points of machines that came from another appliance, which this one's list does not have. */
export async function listBrought(
  { vault, ledger, registry }: Pick<PointKeeperParts, "vault" | "ledger" | "registry">,
  signal: AbortSignal,
): Promise<BroughtPoints> {
  const brought = new Map<MachineId, Map<PointId, RetainedPoint>>();
  for (const { machineId, policy } of registry.list()) {
    if (policy?.historyMinutes === undefined) continue;
    const points = new Map<PointId, RetainedPoint>();
    for await (const { pointId, timeMs, consistency } of vault.listPoints(machineId)) {
      signal.throwIfAborted();
      if (ledger.bootIdOf(pointId) === undefined) points.set(pointId, { pointId, timeMs, consistency });
    }
    if (points.size > 0) brought.set(machineId, points);
  }
  return brought;
}

/** Removes what the machines' policies do not keep. Answers how many points went. */
export async function removeExpired(
  { vault, ledger, registry, clock, log }: Omit<PointKeeperParts, "onOutcome">,
  brought: BroughtPoints,
  signal: AbortSignal,
): Promise<number> {
  let removedCount = 0;
  for (const { machineId, policy } of registry.list()) {
    if (policy?.historyMinutes === undefined) continue;
    const rules = defaultRules(policy.historyMinutes * 60_000);
    const points = [...(brought.get(machineId)?.values() ?? []), ...ledger.pointsOf(machineId)];
    const chosen = choosePointsToRemove(points, rules, clock.nowMs()).slice(0, removalsPerLookMax);
    const counts = { removed: 0, held: 0 };
    for (const pointId of chosen) {
      signal.throwIfAborted();
      const outcome = await vault.removePoint(machineId, pointId);
      counts[outcome] += 1;
      // After the vault: a crash in between leaves a point in the list that the next look removes again.
      if (outcome === "held") continue;
      ledger.remove(pointId);
      brought.get(machineId)?.delete(pointId);
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
