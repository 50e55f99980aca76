// Writers of vaults by resource id, for the points of landed machines: opened at the first question and kept, in an area of this host's own.

import { join } from "node:path";
import { parseAreaId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import { openVault } from "../vault/open-vault.ts";
import type { Vault } from "../vault/vault.ts";
import type { VaultPlace } from "./resources/vault-access.ts";
import type { HubServices } from "./services.ts";
import { openVaultStore } from "./vault-readers.ts";

interface Opened {
  readonly vault: Vault;
  readonly store: Store;
}

/** Of one vault; 80 bytes each. */
const indexEntriesMax = 512 << 20;

export class VaultWriters implements AsyncDisposable {
  readonly #services: HubServices;
  readonly #options: { readonly indexFolder: string; readonly area: string };
  readonly #open = new Map<string, Promise<Opened>>();

  /** `area` is what this host alone writes: the id of its landing folder, which one process at a time has. */
  constructor(services: HubServices, options: { readonly indexFolder: string; readonly area: string }) {
    this.#services = services;
    this.#options = options;
  }

  /** The vault's rights and keys are those of the moment of the call. */
  async open(vaultResourceId: string): Promise<Vault> {
    const key = vaultResourceId.toLowerCase();
    const place = await this.#services.vaults.open(vaultResourceId);
    let opened = this.#open.get(key);
    if (opened === undefined) {
      opened = this.#openVault(place);
      this.#open.set(key, opened);
      opened.catch(() => this.#open.delete(key)); // The caller below gets the failure; the next call tries again.
    }
    const { vault } = await opened;
    await vault.useKeys(place.key.keys);
    return vault;
  }

  async #openVault(place: VaultPlace): Promise<Opened> {
    const { clock, random, log } = this.#services;
    const { indexFolder, area } = this.#options;
    const store = openVaultStore(place);
    const { vaultId, key } = place;
    const index = { indexFolder: join(indexFolder, vaultId), entriesMax: indexEntriesMax };
    return { vault: await openVault({ store, vaultId, key: key.keys, areaId: parseAreaId(area), clock, random, log, ...index }), store };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opened = await Promise.allSettled(this.#open.values());
    this.#open.clear();
    for (const each of opened) {
      if (each.status === "rejected") continue;
      await each.value.vault[Symbol.asyncDispose]();
      await each.value.store[Symbol.asyncDispose]();
    }
  }
}
