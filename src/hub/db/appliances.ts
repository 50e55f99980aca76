// Appliances in the catalogue: who registered in which vault, by which certificate, and what they last said.

import type { Kysely, Selectable, Updateable } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { z } from "zod";
import { applianceProgressShape, inventoryShape, telemetryShape, type Inventory } from "../../contract/appliance-protocol.ts";
import { parseApplianceId, type ApplianceId, type MachineId } from "../../contract/ids.ts";
import type { ApplianceTable, Tables } from "./tables.ts";

export type Telemetry = z.infer<typeof telemetryShape>;
export type MachineReport = z.infer<typeof applianceProgressShape>["machines"][number];

export interface Appliance {
  readonly applianceId: ApplianceId;
  /** Lower-case resource id of the vault that it registered in. */
  readonly vaultKey: string;
  readonly name: string;
  readonly version: string;
  /** SHA-256 of its client certificate, hex. */
  readonly certificateDigest: string;
  /** Issued by a renewal and not used yet; its first use ends the one before. */
  readonly nextCertificateDigest: string | undefined;
  readonly certificateEndsAt: string | undefined;
  readonly registeredAt: string;
  readonly lastSeenAt: string;
  /** Of its last poll. */
  readonly protocolVersion: number | undefined;
  readonly telemetry: Telemetry | undefined;
}

export interface MachineState {
  readonly applianceId: ApplianceId;
  readonly lastSeenAt: string;
  readonly report: MachineReport;
}

export interface ApplianceCatalogue {
  /** Stores the appliance and uses its registration key in one transaction. */
  add(
    appliance: Pick<Appliance, "applianceId" | "vaultKey" | "name" | "version" | "certificateDigest"> & {
      readonly certificateEndsAt?: string;
      readonly usingKey: (transaction: Kysely<Tables>) => Promise<void>;
    },
  ): Promise<void>;
  find(applianceId: ApplianceId): Promise<Appliance | undefined>;
  inVault(vaultId: string): Promise<readonly Appliance[]>;
  /** The other appliances of its vault, in the order of their names. */
  others(of: Pick<Appliance, "applianceId" | "vaultKey">, countMax: number): Promise<readonly Appliance[]>;
  /** Removes the vault's appliances with their orders, every machine's state and points, and the vault's events. */
  removeVault(vaultId: string): Promise<void>;
  /** Ends a registration: its certificate is not accepted any more. Its orders, inventory and machines go with it. Repeatable. */
  remove(applianceId: ApplianceId): Promise<void>;
  seen(applianceId: ApplianceId, protocolVersion: number): Promise<void>;
  /** A renewed certificate, accepted beside the present one until its first use. A second offer takes the place of the first. */
  offerCertificate(applianceId: ApplianceId, digest: string): Promise<void>;
  /** The first use of the certificate that was offered: the one before is not accepted any more. Repeatable. */
  useCertificate(applianceId: ApplianceId, used: { readonly digest: string; readonly endsAt: string }): Promise<void>;
  saveTelemetry(applianceId: ApplianceId, telemetry: Telemetry): Promise<void>;
  /** Replaces the appliance's earlier inventory. */
  saveInventory(applianceId: ApplianceId, inventory: Inventory): Promise<void>;
  inventory(applianceId: ApplianceId): Promise<Inventory | undefined>;
  /** Last state of each machine named; others keep theirs. */
  saveMachines(vaultId: string, applianceId: ApplianceId, machines: readonly MachineReport[]): Promise<void>;
  machine(vaultId: string, machineId: MachineId): Promise<MachineState | undefined>;
  removeMachine(vaultId: string, machineId: MachineId): Promise<void>;
}

export function openApplianceCatalogue({ db, clock }: { readonly db: Kysely<Tables>; readonly clock: Clock }): ApplianceCatalogue {
  const now = (): string => toTimestamp(clock.nowMs());
  const change = async (
    applianceId: ApplianceId,
    values: Updateable<Pick<ApplianceTable, "telemetry" | "version" | "inventory" | "inventory_at" | "protocol_version">>,
  ): Promise<void> => {
    await db
      .updateTable("appliances")
      .set({ ...values, last_seen_at: now() })
      .where("appliance_id", "=", applianceId)
      .execute();
  };
  return {
    add: (appliance) =>
      db.transaction().execute(async (transaction) => {
        await appliance.usingKey(transaction);
        await transaction
          .insertInto("appliances")
          .values({
            appliance_id: appliance.applianceId,
            vault_key: appliance.vaultKey.toLowerCase(),
            name: appliance.name,
            version: appliance.version,
            certificate_digest: appliance.certificateDigest,
            certificate_ends_at: appliance.certificateEndsAt ?? null,
            registered_at: now(),
            last_seen_at: now(),
            telemetry: null,
            inventory: null,
            inventory_at: null,
          })
          .execute();
      }),
    find: async (applianceId) => {
      const row = await db.selectFrom("appliances").select(listed).where("appliance_id", "=", applianceId).executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    inVault: async (vaultId) => {
      const query = db.selectFrom("appliances").select(listed).where("vault_key", "=", vaultId.toLowerCase());
      return (await query.orderBy("registered_at").execute()).map(fromRow);
    },
    others: async ({ applianceId, vaultKey }, countMax) => {
      const query = db.selectFrom("appliances").select(listed).where("vault_key", "=", vaultKey).where("appliance_id", "!=", applianceId);
      return (await query.orderBy("name").orderBy("appliance_id").limit(countMax).execute()).map(fromRow);
    },
    removeVault: (vaultId) => removeVault(db, vaultId.toLowerCase()),
    remove: (applianceId) => removeAppliance(db, applianceId),
    seen: (applianceId, protocolVersion) => change(applianceId, { protocol_version: protocolVersion }),
    offerCertificate: async (applianceId, digest) => {
      await db.updateTable("appliances").set({ next_certificate_digest: digest }).where("appliance_id", "=", applianceId).execute();
    },
    useCertificate: async (applianceId, { digest, endsAt }) => {
      await db
        .updateTable("appliances")
        .set({ certificate_digest: digest, certificate_ends_at: endsAt, next_certificate_digest: null })
        .where("appliance_id", "=", applianceId)
        .where("next_certificate_digest", "=", digest)
        .execute();
    },
    saveTelemetry: (applianceId, telemetry) =>
      change(applianceId, { telemetry: JSON.stringify(telemetry), version: telemetry.applianceVersion }),
    saveInventory: (applianceId, inventory) => change(applianceId, { inventory: JSON.stringify(inventory), inventory_at: now() }),
    inventory: async (applianceId) => {
      const row = await db.selectFrom("appliances").select("inventory").where("appliance_id", "=", applianceId).executeTakeFirst();
      return row?.inventory === null || row === undefined ? undefined : inventoryShape.parse(row.inventory);
    },
    ...machineStates({ db }),
  };
}

async function removeVault(db: Kysely<Tables>, vaultKey: string): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const ofVault = transaction.selectFrom("appliances").select("appliance_id").where("vault_key", "=", vaultKey);
    await transaction.deleteFrom("orders").where("appliance_id", "in", ofVault).execute();
    for (const table of ["appliances", "registration_keys", "machine_states", "points", "events", "vault_keys"] as const)
      await transaction.deleteFrom(table).where("vault_key", "=", vaultKey).execute();
  });
}

async function removeAppliance(db: Kysely<Tables>, applianceId: ApplianceId): Promise<void> {
  await db.transaction().execute(async (transaction) => {
    const gone = await transaction
      .deleteFrom("machine_states")
      .where("appliance_id", "=", applianceId)
      .returning(["vault_key", "machine_id"])
      .execute();
    for (const machine of gone)
      await transaction
        .deleteFrom("points")
        .where("vault_key", "=", machine.vault_key)
        .where("machine_id", "=", machine.machine_id)
        .execute();
    await transaction.deleteFrom("orders").where("appliance_id", "=", applianceId).execute();
    await transaction.deleteFrom("appliances").where("appliance_id", "=", applianceId).execute();
  });
}

function machineStates({ db }: { readonly db: Kysely<Tables> }): Pick<ApplianceCatalogue, "saveMachines" | "machine" | "removeMachine"> {
  return {
    saveMachines: async (vaultId, applianceId, machines) => {
      await db.transaction().execute(async (transaction) => {
        for (const report of machines) {
          const values = { appliance_id: applianceId, last_seen_at: report.lastSeenAt, report: JSON.stringify(report) };
          await transaction
            .insertInto("machine_states")
            .values({ vault_key: vaultId.toLowerCase(), machine_id: report.machineId, ...values })
            .onConflict((conflict) =>
              // An appliance that gave the machine away may still tell what it heard last.
              conflict
                .columns(["vault_key", "machine_id"])
                .doUpdateSet(values)
                .where("machine_states.last_seen_at", "<=", report.lastSeenAt),
            )
            .execute();
        }
      });
    },
    machine: async (vaultId, machineId) => {
      const query = db.selectFrom("machine_states").selectAll().where("vault_key", "=", vaultId.toLowerCase());
      const row = await query.where("machine_id", "=", machineId).executeTakeFirst();
      return row === undefined ? undefined : toMachineState(row);
    },
    removeMachine: async (vaultId, machineId) => {
      await db.deleteFrom("machine_states").where("vault_key", "=", vaultId.toLowerCase()).where("machine_id", "=", machineId).execute();
    },
  };
}

const listed = [
  "appliance_id",
  "vault_key",
  "name",
  "version",
  "certificate_digest",
  "next_certificate_digest",
  "certificate_ends_at",
  "protocol_version",
  "registered_at",
  "last_seen_at",
  "telemetry",
] as const;

function fromRow(row: Pick<Selectable<ApplianceTable>, (typeof listed)[number]>): Appliance {
  return {
    applianceId: parseApplianceId(row.appliance_id),
    vaultKey: row.vault_key,
    name: row.name,
    version: row.version,
    certificateDigest: row.certificate_digest,
    nextCertificateDigest: row.next_certificate_digest ?? undefined,
    certificateEndsAt: row.certificate_ends_at ?? undefined,
    protocolVersion: row.protocol_version ?? undefined,
    registeredAt: row.registered_at,
    lastSeenAt: row.last_seen_at,
    telemetry: row.telemetry === null ? undefined : telemetryShape.parse(row.telemetry),
  };
}

/** A row of machine_states. */
export function toMachineState(row: {
  readonly appliance_id: string;
  readonly last_seen_at: string;
  readonly report: unknown;
}): MachineState {
  const report = applianceProgressShape.shape.machines.element.parse(row.report);
  return { applianceId: parseApplianceId(row.appliance_id), lastSeenAt: row.last_seen_at, report };
}
