// Opens the database, private or outside, and every store over it.

import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { openApplianceCatalogue, type ApplianceCatalogue } from "./db/appliances.ts";
import { auditHeadFile, openAuditTrail, type AuditTrail } from "./db/audit.ts";
import { keepCluster } from "./db/cluster-keeper.ts";
import { openCredentials, type Credentials } from "./db/credentials.ts";
import { openDatabase, type Database, type DatabaseAddress } from "./db/database.ts";
import { openEventStore, type EventStore } from "./db/events.ts";
import { openGroups, type Groups } from "./db/groups.ts";
import { joinHubs } from "./db/hub-registry.ts";
import { openLocalAccounts, type LocalAccounts } from "./db/local-account.ts";
import { openOperationStore, type OperationStore } from "./db/operations.ts";
import { openOrderQueue, type OrderQueue } from "./db/orders.ts";
import { openPeople, type People } from "./db/people.ts";
import { openPointCatalogue, type PointCatalogue } from "./db/points.ts";
import { openPrincipals, type Principals } from "./db/principals.ts";
import { openPrivateAddresses, type PrivateAddresses } from "./db/private-addresses.ts";
import { startPrivateCluster } from "./db/private-cluster.ts";
import { openRegistrationKeys, type RegistrationKeys } from "./db/registration-keys.ts";
import { openResourceStore, type ResourceStore } from "./db/resources.ts";
import { openRoleAssignments, type RoleAssignments } from "./db/role-assignments.ts";
import { openSealer } from "./db/master-key-check.ts";
import { openSecretStore, type SecretStore } from "./db/secrets.ts";
import { readServerAddress } from "./db/server-address.ts";
import { openSessions, type Sessions } from "./db/sessions.ts";
import { openSignIns, type SignIns } from "./db/sign-ins.ts";
import { settingOf } from "./db/settings.ts";
import type { HubConfig } from "./hub-config.ts";

export interface HubStores extends AsyncDisposable {
  readonly database: Database;
  readonly resources: ResourceStore;
  readonly operations: OperationStore;
  readonly audit: AuditTrail;
  readonly secrets: SecretStore;
  readonly principals: Principals;
  readonly credentials: Credentials;
  readonly people: People;
  readonly groups: Groups;
  readonly sessions: Sessions;
  readonly signIns: SignIns;
  readonly localAccounts: LocalAccounts;
  readonly assignments: RoleAssignments;
  readonly addresses: PrivateAddresses;
  readonly registrationKeys: RegistrationKeys;
  readonly appliances: ApplianceCatalogue;
  readonly orders: OrderQueue;
  readonly points: PointCatalogue;
  readonly events: EventStore;
  readonly tenantId: string;
  readonly subscriptionId: string;
}

export interface StoreEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** What becomes of the private cluster when this program is killed; it lives on unless told. */
  readonly databaseLives?: "on its own" | "as this program";
}

export async function openStores(config: HubConfig, environment: StoreEnvironment): Promise<HubStores> {
  const { clock, random, log } = environment;
  await using opening = new AsyncDisposableStack();
  const address = await openAddress(config, environment, opening);
  const database = opening.use(await openDatabase({ address, log, clock, connectionsMax: config.databaseConnectionsMax }));
  const { db, notifications } = database;
  opening.use(await joinHubs({ db, hubId: random.uuid(), clock, log }));
  const sealer = await openSealer({ db, path: join(config.stateDir, "master.key"), random });
  const subscriptionId = await settingOf(db, "subscriptionId", () => random.uuid());
  const stores = {
    database,
    resources: openResourceStore({ db, clock, random }),
    operations: openOperationStore({ db, clock, random }),
    audit: opening.use(openAuditTrail({ address, headFile: auditHeadFile(config.stateDir), clock, random, log })),
    secrets: openSecretStore({ db, sealer }),
    principals: openPrincipals({ db, clock }),
    credentials: openCredentials({ db, clock }),
    people: openPeople({ db, clock, random }),
    groups: openGroups({ db, clock }),
    sessions: openSessions({ db, clock, random, sealer }),
    signIns: openSignIns({ db, clock, random, sealer }),
    localAccounts: openLocalAccounts({ db, clock, random, subscriptionId }),
    assignments: openRoleAssignments({ db }),
    addresses: openPrivateAddresses({ db }),
    registrationKeys: openRegistrationKeys({ db, clock, sealer }),
    appliances: openApplianceCatalogue({ db, clock }),
    orders: openOrderQueue({ db, notifications, clock }),
    points: openPointCatalogue({ db }),
    events: openEventStore({ db, clock, random }),
    tenantId: await settingOf(db, "tenantId", () => random.uuid()),
    subscriptionId,
  };
  const closing = opening.move();
  return { ...stores, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

async function openAddress(
  config: HubConfig,
  { clock, log, databaseLives: lives }: StoreEnvironment,
  opening: AsyncDisposableStack,
): Promise<DatabaseAddress> {
  if (config.databaseUrl !== undefined) return await readServerAddress({ ...config, url: config.databaseUrl });
  const cluster = opening.use(await startPrivateCluster({ stateDir: config.stateDir, log, ...(lives === undefined ? {} : { lives }) }));
  opening.use(keepCluster({ cluster, clock, log }));
  const { socketFolder, user, database } = cluster;
  return { kind: "socket", socketFolder, user, database };
}
