// $filter of jobs and events, as Azure's clients turn their query parameters into text: equalities joined by "and".

import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { refuseFilter, type Comparison, type Filter, type FilterGrammar } from "../api/filter.ts";

export type QueryValues = Readonly<Partial<Record<string, string>>>;

/** Fields by name, with the place of their value in the answer. startTime and endTime are bounds on one time. */
export function queryGrammar(wanted: { readonly texts: Readonly<Record<string, string>>; readonly time: string }): FilterGrammar {
  const texts = Object.entries(wanted.texts).map(([name, property]) => [name, { kind: "text", path: ["properties", property] }] as const);
  const time = { kind: "time", path: ["properties", wanted.time] } as const;
  return { fields: { ...Object.fromEntries(texts), startTime: time, endTime: time } };
}

/**
 * The values by field. startTime may be written with eq or ge, endTime with eq or le: both mean a bound. Throws InvalidFilter for what else
 * the grammar reads (or, ne, a field twice): a part must not be dropped.
 */
export function queryValues(filter: Filter | undefined, text = ""): QueryValues {
  const values: Partial<Record<string, string>> = {};
  for (const part of partsOf(filter, text)) {
    const { field, operator, value } = part;
    if (!operatorsOf(field).includes(operator)) refuseFilter(text, `${operator} is not known here for the field ${field}`);
    if (values[field] !== undefined) refuseFilter(text, `the field ${field} is named twice`);
    values[field] = typeof value === "number" ? toTimestamp(value) : String(value);
  }
  return values;
}

function partsOf(filter: Filter | undefined, text: string): readonly Comparison[] {
  if (filter === undefined) return [];
  if (filter.kind === "compare") return [filter];
  if (filter.kind === "and") return filter.parts.flatMap((part) => partsOf(part, text));
  return refuseFilter(text, "comparisons may only be joined by and here");
}

function operatorsOf(field: string): readonly string[] {
  if (field === "startTime") return ["eq", "ge"];
  return field === "endTime" ? ["eq", "le"] : ["eq"];
}

/** RFC 3339 in UTC of a time in a body; one without a zone is UTC. */
export function parseQueryTime(text: string, field: string): string {
  const isTime = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$/i.test(text);
  const isZoned = /[T ].*(Z|[+-]\d{2}:?\d{2})$/i.test(text) || !/[T ]/i.test(text);
  const ms = isTime ? fromTimestamp(isZoned ? text : `${text}Z`) : Number.NaN;
  if (!Number.isNaN(ms)) return toTimestamp(ms);
  throw new Fault("InputInvalid", `could not read ${field}: it is not a time`, {
    evidence: { given: text.slice(0, 100) },
    action: "write it like 2026-01-31T09:30:00Z",
  });
}
