// Vault readers by resource id, over the storage accounts' private endpoints: opened at the first question and kept.

import { isIPv4 } from "node:net";
import { availableParallelism } from "node:os";
import { Fault } from "../contract/errors.ts";
import { openAzureBlobStore } from "../store/azure-blob-store.ts";
import type { Store } from "../store/store.ts";
import { openVaultReader } from "../vault/open-vault.ts";
import type { VaultReader } from "../vault/vault.ts";
import type { VaultPlace } from "./resources/vault-access.ts";
import type { HubServices } from "./services.ts";

const blockThreadsMax = 4;

export class VaultReaders implements AsyncDisposable {
  readonly #services: HubServices;
  readonly #open = new Map<string, Promise<{ readonly reader: VaultReader; readonly store: Store }>>();

  constructor(services: HubServices) {
    this.#services = services;
  }

  async open(vaultResourceId: string): Promise<VaultReader> {
    const key = vaultResourceId.toLowerCase();
    // The vault's rights are checked at each call: a grant that was taken back must stop even a reader that is open.
    const place = await this.#services.vaults.open(vaultResourceId);
    let opened = this.#open.get(key);
    if (opened === undefined) {
      opened = openReader(place);
      this.#open.set(key, opened);
      opened.catch(() => this.#open.delete(key)); // The caller below gets the failure; the next call tries again.
    }
    return (await opened).reader;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opened = await Promise.allSettled(this.#open.values());
    this.#open.clear();
    for (const each of opened) {
      if (each.status === "rejected") continue;
      await each.value.reader[Symbol.asyncDispose]();
      await each.value.store[Symbol.asyncDispose]();
    }
  }
}

async function openReader({ vaultId, key, storage }: VaultPlace): Promise<{ readonly reader: VaultReader; readonly store: Store }> {
  if (!isIPv4(storage.address))
    throw new Fault("StateConflict", "the storage account's private endpoint has no IPv4 address", {
      evidence: { address: storage.address },
    });
  const store = openAzureBlobStore({
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
  const blockThreads = Math.min(blockThreadsMax, availableParallelism());
  return { reader: await openVaultReader({ store, vaultId, key: key.bytes, blockThreads }), store };
}
