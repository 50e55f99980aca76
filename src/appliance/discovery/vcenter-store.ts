// The vCenters of this site and the machines that they showed last; the hub gets both as its inventory.

import { z } from "zod";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { discoveredMachineShape, vcenterSummaryShape, type DiscoveredMachine, type Inventory } from "../../contract/appliance-protocol.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import type { CredentialStore } from "../credentials/credential-store.ts";
import { Bell } from "../control/agent-orders.ts";
import { readJson, readNumber, readText, type Row, type StateDatabase } from "../state/database.ts";
import type { VcenterTrust } from "./vcenter-session.ts";

const trustShape = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("system") }),
  z.object({ kind: z.literal("authority"), caPem: z.string() }),
  z.object({ kind: z.literal("thumbprint"), sha256: z.string() }),
]);

export interface Vcenter {
  readonly vcenterId: string;
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly credentialId: string;
  readonly trust: VcenterTrust;
}

export type VcenterDraft = Omit<Vcenter, "vcenterId"> & { readonly vcenterId?: string };

export interface VcenterStore {
  /**
   * Adds, or replaces the one of the same id, or without an id the one of the same name (its id stays). Throws StateConflict when another
   * one has the name, or the host and port.
   */
  put(vcenter: VcenterDraft): Vcenter;
  /** What put would refuse. */
  requireFree(vcenter: VcenterDraft): void;
  /** With the machines that it shows. An unknown one is no fault. */
  remove(vcenterId: string): void;
  list(): readonly Vcenter[];
  summaries(): Inventory["vcenters"];
  machines(): readonly DiscoveredMachine[];
  findMachine(infrastructureId: string): DiscoveredMachine | undefined;
  /** Replaces what the vCenter showed before; nothing when it was removed meanwhile. */
  recordDiscovery(vcenterId: string, machines: readonly DiscoveredMachine[]): void;
  recordFault(vcenterId: string, fault: Fault): void;
  /** A machine that no vCenter knows. */
  putByHand(machine: DiscoveredMachine): void;
  /** Resolves when something that the hub should know has changed, or at the abort. */
  waitChange(signal: AbortSignal): Promise<void>;
  announceChange(): void;
}

export function createVcenterStore(parts: {
  readonly database: StateDatabase;
  readonly clock: Clock;
  readonly random: Random;
}): VcenterStore {
  const { database, clock, random } = parts;
  const bell = new Bell();
  const putMachine = (machine: DiscoveredMachine): void =>
    database.run(
      `INSERT INTO discovered (infrastructure_id, vcenter_id, body) VALUES (?, ?, ?)
       ON CONFLICT (infrastructure_id) DO UPDATE SET vcenter_id = excluded.vcenter_id, body = excluded.body`,
      machine.infrastructureId,
      machine.vcenterId,
      JSON.stringify(machine),
    );
  return {
    requireFree: (vcenter) => void idOf(database, vcenter),
    put: (vcenter) => {
      const { name, host, port, credentialId, trust } = vcenter;
      const vcenterId = idOf(database, vcenter) ?? random.uuid();
      database.run(
        `INSERT INTO vcenter (id, name, host, port, credential_id, trust, status) VALUES (?, ?, ?, ?, ?, ?, 'connected')
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, host = excluded.host, port = excluded.port, credential_id = excluded.credential_id,
           trust = excluded.trust, status = 'connected', fault = NULL`,
        vcenterId,
        name,
        host,
        port,
        credentialId,
        JSON.stringify(trust),
      );
      bell.ring("change");
      return { vcenterId, name, host, port, credentialId, trust };
    },
    remove: (vcenterId) => {
      database.transaction(() => {
        database.run("DELETE FROM discovered WHERE vcenter_id = ?", vcenterId);
        database.run("DELETE FROM vcenter WHERE id = ?", vcenterId);
      });
      bell.ring("change");
    },
    list: () => database.all("SELECT * FROM vcenter ORDER BY name").map(toVcenter),
    summaries: () => database.all("SELECT * FROM vcenter ORDER BY name").map(toSummary),
    machines: () =>
      database.all("SELECT body FROM discovered ORDER BY infrastructure_id").map((row) => readJson(discoveredMachineShape, row, "body")),
    findMachine: (infrastructureId) => {
      const row = database.one("SELECT body FROM discovered WHERE infrastructure_id = ?", infrastructureId);
      return row === undefined ? undefined : readJson(discoveredMachineShape, row, "body");
    },
    recordDiscovery: (vcenterId, machines) => {
      database.transaction(() => {
        if (database.one("SELECT 1 AS known FROM vcenter WHERE id = ?", vcenterId) === undefined) return;
        database.run("DELETE FROM discovered WHERE vcenter_id = ?", vcenterId);
        for (const machine of machines) putMachine(machine);
        database.run("UPDATE vcenter SET status = 'connected', fault = NULL, discovered_at_ms = ? WHERE id = ?", clock.nowMs(), vcenterId);
      });
      bell.ring("change");
    },
    recordFault: (vcenterId, fault) => {
      database.run("UPDATE vcenter SET status = 'failed', fault = ? WHERE id = ?", JSON.stringify(toReport(fault)), vcenterId);
      bell.ring("change");
    },
    putByHand: (machine) => {
      putMachine(machine);
      bell.ring("change");
    },
    waitChange: async (signal) => await bell.wait("change", signal),
    announceChange: () => bell.ring("change"),
  };
}

/** The id under which the vCenter is kept; undefined for a new one without an id. */
function idOf(database: StateDatabase, { vcenterId, name, host, port }: VcenterDraft): string | undefined {
  const named = database.one("SELECT id FROM vcenter WHERE name = ?", name);
  const id = vcenterId ?? (named === undefined ? undefined : readText(named, "id"));
  const others = database
    .all("SELECT * FROM vcenter WHERE name = ? OR (lower(host) = lower(?) AND port = ?)", name, host, port)
    .map(toVcenter)
    .filter((each) => each.vcenterId !== id);
  const [other] = others;
  if (other === undefined) return id;
  const isSameName = other.name === name;
  throw new Fault(
    "StateConflict",
    `could not keep the vCenter ${name}: ${isSameName ? "another has this name" : `${host} port ${port} is known`}`,
    {
      evidence: { presentId: other.vcenterId, presentName: other.name, presentHost: other.host, presentPort: other.port },
      causes: ["the vCenter was added before under another name", "the name was given to another vCenter"],
      action: isSameName ? "give another friendly name, or change the vCenter that has it" : "change or remove the one that is there",
      retry: "never",
    },
  );
}

/** What the hub is told of this site. */
export function inventoryOf(vcenters: VcenterStore, credentials: CredentialStore): Inventory {
  return {
    vcenters: vcenters.summaries(),
    runAsAccounts: credentials.list().map(({ credentialId, name, kind }) => ({
      accountId: credentialId,
      name,
      kind: kind === "vcenter" ? ("vcenter" as const) : ("linux" as const),
    })),
    machines: [...vcenters.machines()],
  };
}

function toVcenter(row: Row): Vcenter {
  return {
    vcenterId: readText(row, "id"),
    name: readText(row, "name"),
    host: readText(row, "host"),
    port: readNumber(row, "port"),
    credentialId: readText(row, "credential_id"),
    trust: readJson(trustShape, row, "trust"),
  };
}

function toSummary(row: Row): Inventory["vcenters"][number] {
  const { vcenterId, name, host, port, credentialId } = toVcenter(row);
  return vcenterSummaryShape.parse({
    vcenterId,
    name,
    host,
    port,
    runAsAccountId: credentialId,
    status: readText(row, "status"),
    ...(row["fault"] === null ? {} : { fault: readJson(faultReportShape, row, "fault") }),
    ...(row["discovered_at_ms"] === null ? {} : { lastDiscoveredAt: toTimestamp(readNumber(row, "discovered_at_ms")) }),
  });
}
