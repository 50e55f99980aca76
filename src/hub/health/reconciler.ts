// Raises and clears health errors: one hub at a time by a session lock, now and then and when the database rings, each change with its event once.

import { sql } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { EventStore } from "../db/events.ts";
import { clearHealthErrors, forgetHealthErrors, raiseHealthErrors, type Findings, type HealthErrorRow } from "../db/health-errors.ts";
import { goneMachines, isJudgedAt } from "../db/health-findings.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { healthCodes, type HealthErrorCode } from "./health-codes.ts";
import { findVaultsWithoutRole, healthLimits, healthRules, type HealthLimits } from "./health-rules.ts";
import { healthTopic } from "./schema.ts";

export interface HealthDependencies {
  readonly services: Pick<HubServices, "clock" | "log" | "database" | "events" | "vaults">;
  /** Names of the machines on this hub's target. */
  readonly landedNames: () => Promise<readonly string[]>;
  readonly place: string | undefined;
  readonly limits?: Partial<HealthLimits>;
}

/** Any number that no other program of this database takes. The server gives the lock back when its hub's session ends, however it ends. */
const leaderLock = 7_212_102;
const keptMs = 30 * 24 * 3600_000;
const forgottenMax = 1000;
/** A storm of changes rings often; rounds have at least this between them. */
const restMs = 1000;

/** One round; answers who judged: another hub that is at it just now judges the same. */
export async function reconcileHealth(dependencies: HealthDependencies): Promise<"judged" | "otherHub"> {
  const { services, place } = dependencies;
  const { clock, log } = services;
  const limits = { ...healthLimits, ...dependencies.limits };
  const seenAt = toTimestamp(clock.nowMs());
  const names = await dependencies.landedNames().catch((error: unknown) => {
    log.warn("landed machines not compared", { reason: String(error) });
    return undefined;
  });
  const vaultsWithoutRole = await findVaultsWithoutRole(services.vaults, services.database.db);
  return await services.database.db.connection().execute(async (db) => {
    const round: Round = { db, clock, events: services.events, batchMax: limits.batchMax };
    // Only a hub of the place sees its target, so this rule has no leader; the table's key keeps it single.
    if (names !== undefined) await settle(round, "LandedMachineGone", goneMachines({ place, names, seenAt }), isJudgedAt(place));
    const got = await sql<{ mine: boolean }>`select pg_try_advisory_lock(${leaderLock}) as mine`.execute(db);
    if (got.rows[0]?.mine !== true) return "otherHub";
    try {
      for (const rule of healthRules({ clock, vaultsWithoutRole }, limits)) await settle(round, rule.code, rule.findings());
      await forgetHealthErrors(db, toTimestamp(clock.nowMs() - keptMs), forgottenMax);
      return "judged";
    } finally {
      await sql`select pg_advisory_unlock(${leaderLock})`.execute(db);
    }
  });
}

interface Round {
  readonly db: Queryable;
  readonly clock: Clock;
  readonly events: EventStore;
  readonly batchMax: number;
}

/** Raises, then clears, in batches: each batch and its events commit together, so a kill loses or repeats none. */
async function settle({ db, clock, events, batchMax }: Round, code: HealthErrorCode, findings: Findings, scope?: Findings): Promise<void> {
  const round = { code, at: toTimestamp(clock.nowMs()), countMax: batchMax };
  for (const change of ["raised", "cleared"] as const)
    for (let changed = batchMax; changed === batchMax;) {
      changed = await db.transaction().execute(async (transaction) => {
        const rows =
          change === "raised"
            ? await raiseHealthErrors(transaction, findings, round)
            : await clearHealthErrors(transaction, findings, round, scope);
        for (const row of rows) await events.record(toEvent(code, row, change), transaction);
        return rows.length;
      });
      // What was planned while the table was small reads all of it, until its rows are counted again.
      if (changed === batchMax) await sql`analyze health_errors`.execute(db);
    }
}

function toEvent(code: HealthErrorCode, row: HealthErrorRow, change: "raised" | "cleared"): Parameters<EventStore["record"]>[0] {
  const { severity, kind, component } = healthCodes[code];
  return {
    vaultKey: row.vaultKey,
    dedupKey: `health:${row.errorId}:${change}`,
    code: change === "raised" ? code : `${code}Cleared`,
    kind,
    severity: change === "raised" ? severity : "Info",
    description: change === "raised" ? row.message : `no more: ${row.message}`,
    affected: { id: row.entityId, name: row.entityName },
    ...(row.fabricId === undefined ? {} : { fabricId: row.fabricId }),
    component,
  };
}

/**
 * Rounds until it is closed, the first after an interval: after a pause of all hubs, appliances get the time to be heard again. A round that fails is told, and the next one tries again.
 */
export function startHealth(dependencies: HealthDependencies): AsyncDisposable {
  const { clock, log, database } = dependencies.services;
  const { intervalMs } = { ...healthLimits, ...dependencies.limits };
  const closing = new AbortController();
  let bell = new AbortController();
  const subscription = database.notifications.subscribe(healthTopic, () => bell.abort());
  const rest = async (waitMs: number, ...signals: readonly AbortSignal[]): Promise<void> =>
    await clock.sleep(waitMs, AbortSignal.any([closing.signal, ...signals])).catch(() => undefined); // Signals only wake it.
  const running = (async () => {
    for (;;) {
      await rest(intervalMs, bell.signal);
      if (closing.signal.aborted) return;
      bell = new AbortController();
      try {
        await reconcileHealth(dependencies);
      } catch (error) {
        log.warn("health not judged", { reason: error instanceof Error ? error.message : String(error) });
      }
      await rest(Math.min(restMs, intervalMs));
    }
  })();
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      subscription[Symbol.dispose]();
      await running;
    },
  };
}
