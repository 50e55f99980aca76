// What the hub's parts give to each other: the services of a running hub, and the shape of a part that adds resource types to it.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { AlertsConfig } from "./alerts/alerts-config.ts";
import type { ResourceType } from "./api/resource-type.ts";
import type { SignedReads } from "./api/signed-reads.ts";
import type { ApplianceCatalogue } from "./db/appliances.ts";
import type { Consoles } from "./consoles/consoles.ts";
import type { AuditTrail } from "./db/audit.ts";
import type { Database } from "./db/database.ts";
import type { EventStore } from "./db/events.ts";
import type { OperationStore } from "./db/operations.ts";
import type { OrderQueue } from "./db/orders.ts";
import type { PointCatalogue } from "./db/points.ts";
import type { ResourceStore } from "./db/resources.ts";
import type { SecretStore } from "./db/secrets.ts";
import type { Traces } from "./telemetry/traces.ts";
import type { JobOrder } from "./jobs/job-engine.ts";
import type { Queryable } from "./jobs/job.ts";
import type { DocumentSigner } from "./pki/document-signer.ts";
import type { ResourceRemover } from "./resources/group-removal.ts";
import type { ManagedDisks } from "./compute/managed-disks.ts";
import type { VaultAccess } from "./resources/vault-access.ts";

export interface HubServices {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly stateDir: string;
  readonly database: Database;
  readonly resources: ResourceStore;
  readonly operations: OperationStore;
  readonly audit: AuditTrail;
  readonly secrets: SecretStore;
  /** Orders to appliances: durable, carried out once. */
  readonly orders: OrderQueue;
  /** What appliances have registered, seen and said. */
  readonly appliances: ApplianceCatalogue;
  /** Recovery points as appliances reported them. */
  readonly points: PointCatalogue;
  /** What happened in each vault, each occurrence once. */
  readonly events: EventStore;
  /** The vault key and the storage account behind a vault, for opening its packs. */
  readonly vaults: VaultAccess;
  /** Spans of what is done; does nothing unless the configuration says so. */
  readonly traces: Traces;
  /** Addresses of texts that are read without a token. */
  readonly signedReads: SignedReads;
  /** Lines to landed machines' consoles. */
  readonly consoles: Consoles;
  /** Signs documents that are checked without this hub. */
  readonly signer: DocumentSigner;
  /** Contents of disks that clients upload. */
  readonly managedDisks: ManagedDisks;
  /** Deletes a resource as a call would; for jobs that remove what holds others. */
  readonly remover: ResourceRemover;
}

/** A part of the hub that adds resource types and work of its own. */
export interface HubExtension extends AsyncDisposable {
  readonly name: string;
  readonly types: readonly ResourceType[];
  /** Kinds of the jobs that it runs, once started. */
  readonly jobKinds?: () => readonly string[];
  /** Begins one of them, once started. */
  readonly submit?: (order: JobOrder, db: Queryable) => Promise<string>;
  /** Called once, after every type is known and before the first request. Takes up what a killed hub left. */
  start(): Promise<void>;
}

/** Of the configuration; `landing` is passed through. */
export interface ExtensionOptions {
  readonly landing?: unknown;
  readonly domain: string;
  readonly alerts?: AlertsConfig | undefined;
}

export type OpenExtension = (services: HubServices, options: ExtensionOptions) => Promise<HubExtension>;
