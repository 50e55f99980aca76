// What the hub knows of many protected items at once: last state, newest point, appliance's name, raised health errors. One question, however many.

import { sql, type Kysely } from "kysely";
import { machineFactsShape, type MachineFacts } from "../../contract/agent-control.ts";
import { sealedPointReportShape, type SealedPointReport } from "../../contract/appliance-protocol.ts";
import { toMachineState, type MachineState } from "./appliances.ts";
import { openErrorsOf, toHealthError, type HealthErrorColumns, type HealthErrorRow } from "./health-errors.ts";
import type { Tables } from "./tables.ts";

export interface ItemKeys {
  /** Lower-case resource ids. */
  readonly key: string;
  readonly vaultKey: string;
  readonly applianceId: string;
  readonly machineId: string | undefined;
}

export interface ItemFacts {
  readonly machine: MachineState | undefined;
  /** The machine's facts at its registration, while nothing newer is known. */
  readonly stored: MachineFacts | undefined;
  readonly newestPoint: SealedPointReport | undefined;
  readonly applianceName: string | undefined;
  readonly raised: readonly HealthErrorRow[];
}

/** In the order of `items`. */
export async function readItemFacts(db: Kysely<Tables>, items: readonly ItemKeys[]): Promise<readonly ItemFacts[]> {
  if (items.length === 0) return [];
  // Arrays through selects: a planner that sees their lengths plans at every call.
  const column = (name: keyof ItemKeys) => items.map((item) => item[name] ?? null);
  const { rows } = await sql<Row>`select m.appliance_id, m.last_seen_at, m.report, p.report as point, a.name as appliance_name,
      case when m.report is null then (select properties->'facts' from resources where resources.key = w.key) end as stored,
      ${openErrorsOf(sql`w.key`)} as raised
    from unnest((select ${column("key")}::text[]), (select ${column("vaultKey")}::text[]), (select ${column("machineId")}::uuid[]),
        (select ${column("applianceId")}::uuid[]))
      with ordinality w(key, vault_key, machine_id, appliance_id, place)
    left join machine_states m on m.vault_key = w.vault_key and m.machine_id = w.machine_id
    left join appliances a on a.appliance_id = w.appliance_id
    left join lateral (select report from points where vault_key = w.vault_key and machine_id = w.machine_id
      order by time_ms desc, point_id desc limit 1) p on true
    order by w.place`.execute(db);
  return rows.map((row) => ({
    machine: row.report === null ? undefined : toMachineState(row),
    stored: row.stored === null ? undefined : machineFactsShape.parse(row.stored),
    newestPoint: row.point === null ? undefined : sealedPointReportShape.parse(row.point),
    applianceName: row.appliance_name ?? undefined,
    raised: (row.raised ?? []).map(toHealthError),
  }));
}

interface Row {
  readonly appliance_id: string;
  readonly last_seen_at: string;
  readonly report: unknown;
  readonly stored: unknown;
  readonly point: unknown;
  readonly appliance_name: string | null;
  readonly raised: readonly HealthErrorColumns[] | null;
}
