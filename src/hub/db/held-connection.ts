// Who holds a connection of the pool never asks it for a second one: with enough callers, all would hold one and wait for another.

import { AsyncLocalStorage } from "node:async_hooks";
import { Kysely, type ConnectionBuilder, type PostgresPool, type Transaction, type TransactionBuilder } from "kysely";
import type pg from "pg";
import type { Tables } from "./tables.ts";

const holding = new AsyncLocalStorage<{ isHeld: boolean }>();

async function whileHeld<T>(task: () => Promise<T>): Promise<T> {
  const hold = { isHeld: true };
  // What the task has started and left behind may ask the pool once the connection is given back.
  return await holding.run(hold, task).finally(() => (hold.isHeld = false));
}

/** Marks the time for which a transaction, or a session, has its connection. */
export class HubDatabase extends Kysely<Tables> {
  override transaction(): TransactionBuilder<Tables> {
    const builder = super.transaction();
    const execute = builder.execute.bind(builder);
    builder.execute = async <T>(task: (transaction: Transaction<Tables>) => Promise<T>): Promise<T> =>
      await execute(async (transaction) => await whileHeld(async () => await task(transaction)));
    return builder;
  }

  override connection(): ConnectionBuilder<Tables> {
    const builder = super.connection();
    const execute = builder.execute.bind(builder);
    builder.execute = async <T>(task: (db: Kysely<Tables>) => Promise<T>): Promise<T> =>
      await execute(async (db) => await whileHeld(async () => await task(db)));
    return builder;
  }
}

/** The pool, as kysely uses it. A second connection is a fault of the program, refused always and not only when the pool is empty. */
export function refuseSecondConnection(pool: pg.Pool): PostgresPool {
  return {
    options: pool.options,
    connect: async () => {
      if (holding.getStore()?.isHeld === true)
        throw new Error("assertion failed: inside a transaction the database is asked through that transaction, not through the pool");
      return await pool.connect();
    },
    end: async () => await pool.end(),
  };
}
