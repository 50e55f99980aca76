// LISTEN/NOTIFY: wakes waiters when another call, process or hub changed a row. A hint only; the row is the truth.

import pg from "pg";
import { sql, type Kysely } from "kysely";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Tables } from "./tables.ts";

export interface Notifications extends AsyncDisposable {
  /** Calls `listener` after each notification of the topic, and after a lost connection came back. Dispose to end. */
  subscribe(topic: string, listener: () => void): Disposable;
}

const channel = "watari";
const reconnectWaitMs = 500;

/** Tells every hub that something about `topic` changed; within a transaction it is sent at the commit. */
export async function notify(db: Kysely<Tables>, topic: string): Promise<void> {
  await sql`select pg_notify(${channel}, ${topic})`.execute(db);
}

export async function openNotifications(options: {
  readonly config: pg.ClientConfig;
  readonly log: Log;
  readonly clock: Clock;
}): Promise<Notifications> {
  const listeners = new Map<string, Set<() => void>>();
  const closing = new AbortController();
  const wake = (topic: string): void => listeners.get(topic)?.forEach((listener) => listener());
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client(options.config);
    client.on("notification", (message) => wake(message.payload ?? ""));
    client.on("error", () => undefined); // A broken connection also ends; the end is what starts the next one.
    await client.connect();
    await client.query(`listen ${channel}`);
    client.once("end", () => void reconnect());
    return client;
  };
  let client = await connect();
  const reconnect = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      try {
        client = await connect();
        for (const topic of listeners.keys()) wake(topic);
        options.log.info("database notifications resumed");
        return;
      } catch (error) {
        options.log.warn("database notifications waited", { reason: error instanceof Error ? error.message : String(error) });
        await options.clock.sleep(reconnectWaitMs, closing.signal).catch(() => undefined); // Only closing aborts; the loop sees it.
      }
    }
  };
  return {
    subscribe: (topic, listener) => {
      const set = listeners.get(topic) ?? new Set();
      listeners.set(topic, set);
      set.add(listener);
      return {
        [Symbol.dispose]: () => {
          set.delete(listener);
          if (set.size === 0 && listeners.get(topic) === set) listeners.delete(topic);
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      closing.abort();
      await client.end();
    },
  };
}
