// Backs a hub up into one file and restores it elsewhere: the database, the master key under a passphrase, and the blobs when asked.

import { scrypt } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { sql, type Kysely } from "kysely";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { openDatabase, openPlainConnection, type DatabaseAddress } from "../db/database.ts";
import { newestSchema } from "../db/migrations.ts";
import { createSealer } from "../db/secrets.ts";
import type { Tables } from "../db/tables.ts";
import { withCluster, withDatabase } from "../command-database.ts";
import type { HubConfig } from "../hub-config.ts";
import { readArchive, writeArchive, type Manifest } from "./archive.ts";
import { dumpDatabase, restoreDatabase } from "./database-tools.ts";

export interface BackupEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface BackupWish {
  readonly config: HubConfig;
  /** The backup's file. */
  readonly path: string;
  /** Absent: the master key is not in the backup and has to be kept apart. */
  readonly passphrase?: string;
}

const sealLabel = "watari#backup-master-key";
const saltBytes = 16;
const passphraseCharactersMin = 12;
/** Numbers of a restored hub lie above all that the hub before it can ever have given: 2^40 commands a restore. */
const fencesPerRestore = 2 ** 40;
const dumpName = "database.dump";
const keyName = "master-key.sealed";

/** The hub may run and be busy. Refuses to write over a file. */
export async function backUpHub(
  wish: BackupWish & { readonly blobs: "included" | "absent" },
  environment: BackupEnvironment,
): Promise<Manifest> {
  const { config, passphrase, blobs } = wish;
  const path = resolve(wish.path);
  await refuseFile(path);
  const folder = await mkdtemp(`${path}.parts-`);
  await using cleaning = new AsyncDisposableStack();
  cleaning.defer(async () => await rm(folder, { recursive: true, force: true }));
  const names = [dumpName];
  if (passphrase !== undefined) {
    const key = await readFile(join(config.stateDir, "master.key"));
    await writeFile(join(folder, keyName), await sealKey(key, passphrase, environment.random), { mode: 0o600 });
    names.push(keyName);
  }
  const schema = await withDatabase(config, environment.log, async (address) => {
    const present = await schemaOf(address, environment);
    await dumpDatabase(address, join(folder, dumpName), caOf(config));
    return present;
  });
  // After the dump: every blob that the database knows is there, and the newer ones do no harm.
  const blobFolder = blobs === "included" ? { blobFolder: config.blobFolder ?? join(config.stateDir, "blob") } : {};
  const createdAt = toTimestamp(environment.clock.nowMs());
  const masterKey = passphrase === undefined ? "absent" : "sealed";
  return await writeArchive(path, { folder, names, ...blobFolder }, { createdAt, schema, domain: config.domain, masterKey, blobs });
}

/** Into an empty state folder (configuration files may lie in it) and an empty database. What failed leaves both as they were. */
export async function restoreHub(wish: BackupWish, environment: BackupEnvironment): Promise<Manifest> {
  const { config, passphrase } = wish;
  await refuseUsedFolder(config);
  const blobFolder = config.blobFolder ?? join(config.stateDir, "blob");
  await mkdir(config.stateDir, { recursive: true });
  await mkdir(dirname(blobFolder), { recursive: true });
  const folder = await mkdtemp(join(dirname(blobFolder), ".watari-restore-")); // Beside its place, so that a rename moves it there.
  await using cleaning = new AsyncDisposableStack();
  cleaning.defer(async () => await rm(folder, { recursive: true, force: true }));
  const manifest = await readArchive(resolve(wish.path), folder);
  if (manifest.schema > newestSchema)
    throw new Fault("StateConflict", "could not restore the backup: a newer version of the hub has made it", {
      evidence: { schema: manifest.schema, known: newestSchema },
      action: "restore with that version or a newer one",
      retry: "never",
    });
  if (manifest.domain !== config.domain)
    throw new Fault("InputInvalid", "could not restore the backup: it is of a hub with another domain", {
      evidence: { domain: manifest.domain, configured: config.domain },
      action: "write the backup's domain into the configuration: appliances know the hub by its names",
    });
  const key =
    manifest.masterKey === "sealed" ? await openKey(await readFile(join(folder, keyName)), passphrase, environment.random) : undefined;
  try {
    await withCluster(config, environment.log, async (address) => {
      await refuseUsedDatabase(address, environment);
      await restoreDatabase(address, join(folder, dumpName), caOf(config));
      await takeOver(address, environment);
    });
    if (manifest.blobs === "included") await rename(join(folder, "blob"), blobFolder).catch(ignoreNoBlobs);
    if (key !== undefined) await writeFileAtomic(join(config.stateDir, "master.key"), key, { mode: 0o600 });
  } catch (error) {
    if (config.databaseUrl === undefined) await rm(join(config.stateDir, "pg"), { recursive: true, force: true });
    throw error;
  }
  return manifest;
}

/** An account without a blob has no folder in the archive. */
function ignoreNoBlobs(error: unknown): void {
  if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
}

/** The restored hub is the only one: jobs are free at once, and targets and appliances refuse what the hub before it still says. */
async function takeOver(address: DatabaseAddress, { log, clock }: BackupEnvironment): Promise<void> {
  await using database = await openDatabase({ address, log, clock, connectionsMax: 2 });
  await database.db.transaction().execute(async (db) => {
    await sql`select setval('fence_numbers', last_value + ${fencesPerRestore}) from fence_numbers`.execute(db);
    await sql`update jobs set owner = null, lease_until = null where ended_at is null`.execute(db);
    await sql`delete from hubs`.execute(db);
  });
}

async function schemaOf(address: DatabaseAddress, { log }: BackupEnvironment): Promise<number> {
  return await withPlainConnection(address, log, async (db) => {
    const found = await sql<{ number: number }>`select max(number) as number from schema_migrations`.execute(db);
    return found.rows[0]?.number ?? 0;
  });
}

async function refuseUsedDatabase(address: DatabaseAddress, { log }: BackupEnvironment): Promise<void> {
  const count = await withPlainConnection(address, log, async (db) => {
    const found = await sql<{ count: string }>`select count(*) from information_schema.tables where table_schema = 'public'`.execute(db);
    return Number(found.rows[0]?.count);
  });
  if (count > 0)
    throw new Fault("StateConflict", "could not restore the backup: the database is not empty", {
      evidence: { tables: count },
      action: "name an empty database",
      retry: "never",
    });
}

async function withPlainConnection<T>(address: DatabaseAddress, log: Log, task: (db: Kysely<Tables>) => Promise<T>): Promise<T> {
  await using connection = openPlainConnection(address, log);
  return await task(connection.db);
}

function caOf({ databaseCaFile }: HubConfig): { readonly caFile?: string } {
  return databaseCaFile === undefined ? {} : { caFile: databaseCaFile };
}

async function refuseFile(path: string): Promise<void> {
  const names = await readdir(dirname(path));
  if (names.some((name) => join(dirname(path), name) === path))
    throw new Fault("StateConflict", "could not write the backup: there is a file of that name", {
      evidence: { path },
      action: "choose another name or remove the file",
      retry: "never",
    });
}

async function refuseUsedFolder({ stateDir }: HubConfig): Promise<void> {
  const names = await readdir(stateDir).catch(() => [] as string[]); // No folder is an empty one.
  const used = names.filter((name) => !/\.ya?ml$/.test(name));
  if (used.length > 0)
    throw new Fault("StateConflict", "could not restore the backup: the state folder is not empty", {
      evidence: { stateDir, holds: used.slice(0, 10) },
      action: "name an empty state folder in the configuration",
      retry: "never",
    });
}

const stretch = promisify<string, Uint8Array, number, object, Buffer>(scrypt);
const stretchCost = { N: 2 ** 17, r: 8, p: 1, maxmem: 256 << 20 };

async function sealKey(key: Uint8Array, passphrase: string, random: Random): Promise<Uint8Array> {
  if (passphrase.length < passphraseCharactersMin)
    throw new Fault("InputInvalid", "could not seal the master key: the passphrase is too short", {
      evidence: { charactersMin: passphraseCharactersMin },
    });
  const salt = random.bytes(saltBytes);
  const sealer = createSealer(await stretch(passphrase, salt, 32, stretchCost), random);
  return Buffer.concat([salt, sealer.seal(sealLabel, key)]);
}

async function openKey(sealed: Uint8Array, passphrase: string | undefined, random: Random): Promise<Uint8Array> {
  const wrong = (cause?: unknown): Fault =>
    new Fault("InputInvalid", "could not open the backup's master key: the passphrase is not the right one", {
      cause,
      action: "name the file with the passphrase that the backup was made with",
    });
  if (passphrase === undefined) throw wrong();
  try {
    return createSealer(await stretch(passphrase, sealed.subarray(0, saltBytes), 32, stretchCost), random).open(
      sealLabel,
      sealed.subarray(saltBytes),
    );
  } catch (error) {
    throw wrong(error);
  }
}

/** Also for the command: the file's text without its line end. */
export async function readPassphrase(path: string): Promise<string> {
  return (await readFile(path, "utf8")).replace(/\r?\n$/, "");
}
