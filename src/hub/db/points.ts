// The catalogue of recovery points: what appliances reported as sealed. The vault's own objects are the truth.

import { sql, type Kysely } from "kysely";
import { z } from "zod";
import { sealedPointReportShape, type SealedPointReport } from "../../contract/appliance-protocol.ts";
import type { MachineId, PointId } from "../../contract/ids.ts";
import { notify } from "./notifications.ts";
import type { Tables } from "./tables.ts";

export interface PointCatalogue {
  /** A point that is known already is left as it is. */
  add(vaultId: string, reports: readonly SealedPointReport[]): Promise<void>;
  find(vaultId: string, pointId: PointId): Promise<SealedPointReport | undefined>;
  /** Newest first; `before` is the point id that the last page ended with. */
  list(
    vaultId: string,
    machineId: MachineId,
    page: {
      readonly countMax: number;
      readonly before?: PointId | undefined;
      /** Only these; all unless told. */
      readonly consistencies?: readonly SealedPointReport["consistency"][];
    },
  ): Promise<readonly SealedPointReport[]>;
  /** Of these points, those of a group of which every member has its own of the same id. */
  completeOf(vaultId: string, reports: readonly SealedPointReport[]): Promise<ReadonlySet<PointId>>;
  /**
   * The newest point that a whole group has and each of these machines its own of, by machine; undefined when there is none.
   * All of them show one moment.
   */
  newestTogether(
    vaultId: string,
    machineIds: readonly MachineId[],
    consistencies?: readonly SealedPointReport["consistency"][],
  ): Promise<ReadonlyMap<MachineId, PointId> | undefined>;
  /** Of these points, how those were verified that a rehearsal has booted and asked. */
  verifiedOf(vaultId: string, pointIds: readonly PointId[]): Promise<ReadonlyMap<PointId, PointVerification>>;
  /** Points that are not known are no fault. */
  remove(vaultId: string, pointIds: readonly PointId[]): Promise<void>;
  removeMachine(vaultId: string, machineId: MachineId): Promise<void>;
}

export const pointVerificationShape = z.object({
  at: z.string(),
  jobId: z.string(),
  /** What the machine was asked and answered. */
  passed: z.array(z.string()),
});
export type PointVerification = z.infer<typeof pointVerificationShape>;

/** Within the transaction of the job that proved it. A point that is gone is no fault. */
export async function markPointVerified(db: Kysely<Tables>, vaultId: string, pointId: PointId, verified: PointVerification): Promise<void> {
  await sql`update points set verified = ${JSON.stringify(verified)}::jsonb
    where vault_key = ${vaultId.toLowerCase()} and point_id = ${pointId}`.execute(db);
}

/** Told when a machine got a new point. */
export const pointTopic = (vaultId: string, machineId: string): string => `points:${vaultId.toLowerCase()}:${machineId}`;

export function openPointCatalogue({ db }: { readonly db: Kysely<Tables> }): PointCatalogue {
  const find = async (vaultId: string, pointId: PointId): Promise<SealedPointReport | undefined> => {
    const query = db.selectFrom("points").select("report").where("vault_key", "=", vaultId.toLowerCase());
    const row = await query.where("point_id", "=", pointId).executeTakeFirst();
    return row === undefined ? undefined : sealedPointReportShape.parse(row.report);
  };
  return {
    find,
    add: async (vaultId, reports) => {
      await db.transaction().execute(async (transaction) => {
        for (const report of reports) {
          await transaction
            .insertInto("points")
            .values({
              vault_key: vaultId.toLowerCase(),
              machine_id: report.machineId,
              point_id: report.pointId,
              time_ms: String(report.timeMs),
              consistency: report.consistency,
              report: JSON.stringify(report),
            })
            .onConflict((conflict) => conflict.columns(["vault_key", "point_id"]).doNothing())
            .execute();
          await notify(transaction, pointTopic(vaultId, report.machineId));
        }
      });
    },
    list: async (vaultId, machineId, page) => {
      const last = page.before === undefined ? undefined : await find(vaultId, page.before);
      let query = db
        .selectFrom("points")
        .select("report")
        .where("vault_key", "=", vaultId.toLowerCase())
        .where("machine_id", "=", machineId);
      if (page.consistencies !== undefined) query = query.where("consistency", "in", page.consistencies);
      if (last !== undefined)
        query = query.where((where) =>
          where.or([
            where("time_ms", "<", String(last.timeMs)),
            where.and([where("time_ms", "=", String(last.timeMs)), where("point_id", "<", last.pointId)]),
          ]),
        );
      const rows = await query.orderBy("time_ms", "desc").orderBy("point_id", "desc").limit(page.countMax).execute();
      return rows.map((row) => sealedPointReportShape.parse(row.report));
    },
    verifiedOf: async (vaultId, pointIds) => {
      if (pointIds.length === 0) return new Map();
      const found = await sql<{ point_id: PointId; verified: unknown }>`select point_id, verified from points
        where vault_key = ${vaultId.toLowerCase()} and point_id = any(${pointIds}::uuid[]) and verified is not null`.execute(db);
      return new Map(found.rows.map(({ point_id: pointId, verified }) => [pointId, pointVerificationShape.parse(verified)]));
    },
    completeOf: async (vaultId, reports) => await findComplete(db, vaultId.toLowerCase(), reports),
    newestTogether: async (vaultId, machineIds, consistencies) =>
      await findTogether(db, vaultId.toLowerCase(), { machineIds, consistencies }),
    remove: async (vaultId, pointIds) => {
      if (pointIds.length === 0) return;
      await db.deleteFrom("points").where("vault_key", "=", vaultId.toLowerCase()).where("point_id", "in", pointIds).execute();
    },
    removeMachine: async (vaultId, machineId) => {
      await db.deleteFrom("points").where("vault_key", "=", vaultId.toLowerCase()).where("machine_id", "=", machineId).execute();
    },
  };
}

async function findTogether(
  db: Kysely<Tables>,
  vaultKey: string,
  wish: { readonly machineIds: readonly MachineId[]; readonly consistencies: readonly SealedPointReport["consistency"][] | undefined },
): Promise<ReadonlyMap<MachineId, PointId> | undefined> {
  const { machineIds, consistencies } = wish;
  const isWanted = consistencies === undefined ? sql`true` : sql`consistency = any(${consistencies}::text[])`;
  const found = await sql<{ machine_id: MachineId; point_id: PointId }>`with own as (
      select machine_id, point_id, time_ms, report->'group'->>'groupPointId' as group_point,
        (report->'group'->>'memberCount')::int as member_count, (report->'group'->>'timeMs')::bigint as group_ms
      from points where vault_key = ${vaultKey} and machine_id = any(${machineIds}::uuid[]) and report ? 'group' and ${isWanted}),
    newest as (
      select group_point from own group by group_point
      having count(distinct machine_id) = ${machineIds.length} and max(member_count) <= (
        select count(distinct machine_id) from points
        where vault_key = ${vaultKey} and report->'group'->>'groupPointId' = own.group_point)
      order by max(group_ms) desc limit 1)
    select machine_id, point_id from own where group_point = (select group_point from newest)`.execute(db);
  return found.rows.length === 0 ? undefined : new Map(found.rows.map((row) => [row.machine_id, row.point_id]));
}

async function findComplete(db: Kysely<Tables>, vaultKey: string, reports: readonly SealedPointReport[]): Promise<ReadonlySet<PointId>> {
  const groupPointIds = reports.flatMap(({ group }) => (group === undefined ? [] : [group.groupPointId]));
  if (groupPointIds.length === 0) return new Set();
  const found = await sql<{
    id: string;
    count: number;
  }>`select report->'group'->>'groupPointId' as id, count(distinct machine_id)::int as count
    from points where vault_key = ${vaultKey} and report->'group'->>'groupPointId' = any(${groupPointIds}::text[]) group by 1`.execute(db);
  const counts = new Map(found.rows.map(({ id, count }) => [id, count]));
  const isComplete = ({ group }: SealedPointReport): boolean =>
    group !== undefined && (counts.get(group.groupPointId) ?? 0) >= group.memberCount;
  return new Set(reports.filter(isComplete).map(({ pointId }) => pointId));
}
