// How the hub itself reaches a vault: its key and the container of the storage account that holds its packs.

import type { VaultId } from "../../contract/ids.ts";

export interface VaultPlace {
  readonly vaultId: VaultId;
  /** The vault's resource id. */
  readonly resourceId: string;
  readonly key: { readonly keyId: string; readonly bytes: Uint8Array };
  readonly storage: {
    readonly accountName: string;
    /** "https://<account>.blob.<domain>[:port]". */
    readonly accountUrl: string;
    /** Base64, for a shared key credential. Secret. */
    readonly accountKey: string;
    readonly container: string;
    /** Where the account's private endpoint listens; dial this instead of asking DNS. */
    readonly address: string;
    readonly port: number;
    readonly caPem: string;
  };
}

export interface VaultAccess {
  /**
   * The place of a vault, by resource id. Fault StorageRoleMissing when the vault's identity may not write to its
   * storage account, StateConflict when the vault has no storage account or the account has no private endpoint.
   */
  open(vaultResourceId: string): Promise<VaultPlace>;
}
