// Opens the vault over the storage account with the present grant, settles what a killed appliance left, and takes agents in.

import { availableParallelism } from "node:os";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Connector } from "../../connectivity/connector.ts";
import { openAzureBlobStore } from "../../store/azure-blob-store.ts";
import type { Store } from "../../store/store.ts";
import { openLocalCopies } from "../../store/local-copies.ts";
import { withStoreRetry } from "../../store/wrappers.ts";
import { openVault } from "../../vault/open-vault.ts";
import type { VaultKeys } from "../../vault/sealing.ts";
import type { Vault } from "../../vault/vault.ts";
import { parseAreaId } from "../../contract/ids.ts";
import type { StorageGrant } from "../../contract/appliance-protocol.ts";
import type { HubRegistration } from "../identity/hub-registration.ts";
import type { BusyTime } from "../flow/busy-time.ts";
import type { Spool } from "../ingest/spool.ts";

/** Threads that check and seal blocks; more than the line to the storage account can use are of no use. */
const blockThreadsMax = 4;
/** A full spool holds agents back for so long before their points are dropped: a limit of the line can make one upload last. */
const spoolStallMsMax = 15 * 60_000;
/** Copies of packs on this machine, so that changes read what they stand on here. */
const nearBytesMax = 8 * 2 ** 30;

export interface VaultLinkParts {
  readonly registration: HubRegistration;
  readonly keys: VaultKeys;
  readonly connector: Connector;
  /** Asked before each call, so that a renewed grant is used at once. */
  readonly grant: () => StorageGrant;
  readonly spool: Spool;
  /** Told of each blob that was written. */
  readonly onUploaded: (bytes: number) => void;
  /** Begun and ended with each blob that is written. */
  readonly uploads: Pick<BusyTime, "during">;
  /** Waited for before bytes go to the account and after they came from it. */
  readonly pace: (bytes: number, signal?: AbortSignal) => Promise<void> | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export async function openSiteVault(parts: VaultLinkParts, cleanup: AsyncDisposableStack): Promise<Vault> {
  const { registration, connector, grant, spool, clock, random, log } = parts;
  const { accountUrl, container } = grant();
  const store = openAzureBlobStore({
    accountUrl,
    container,
    credential: { kind: "sas", sas: async () => await Promise.resolve(grant().sas) },
    agent: connector.httpsAgent,
    pace: parts.pace,
  });
  cleanup.use(store);
  const near = await openLocalCopies(withStoreRetry(withPutCount(store, parts), { clock, log }), {
    folder: `${spool.folder}-near`,
    bytesMax: Math.min(nearBytesMax, spool.spoolBytesMax / 4),
    prefix: "packs/",
  });
  cleanup.use(near);
  const vault = await openVault({
    blockThreads: Math.min(blockThreadsMax, availableParallelism()),
    store: near,
    vaultId: registration.vault.vaultId,
    areaId: parseAreaId(registration.applianceId),
    indexFolder: `${spool.folder}-index`,
    key: parts.keys,
    clock,
    random,
    log,
    spool: { ...spool, stallMsMax: spoolStallMsMax },
  });
  return cleanup.use(vault);
}

function withPutCount(store: Store, { uploads, onUploaded }: Pick<VaultLinkParts, "uploads" | "onUploaded">): Store {
  return {
    put: async (key, bytes, signal) => {
      await uploads.during(async () => await store.put(key, bytes, signal));
      onUploaded(bytes.length);
    },
    get: async (key, range, signal) => await store.get(key, range, signal),
    head: async (key, signal) => await store.head(key, signal),
    list: (prefix, signal) => store.list(prefix, signal),
    remove: async (key, signal) => await store.remove(key, signal),
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}
