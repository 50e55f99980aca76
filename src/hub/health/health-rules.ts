// The rules of health: which query finds what is wrong, with the limits that the documentation gives.

import { toTimestamp, type Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { Findings } from "../db/health-errors.ts";
import {
  appliancesWithoutCache,
  endingCertificates,
  namedVaults,
  overdueApplicationPoints,
  overduePoints,
  silentAgents,
  silentAppliances,
  stuckJobs,
  undeliveredAlerts,
  unapprovedEndpoints,
  vaultsWithAppliances,
} from "../db/health-findings.ts";
import type { Queryable } from "../jobs/job.ts";
import { applianceCertificateDays } from "../pki/authority.ts";
import type { HubServices } from "../services.ts";
import type { HealthErrorCode } from "./health-codes.ts";

export interface HealthLimits {
  /** Between two rounds; a change that rings starts one at once. */
  readonly intervalMs: number;
  /** Documented: no heartbeat for 15 minutes is critical. */
  readonly applianceSilentMs: number;
  readonly agentSilentMs: number;
  /** Intervals of the policy without a new recovery point. */
  readonly overdueFactor: number;
  /** Policies of a few seconds would raise at every short disturbance. */
  readonly overdueFloorMs: number;
  /** Documented: two months before the end. */
  readonly certificateEndsMs: number;
  readonly jobStuckMs: number;
  /** Errors that one statement raises or clears, with their events in one transaction. */
  readonly batchMax: number;
}

const dayMs = 24 * 3600_000;

export const healthLimits: HealthLimits = {
  intervalMs: 30_000,
  applianceSilentMs: 15 * 60_000,
  agentSilentMs: 15 * 60_000,
  overdueFactor: 3,
  overdueFloorMs: 5 * 60_000,
  certificateEndsMs: 60 * dayMs,
  jobStuckMs: 10 * 60_000,
  batchMax: 500,
};

export interface HealthRule {
  readonly code: HealthErrorCode;
  /** Read when the rule is settled: its times count from then. */
  readonly findings: () => Findings;
}

const vaultsMax = 1000;

/** The rules that any hub can judge. */
export function healthRules(
  { clock, vaultsWithoutRole }: { readonly clock: Clock; readonly vaultsWithoutRole: readonly string[] },
  limits: HealthLimits,
): readonly HealthRule[] {
  const ago = (ms: number): string => toTimestamp(clock.nowMs() - ms);
  return [
    { code: "ApplianceSilent", findings: () => silentAppliances(ago(limits.applianceSilentMs)) },
    { code: "CacheSpaceLow", findings: () => appliancesWithoutCache() },
    { code: "AgentSilent", findings: () => silentAgents(ago(limits.agentSilentMs)) },
    {
      code: "RecoveryPointOverdue",
      findings: () => overduePoints(clock.nowMs(), { factor: limits.overdueFactor, floorMs: limits.overdueFloorMs }),
    },
    { code: "ApplicationPointOverdue", findings: () => overdueApplicationPoints(clock.nowMs(), { factor: limits.overdueFactor }) },
    {
      code: "ApplianceCertificateEnding",
      findings: () => endingCertificates(ago(-limits.certificateEndsMs), applianceCertificateDays),
    },
    { code: "PrivateEndpointUnapproved", findings: () => unapprovedEndpoints() },
    { code: "JobStuck", findings: () => stuckJobs(ago(limits.jobStuckMs)) },
    { code: "AlertNotDelivered", findings: () => undeliveredAlerts() },
    { code: "StorageRoleMissing", findings: () => namedVaults(vaultsWithoutRole) },
  ];
}

/** Roles are judged where every use of them is judged, never a second time in SQL. Vaults ask the pool: nobody may hold a connection here. */
export async function findVaultsWithoutRole(vaults: HubServices["vaults"], db: Queryable): Promise<readonly string[]> {
  const found: string[] = [];
  for (const id of await vaultsWithAppliances(db, vaultsMax)) {
    try {
      await vaults.open(id);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      if (error.code === "StorageRoleMissing") found.push(id); // Other faults of a vault are told where it is used.
    }
  }
  return found;
}
