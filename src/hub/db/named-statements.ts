// Statements with parameters are prepared once a connection: the server reads each text once and not at every call.

import type pg from "pg";

/** Texts beyond it are sent as they are: a list of changing length in a text must not fill the server's memory. */
const statementsMax = 1000;

/** The same text has the same name on every connection. The server still plans anew whenever a value makes the general plan dearer. */
export function createStatementNames(): (text: string) => string | undefined {
  const names = new Map<string, string>();
  return (text) => {
    const known = names.get(text);
    if (known !== undefined || names.size >= statementsMax) return known;
    const name = `w${names.size}`;
    names.set(text, name);
    return name;
  };
}

/** Changes the connection for its life. kysely calls it with a text and its values; every other form of call stays as it is. */
export function nameStatements(client: pg.PoolClient, nameOf: (text: string) => string | undefined): void {
  const query = client.query.bind(client);
  const named = (text: unknown, values?: unknown, ...rest: readonly unknown[]): unknown => {
    const name = typeof text === "string" && Array.isArray(values) && values.length > 0 ? nameOf(text) : undefined;
    return name === undefined
      ? Reflect.apply(query, client, [text, values, ...rest])
      : Reflect.apply(query, client, [{ name, text, values }, ...rest]);
  };
  Object.defineProperty(client, "query", { value: named });
}
