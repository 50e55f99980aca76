// The tables of the hub's database as types; migrations.ts makes them.

import type { ColumnType, Generated, JSONColumnType } from "kysely";
import type { FaultReport } from "../../contract/errors.ts";
import type { PeopleTables } from "./people-schema.ts";

/** RFC 3339 text in UTC on both ways. */
type Timestamp = ColumnType<string, string, string>;
type Json = JSONColumnType<Record<string, unknown>>;

export interface ResourceTable {
  /** The resource id in lower case: ARM compares ids without case. */
  key: string;
  id: string;
  type: string;
  name: string;
  parent_key: string;
  location: string | null;
  /** tags, sku, kind, identity. */
  envelope: Json;
  properties: Json;
  provisioning_state: string;
  etag: string;
  created_at: Timestamp;
  updated_at: Timestamp;
  /** Until then a removal under a condition is under way. */
  removal_until: Timestamp | null;
}

export interface OperationTable {
  operation_id: string;
  resource_id: string;
  action: string;
  status: "InProgress" | "Succeeded" | "Failed" | "Canceled";
  percent: number;
  fault: JSONColumnType<FaultReport> | null;
  result: Json | null;
  started_at: Timestamp;
  ended_at: Timestamp | null;
}

/** Rows are only added; the database refuses anything else. */
export interface AuditEntryTable {
  sequence: string;
  /** JSON, exactly as it was hashed. */
  entry: string;
  previous_hash: string;
  hash: string;
}

export interface SecretTable {
  owner_key: string;
  name: string;
  sealed: Uint8Array;
}

export interface PrincipalTable {
  principal_id: string;
  client_id: string;
  kind: "operator" | "vaultIdentity" | "servicePrincipal" | "person" | "localAccount";
  name: string;
  secret_hash: string | null;
  created_at: Timestamp;
}

export interface CredentialTable {
  credential_id: string;
  principal_id: string;
  kind: "secret" | "certificate";
  secret_hash: string | null;
  certificate_pem: string | null;
  sha1: string | null;
  sha256: string | null;
  expires_at: Timestamp;
  created_at: Timestamp;
}

export interface AssertionTable {
  digest: string;
  bound_to: string;
  expires_at: Timestamp;
}

export interface RegistrationKeyTable {
  key_id: string;
  vault_key: string;
  /** The one-time secret, sealed under the master key: the proof needs the secret itself, see docs/design/hub.md. */
  sealed: Uint8Array | null;
  expires_at: Timestamp;
  used_at: Timestamp | null;
  appliance_id: string | null;
}

export interface ApplianceTable {
  appliance_id: string;
  vault_key: string;
  name: string;
  version: string;
  certificate_digest: string;
  next_certificate_digest: string | null;
  certificate_ends_at: Timestamp | null;
  protocol_version: number | null;
  registered_at: Timestamp;
  last_seen_at: Timestamp;
  telemetry: Json | null;
  inventory: Json | null;
  inventory_at: Timestamp | null;
}

export interface OrderTable {
  order_id: string;
  sequence: Generated<string>;
  appliance_id: string;
  kind: string;
  body: Json;
  state: "queued" | "done";
  percent: number;
  progress_text: string;
  result: Json | null;
  created_at: Timestamp;
  given_at: Timestamp | null;
  ended_at: Timestamp | null;
  job_id: string | null;
}

export interface PointTable {
  vault_key: string;
  machine_id: string;
  point_id: string;
  time_ms: string;
  consistency: string;
  report: Json;
  verified: Json | null;
}

export interface MachineStateTable {
  vault_key: string;
  machine_id: string;
  appliance_id: string;
  last_seen_at: Timestamp;
  report: Json;
}

export interface EventTable {
  event_id: string;
  vault_key: string;
  at: Timestamp;
  dedup_key: string;
  code: string;
  kind: string;
  severity: string;
  description: string;
  affected_id: string;
  affected_name: string;
  fabric_id: string | null;
  component: string;
  fault: JSONColumnType<FaultReport> | null;
  job: Json | null;
}

export interface PrivateAddressTable {
  subnet_key: string;
  address: string;
  endpoint_key: string;
  member: string;
}

export interface SettingTable {
  name: string;
  value: string;
}

export interface VaultKeyTable {
  vault_key: string;
  generation: number;
  state: string;
}

export interface Tables extends PeopleTables {
  settings: SettingTable;
  resources: ResourceTable;
  operations: OperationTable;
  audit_entries: AuditEntryTable;
  secrets: SecretTable;
  principals: PrincipalTable;
  credentials: CredentialTable;
  assertions: AssertionTable;
  registration_keys: RegistrationKeyTable;
  appliances: ApplianceTable;
  orders: OrderTable;
  points: PointTable;
  events: EventTable;
  machine_states: MachineStateTable;
  private_addresses: PrivateAddressTable;
  vault_keys: VaultKeyTable;
}
