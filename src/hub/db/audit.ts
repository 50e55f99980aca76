// The audit trail: who asked for which write on what, and how it ended. A row is made before the work begins.

import type { Kysely } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Tables } from "./tables.ts";

export interface AuditEntry {
  readonly principalId: string;
  readonly action: string;
  readonly resourceId: string;
  readonly correlationId: string;
}

export interface AuditTrail {
  /** Durable on return; a write must not begin before. A row whose outcome stays "begun" tells of a killed hub. */
  begin(entry: AuditEntry): Promise<{ end(outcome: string): Promise<void> }>;
}

export function openAuditTrail(dependencies: { readonly db: Kysely<Tables>; readonly clock: Clock }): AuditTrail {
  const { db, clock } = dependencies;
  return {
    begin: async (entry) => {
      const { sequence } = await db
        .insertInto("audit")
        .values({
          at: toTimestamp(clock.nowMs()),
          principal_id: entry.principalId,
          action: entry.action,
          resource_id: entry.resourceId,
          correlation_id: entry.correlationId,
          outcome: "begun",
        })
        .returning("sequence")
        .executeTakeFirstOrThrow();
      return {
        end: async (outcome) => {
          await db.updateTable("audit").set({ outcome }).where("sequence", "=", sequence).execute();
        },
      };
    },
  };
}
