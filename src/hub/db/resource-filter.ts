// A checked $filter as a condition on the resource table, so that pages stay pages: the database leaves out what does not pass.

import { sql, type RawBuilder } from "kysely";
import type { Comparison, Filter, FilterFields } from "../api/filter.ts";

/** The columns that stand outside the JSON. */
const columns: Readonly<Record<string, string>> = { name: "name", location: "location", id: "id", type: "type" };

export function toCondition(filter: Filter, fields: FilterFields): RawBuilder<boolean> {
  switch (filter.kind) {
    case "and":
      return sql<boolean>`(${sql.join(
        filter.parts.map((part) => toCondition(part, fields)),
        sql` and `,
      )})`;
    case "or":
      return sql<boolean>`(${sql.join(
        filter.parts.map((part) => toCondition(part, fields)),
        sql` or `,
      )})`;
    case "call":
      return sql<boolean>`true`; // Functions of stored types say where to look, and the list looks there already.
    case "compare":
      return toComparison(filter, fields);
  }
}

function toComparison({ field, operator, value }: Comparison, fields: FilterFields): RawBuilder<boolean> {
  const found = toText(fields[field]?.path ?? []);
  const sign = sql.raw({ eq: "=", ne: "is distinct from", gt: ">", ge: ">=", lt: "<", le: "<=" }[operator]);
  switch (fields[field]?.kind) {
    case "number":
      // A text that is no number passes nothing, instead of ending the query.
      return sql<boolean>`(case when ${found} ~ '^-?[0-9.]+$' then (${found})::numeric end) ${sign} ${value}::numeric`;
    case "time":
      return sql<boolean>`(case when ${found} ~ '^[0-9]{4}-' then (${found})::timestamptz end) ${sign} to_timestamp(${value}::double precision / 1000)`;
    case "text":
    case "boolean":
    case undefined:
      return sql<boolean>`lower(${found}) ${sign} ${String(value).toLowerCase()}`;
  }
}

function toText(path: readonly string[]): RawBuilder<string | null> {
  const [first = "", ...rest] = path;
  if (first === "properties") return sql`(properties #>> ${sql.val([...rest])}::text[])`;
  const column = columns[first];
  return column === undefined ? sql`(envelope #>> ${sql.val([...path])}::text[])` : sql`${sql.ref(column)}`;
}
