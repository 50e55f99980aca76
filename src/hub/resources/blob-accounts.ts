// What the blob service asks of storage accounts: their keys, kept at hand, and given up as soon as a key or an account changes in any hub.

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { BlobAccounts } from "../blob/blob-listener.ts";
import type { Database } from "../db/database.ts";
import { notify } from "../db/notifications.ts";
import type { ResourceStore } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { storageAccountType } from "../private-link/link-target.ts";
import { accountKey } from "./account-keys.ts";

const topic = "storageAccounts";
/** A hub that hears nothing of the others, because its connection is broken, believes no longer than this. */
const believedMsMax = 15_000;
/** Names that were asked for, strangers' inventions among them. */
const keptMax = 1000;

export interface KnownAccounts extends BlobAccounts, Disposable {
  /** Keys or accounts changed: this hub forgets what it knew at once, the others when they hear of it. */
  changed(): Promise<void>;
}

interface Kept {
  readonly keys: Promise<readonly Uint8Array[] | undefined>;
  readonly untilMs: number;
}

export function openBlobAccounts(hub: {
  readonly database: Pick<Database, "db" | "notifications">;
  readonly resources: ResourceStore;
  readonly secrets: SecretStore;
  readonly random: Random;
  readonly clock: Clock;
}): KnownAccounts {
  const kept = new Map<string, Kept>();
  const subscription = hub.database.notifications.subscribe(topic, () => kept.clear());
  const read = async (name: string): Promise<readonly Uint8Array[] | undefined> => {
    const [account] = await hub.resources.having({ type: storageAccountType, property: "name", value: name });
    if (account === undefined) return undefined;
    return await Promise.all([accountKey(hub, account.id.text, "key1"), accountKey(hub, account.id.text, "key2")]);
  };
  return {
    keysOf: async (name) => {
      const nowMs = hub.clock.monotonicMs();
      const known = kept.get(name);
      if (known !== undefined && nowMs < known.untilMs) return await known.keys;
      if (kept.size >= keptMax) kept.clear();
      const mine: Kept = { keys: read(name), untilMs: nowMs + believedMsMax };
      kept.set(name, mine);
      try {
        return await mine.keys;
      } catch (error) {
        if (kept.get(name) === mine) kept.delete(name); // The next call asks again.
        throw error;
      }
    },
    changed: async () => {
      kept.clear();
      await notify(hub.database.db, topic);
    },
    [Symbol.dispose]: () => subscription[Symbol.dispose](),
  };
}
