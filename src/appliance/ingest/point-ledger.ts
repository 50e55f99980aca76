// What the appliance remembers of recovery points: written before the seal, completed after it, told to the hub until acknowledged.

import type { Clock } from "../../base/clock.ts";
import { toTimestamp } from "../../base/clock.ts";
import { sealedPointReportShape, type SealedPointReport } from "../../contract/appliance-protocol.ts";
import { parseDigestHex, parsePointId, type MachineId, type PointId } from "../../contract/ids.ts";
import type { SealOutcome, VaultReader } from "../../vault/vault.ts";
import { Bell } from "../control/agent-orders.ts";
import { readJson, readNumber, readText, type Row, type StateDatabase } from "../state/database.ts";

export interface PointDraft {
  /** Roots and storedBytes are filled in by `complete`. */
  readonly report: SealedPointReport;
  readonly bootId: string;
  readonly repairedBlockCount: number;
}

export interface PointLedger {
  /** Notes a point that is about to be sealed. */
  prepare(draft: PointDraft): void;
  /** The vault has sealed the point; from now on it is told to the hub. */
  complete(outcome: Pick<SealOutcome, "point" | "storedBytes">): SealedPointReport;
  /** The seal failed. */
  drop(pointId: PointId): void;
  /** Boot during which the point was made; undefined when this appliance did not take it in. */
  bootIdOf(pointId: PointId): string | undefined;
  repairedBlockCountOf(pointId: PointId): number | undefined;
  newestOf(machineId: MachineId): SealedPointReport | undefined;
  countOf(machineId: MachineId): number;
  /** Sealed points of a machine that the hub knows of. */
  pointsOf(machineId: MachineId): readonly Pick<SealedPointReport, "pointId" | "timeMs" | "consistency">[];
  /** The vault has the point no more; from now on this is told to the hub. */
  remove(pointId: PointId): void;
  untoldRemovals(countMax: number): readonly PointId[];
  markRemovalsTold(pointIds: readonly PointId[]): void;
  untold(countMax: number): readonly SealedPointReport[];
  markTold(pointIds: readonly PointId[]): void;
  /** After a start: points that were prepared when the program died are completed if the vault holds them, else dropped. */
  recover(vault: Pick<VaultReader, "point">): Promise<void>;
  forgetMachine(machineId: MachineId): void;
  /** Resolves when a point was completed or removed, or at the abort. */
  waitCompleted(signal: AbortSignal): Promise<void>;
}

export function createPointLedger({ database, clock }: { readonly database: StateDatabase; readonly clock: Clock }): PointLedger {
  const bell = new Bell();
  const rowOf = (pointId: PointId): Row | undefined => database.one("SELECT * FROM point WHERE id = ?", pointId);
  const drop = (pointId: PointId): void => database.run("DELETE FROM point WHERE id = ? AND is_sealed = 0", pointId);
  const complete = ({ point, storedBytes }: Pick<SealOutcome, "point" | "storedBytes">): SealedPointReport => {
    const row = rowOf(point.pointId);
    if (row === undefined) throw new Error(`assertion failed: point ${point.pointId} was prepared`);
    const draft = readJson(sealedPointReportShape, row, "report");
    const roots = new Map(point.disks.map((disk) => [disk.diskId, parseDigestHex(disk.root)]));
    const report: SealedPointReport = {
      ...draft,
      sealedAt: toTimestamp(clock.nowMs()),
      storedBytes,
      disks: draft.disks.map((disk) => ({ ...disk, root: roots.get(disk.diskId) ?? disk.root })),
    };
    database.run("UPDATE point SET report = ?, is_sealed = 1 WHERE id = ?", JSON.stringify(report), point.pointId);
    bell.ring("completed");
    return report;
  };
  return {
    prepare: ({ report, bootId, repairedBlockCount }) =>
      database.run(
        `INSERT INTO point (id, place, machine_id, boot_id, repaired_block_count, report)
         VALUES (?, (SELECT coalesce(max(place), 0) + 1 FROM point), ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id, report = excluded.report, repaired_block_count = excluded.repaired_block_count`,
        report.pointId,
        report.machineId,
        bootId,
        repairedBlockCount,
        JSON.stringify(report),
      ),
    complete,
    drop,
    bootIdOf: (pointId) => {
      const row = rowOf(pointId);
      return row === undefined || row["is_sealed"] !== 1 ? undefined : readText(row, "boot_id");
    },
    repairedBlockCountOf: (pointId) => {
      const row = rowOf(pointId);
      return row === undefined ? undefined : readNumber(row, "repaired_block_count");
    },
    newestOf: (machineId) => {
      const row = database.one("SELECT report FROM point WHERE machine_id = ? AND is_sealed = 1 ORDER BY place DESC LIMIT 1", machineId);
      return row === undefined ? undefined : readJson(sealedPointReportShape, row, "report");
    },
    countOf: (machineId) =>
      Number(database.one("SELECT count(*) AS n FROM point WHERE machine_id = ? AND is_sealed = 1", machineId)?.["n"] ?? 0),
    ...removalsOf(database, bell),
    untold: (countMax) =>
      database
        .all("SELECT report FROM point WHERE is_sealed = 1 AND is_told = 0 ORDER BY place LIMIT ?", countMax)
        .map((row) => readJson(sealedPointReportShape, row, "report")),
    markTold: (pointIds) =>
      database.transaction(() => {
        for (const pointId of pointIds) database.run("UPDATE point SET is_told = 1 WHERE id = ?", pointId);
      }),
    recover: async (vault) => {
      for (const row of database.all("SELECT id FROM point WHERE is_sealed = 0")) {
        const pointId = parsePointId(readText(row, "id"));
        const point = await vault.point(pointId);
        if (point === undefined) drop(pointId);
        else complete({ point, storedBytes: 0 });
      }
    },
    forgetMachine: (machineId) => database.run("DELETE FROM point WHERE machine_id = ? AND is_told = 1", machineId),
    waitCompleted: async (signal) => await bell.wait("completed", signal),
  };
}

function removalsOf(database: StateDatabase, bell: Bell): Pick<PointLedger, "pointsOf" | "remove" | "untoldRemovals" | "markRemovalsTold"> {
  return {
    pointsOf: (machineId) =>
      database
        .all("SELECT report FROM point WHERE machine_id = ? AND is_sealed = 1 AND is_told = 1 ORDER BY place", machineId)
        .map((row) => readJson(sealedPointReportShape, row, "report")),
    remove: (pointId) => {
      database.transaction(() => {
        database.run("DELETE FROM point WHERE id = ?", pointId);
        database.run("INSERT INTO removed_point (id) VALUES (?) ON CONFLICT DO NOTHING", pointId);
      });
      bell.ring("completed");
    },
    untoldRemovals: (countMax) =>
      database.all("SELECT id FROM removed_point ORDER BY id LIMIT ?", countMax).map((row) => parsePointId(readText(row, "id"))),
    markRemovalsTold: (pointIds) =>
      database.transaction(() => {
        for (const pointId of pointIds) database.run("DELETE FROM removed_point WHERE id = ?", pointId);
      }),
  };
}
