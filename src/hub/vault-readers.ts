// Vault readers by resource id, over the storage accounts' private endpoints: opened at the first question and kept.

import { readdir, rm } from "node:fs/promises";
import { isIPv4 } from "node:net";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { Fault } from "../contract/errors.ts";
import { openAzureBlobStore } from "../store/azure-blob-store.ts";
import type { Store } from "../store/store.ts";
import { openVaultReader } from "../vault/open-vault.ts";
import type { VaultReader } from "../vault/vault.ts";
import { vaultKeysTopic } from "./db/vault-keys.ts";
import type { VaultPlace } from "./resources/vault-access.ts";
import { readVaultKeys } from "./resources/vault-keys.ts";
import type { HubServices } from "./services.ts";

const blockThreadsMax = 4;
/** Of one vault, in the folder: 80 bytes each, 40 GiB at most. */
const indexEntriesMax = 512 << 20;

interface Opened {
  readonly reader: VaultReader;
  readonly store: Store;
}

export class VaultReaders implements AsyncDisposable {
  readonly #services: HubServices;
  readonly #indexFolder: string | undefined;
  readonly #open = new Map<string, Promise<Opened>>();
  readonly #subscription: Disposable;
  #tidied: Promise<void> | undefined;
  #renewing: Promise<void> = Promise.resolve();

  /** `indexFolder` is this process's alone: what vaults hold is kept there, each in a folder of its own; else all of it is in memory. */
  constructor(services: HubServices, { indexFolder }: { readonly indexFolder?: string } = {}) {
    this.#services = services;
    this.#indexFolder = indexFolder;
    this.#subscription = services.database.notifications.subscribe(vaultKeysTopic, () => {
      this.#renewing = this.#renewing.then(async () => await this.#renewKeys());
    });
  }

  async open(vaultResourceId: string): Promise<VaultReader> {
    const key = vaultResourceId.toLowerCase();
    // The vault's rights are checked at each call: a grant that was taken back must stop even a reader that is open.
    const place = await this.#services.vaults.open(vaultResourceId);
    let opened = this.#open.get(key);
    if (opened === undefined) {
      opened = this.#openReader(place);
      this.#open.set(key, opened);
      opened.catch(() => this.#open.delete(key)); // The caller below gets the failure; the next call tries again.
    }
    const { reader } = await opened;
    await reader.useKeys(place.key.keys);
    return reader;
  }

  async #openReader(place: VaultPlace): Promise<Opened> {
    if (this.#indexFolder === undefined) return await openReader(place, {});
    await (this.#tidied ??= this.#tidy(this.#indexFolder));
    return await openReader(place, { indexFolder: join(this.#indexFolder, place.vaultId), entriesMax: indexEntriesMax });
  }

  /** What vaults that are gone have left. */
  async #tidy(folder: string): Promise<void> {
    const names = await readdir(folder).catch((error: unknown) => {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
      throw error;
    });
    const found = await sql<{ id: string }>`select properties->>'watariVaultId' as id from resources
      where type = 'microsoft.recoveryservices/vaults'`.execute(this.#services.database.db);
    const known = new Set(found.rows.map(({ id }) => id));
    for (const name of names) if (!known.has(name)) await rm(join(folder, name), { recursive: true, force: true });
  }

  /** A reader that lasts for days must open what is sealed with a key that was made meanwhile. */
  async #renewKeys(): Promise<void> {
    const { database, secrets, log } = this.#services;
    for (const [vaultId, opening] of this.#open) {
      try {
        const { reader } = await opening;
        await reader.useKeys(await readVaultKeys({ db: database.db, secrets }, vaultId));
      } catch (error) {
        // The next notification or question tries again; until then an object under a newer key is refused by name of its generation.
        log.warn("keys of a vault not read anew", { vault: vaultId, reason: error instanceof Error ? error.message : String(error) });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#subscription[Symbol.dispose]();
    await this.#renewing;
    const opened = await Promise.allSettled(this.#open.values());
    this.#open.clear();
    for (const each of opened) {
      if (each.status === "rejected") continue;
      await each.value.reader[Symbol.asyncDispose]();
      await each.value.store[Symbol.asyncDispose]();
    }
  }
}

/** Dials the account's private endpoint, wherever its name leads. */
export function openVaultStore({ storage }: Pick<VaultPlace, "storage">): Store {
  if (!isIPv4(storage.address))
    throw new Fault("StateConflict", "the storage account's private endpoint has no IPv4 address", {
      evidence: { address: storage.address },
    });
  return openAzureBlobStore({
    accountUrl: storage.accountUrl,
    container: storage.container,
    credential: { kind: "sharedKey", accountName: storage.accountName, accountKey: storage.accountKey },
    connection: {
      ca: storage.caPem,
      // The hub knows where its own endpoint listens, so no resolver can lead it elsewhere.
      lookup: (_name, options, callback) =>
        options.all === true ? callback(null, [{ address: storage.address, family: 4 }]) : callback(null, storage.address, 4),
    },
  });
}

async function openReader(place: VaultPlace, index: { readonly indexFolder?: string; readonly entriesMax?: number }): Promise<Opened> {
  const store = openVaultStore(place);
  const { vaultId, key } = place;
  const blockThreads = Math.min(blockThreadsMax, availableParallelism());
  return { reader: await openVaultReader({ store, vaultId, key: key.keys, blockThreads, ...index }), store };
}
