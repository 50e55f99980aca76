// A hub without network faces for tests: real database, router and jobs; a simulated target; a vault in a folder.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { systemClock, type Clock } from "../../../base/clock.ts";
import { silentLog, type Log } from "../../../base/log.ts";
import { systemRandom } from "../../../base/random.ts";
import { z } from "zod";
import { Fault } from "../../../contract/errors.ts";
import { parseAreaId, parseVaultId } from "../../../contract/ids.ts";
import { openDirectoryStore } from "../../../store/directory-store.ts";
import type { Store } from "../../../store/store.ts";
import { openVault, openVaultReader } from "../../../vault/open-vault.ts";
import type { Vault, VaultReader } from "../../../vault/vault.ts";
import type { ArmAnswer } from "../../api/arm-call.ts";
import { createArmRouter } from "../../api/arm-router.ts";
import { parseResourceId } from "../../api/resource-id.ts";
import { Consoles } from "../../consoles/consoles.ts";
import { createSignedReads } from "../../api/signed-reads.ts";
import { createTypeTable, defineResource } from "../../api/resource-type.ts";
import { openApplianceCatalogue } from "../../db/appliances.ts";
import { auditHeadFile, openAuditTrail, type AuditTrail } from "../../db/audit.ts";
import type { Database } from "../../db/database.ts";
import { openOperationStore } from "../../db/operations.ts";
import { openOrderQueue } from "../../db/orders.ts";
import { openEventStore } from "../../db/events.ts";
import { openPointCatalogue } from "../../db/points.ts";
import { openResourceStore } from "../../db/resources.ts";
import { createSealer, openSecretStore } from "../../db/secrets.ts";
import { keyNameOf } from "../../db/vault-keys.ts";
import { openAuthority } from "../../pki/authority.ts";
import { createDocumentSigner, type DocumentSigner } from "../../pki/document-signer.ts";
import { ManagedDisks } from "../../compute/managed-disks.ts";
import { noTraces } from "../../telemetry/traces.ts";
import type { ResourceRemover } from "../../resources/group-removal.ts";
import { groupTypes } from "../../resources/groups.ts";
import { readVaultKeys } from "../../resources/vault-keys.ts";
import type { JobOrder } from "../../jobs/job-engine.ts";
import { createRemover } from "../../resources/resource-remover.ts";
import type { HubServices } from "../../services.ts";
import { registerReplication } from "../register.ts";
import type { HostStart, ImageFolder, ReplicationLimits } from "../world.ts";
import { DurableSimTarget } from "./durable-sim-target.ts";
import { Journal } from "./journal.ts";

export const simGroup = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg";
export const simVault = `${simGroup}/providers/Microsoft.RecoveryServices/vaults/v1`;
export const simVaultSecret = { vaultId: parseVaultId("00000000-0000-0000-0000-0000000000f1"), key: new Uint8Array(32).fill(7) };

/** Something that groups can hold and that needs nothing of the world. */
const simThing = defineResource({ type: "Microsoft.Watari/simThings", within: "resourceGroup", properties: z.looseObject({}) });

export interface SimHub extends AsyncDisposable {
  readonly services: HubServices;
  readonly target: DurableSimTarget;
  /** Where disks for upgrades of operating systems are put. */
  readonly upgradeFolder: string;
  readonly journal: Journal;
  readonly jobKinds: readonly string[];
  /** Certificate of the hub's authority. */
  readonly caPem: string;
  call(method: string, path: string, body?: unknown): Promise<ArmAnswer>;
  openReader(): Promise<VaultReader>;
  /** Begins a job as the hub itself does. */
  submit(order: JobOrder): Promise<string>;
}

export interface SimHubOptions {
  readonly database: Database;
  /** Holds the vault, the target's machines and the journal. */
  readonly folder: string;
  readonly limits: Partial<ReplicationLimits>;
  readonly jobs: {
    readonly leaseMs: number;
    readonly pollMs: number;
    readonly jobsMax?: number;
    readonly onMoment?: (moment: string) => void;
  };
  /** Called before and after everything that this hub asks of the world outside its database. */
  readonly onCall?: (call: string) => void;
  readonly hasStorageRole?: () => boolean;
  /** As if the machines' host had just been started; absent: nobody asks. */
  readonly host?: HostStart;
  /** Absent: no recovery point can be exported. */
  readonly images?: ImageFolder;
  readonly log?: Log;
  /** The system's own unless told. */
  readonly clock?: Clock;
}

function openAudit(options: SimHubOptions): ReturnType<typeof openAuditTrail> {
  return openAuditTrail({
    address: options.database.address,
    headFile: auditHeadFile(options.folder),
    clock: systemClock,
    random: systemRandom,
    log: options.log ?? silentLog,
  });
}

export async function openSimHub(options: SimHubOptions): Promise<SimHub> {
  const { database, folder, onCall } = options;
  await mkdir(folder, { recursive: true });
  const journal = new Journal(folder);
  const log = options.log ?? silentLog;
  const audit = openAudit(options);
  let types = createTypeTable([]);
  const remover = createRemover(() => ({ types, ...services, audit }), { log, random: systemRandom });
  const { signer, caPem } = await openSigner(options);
  const services: HubServices = { ...createServices(options, audit, remover), signer };
  const upgradeFolder = join(folder, "upgrades");
  const target = new DurableSimTarget({ folder, clock: systemClock, journal, ...(onCall === undefined ? {} : { onCall }) });
  const { openReader, closeReader } = createReader(options, services);
  const { openWriter, closeWriter } = createWriter(options, services);
  const opened = { target, openReader, openWriter, upgradeFolder, ...partsOf(options) };
  const close = async (): Promise<void> => {
    await target[Symbol.asyncDispose]();
    await closeReader();
    await closeWriter();
  };
  const open = registerReplication({
    openWorld: async () => ({ ...opened, [Symbol.asyncDispose]: close }),
    // What is asked of the target is counted by the kill trial, so nothing may ask by the clock.
    limits: { pollMs: 100, watchMs: 3_600_000, ...options.limits },
    health: { intervalMs: 3_600_000 },
    jobs: options.jobs,
  });
  const extension = await open(services, { domain: "watari.test" });
  await saveParents(services);
  await extension.start();
  const { db } = database;
  const { submit } = extension;
  types = createTypeTable([...extension.types, simThing, ...groupTypes({ db, resources: services.resources, submit })]);
  const router = createArmRouter({
    types,
    resources: services.resources,
    operations: services.operations,
    audit,
    authorize: async () => undefined,
  });
  const call = async (method: string, path: string, body?: unknown): Promise<ArmAnswer> =>
    await router({
      method,
      path,
      query: { "api-version": "2025-08-01" },
      ifMatch: undefined,
      ifNoneMatch: undefined,
      body,
      caller: { principalId: "test", name: "test", groupIds: [] },
      correlationId: systemRandom.uuid(),
      origin: "https://management.test",
      log: silentLog,
      signal: new AbortController().signal,
    });
  return {
    services,
    target,
    upgradeFolder,
    journal,
    jobKinds: extension.jobKinds?.() ?? [],
    caPem,
    call,
    openReader,
    submit: async (order) => (await submit?.(order, db)) ?? "",
    [Symbol.asyncDispose]: async () => {
      await extension[Symbol.asyncDispose]();
      await audit[Symbol.asyncDispose]();
    },
  };
}

async function openSigner({
  folder,
  clock = systemClock,
}: SimHubOptions): Promise<{ readonly signer: DocumentSigner; readonly caPem: string }> {
  const authority = await openAuthority({ folder: join(folder, "pki"), clock, random: systemRandom });
  return { signer: createDocumentSigner({ authority, clock }), caPem: authority.caPem };
}

/** The one reader of the vault; its keys are those of the question, as the hub's own readers have it. */
function createReader(
  { folder, database }: SimHubOptions,
  { secrets }: HubServices,
): { readonly openReader: () => Promise<VaultReader>; readonly closeReader: () => Promise<void> } {
  let opened: { readonly store: Store; readonly reader: VaultReader } | undefined;
  return {
    openReader: async () => {
      if (opened === undefined) {
        const store = await openDirectoryStore(vaultFolder(folder));
        opened = { store, reader: await openVaultReader({ store, ...simVaultSecret }) };
      }
      await opened.reader.useKeys(await readVaultKeys({ db: database.db, secrets }, simVault));
      return opened.reader;
    },
    closeReader: async () => {
      await opened?.reader[Symbol.asyncDispose]();
      await opened?.store[Symbol.asyncDispose]();
    },
  };
}

/** What this hub's host writes itself; the id of its area is not the site's. */
function createWriter(
  { folder, database }: SimHubOptions,
  { secrets, clock, random }: HubServices,
): { readonly openWriter: () => Promise<Vault>; readonly closeWriter: () => Promise<void> } {
  let opened: { readonly store: Store; readonly vault: Vault } | undefined;
  return {
    openWriter: async () => {
      if (opened === undefined) {
        const store = await openDirectoryStore(vaultFolder(folder));
        const areaId = parseAreaId("00000000-0000-0000-0000-0000000000a1");
        opened = { store, vault: await openVault({ store, ...simVaultSecret, areaId, clock, random, log: silentLog }) };
      }
      await opened.vault.useKeys(await readVaultKeys({ db: database.db, secrets }, simVault));
      return opened.vault;
    },
    closeWriter: async () => {
      await opened?.vault[Symbol.asyncDispose]();
      await opened?.store[Symbol.asyncDispose]();
    },
  };
}

/** Of the world, where the options have them. */
function partsOf({ images, host }: SimHubOptions): Pick<SimHubOptions, "images" | "host"> {
  return { ...(images === undefined ? {} : { images }), ...(host === undefined ? {} : { host }) };
}

export function vaultFolder(folder: string): string {
  return join(folder, "vault");
}

function createServices(options: SimHubOptions, audit: AuditTrail, remover: ResourceRemover): Omit<HubServices, "signer"> {
  const { database, folder, onCall, hasStorageRole } = options;
  const { db, notifications } = database;
  const clock = options.clock ?? systemClock;
  const random = systemRandom;
  const secrets = openSecretStore({ db, sealer: createSealer(new Uint8Array(32), random) });
  const orders = openOrderQueue({ db, notifications, clock });
  return {
    clock,
    random,
    log: options.log ?? silentLog,
    stateDir: folder,
    database,
    traces: noTraces,
    resources: openResourceStore({ db, clock, random }),
    operations: openOperationStore({ db, clock, random }),
    audit,
    secrets,
    managedDisks: new ManagedDisks(join(folder, "managed-disks")),
    remover,
    signedReads: createSignedReads({ secrets, clock, random }),
    consoles: new Consoles({ audit, clock, random, log: options.log ?? silentLog }),
    orders: {
      ...orders,
      enqueue: async (applianceId, order, from) => {
        onCall?.(`before order ${order.kind}`);
        await orders.enqueue(applianceId, order, from);
        onCall?.(`after order ${order.kind}`);
      },
    },
    appliances: openApplianceCatalogue({ db, clock }),
    points: openPointCatalogue({ db }),
    events: openEventStore({ db, clock, random }),
    vaults: {
      open: async (resourceId) => {
        if (hasStorageRole?.() === false)
          throw new Fault("StorageRoleMissing", "could not open the vault: its identity may not write to its storage account");
        const storage = { accountName: "a", accountUrl: "", accountKey: "", container: "c", address: "", port: 0, caPem: "" };
        return {
          vaultId: simVaultSecret.vaultId,
          resourceId,
          key: { keyId: "k", keys: await readVaultKeys({ db, secrets }, simVault) },
          storage,
        };
      },
    },
  };
}

async function saveParents(services: HubServices): Promise<void> {
  for (const id of [simGroup.replace(/\/resourceGroups\/.*/, ""), simGroup, simVault])
    await services.resources.save({ id: parseResourceId(id), properties: {} });
  await services.secrets.getOrCreate(simVault, keyNameOf(1), () => simVaultSecret.key);
}
