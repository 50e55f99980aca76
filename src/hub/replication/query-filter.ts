// $filter of jobs and events, as the query parameters of Azure's clients become text: "name eq 'value'" joined by "and".

import { fromTimestamp, toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";

const charactersMax = 4000;
const partPattern = /\s*(\w+)\s+(eq|ge|le)\s+(?:datetime)?(?:'((?:[^']|'')*)'|([\w:.+-]+))\s*(and\s|$)/iy;

/**
 * The values by field; fields are compared without case. startTime may be written with eq or ge, endTime with eq or le: both mean a bound.
 * Throws InputInvalid for anything else, because a part that is not understood must not be dropped.
 */
export function parseQueryFilter<Field extends string>(
  text: string | undefined,
  fields: readonly Field[],
): Readonly<Partial<Record<Field, string>>> {
  const values: Partial<Record<Field, string>> = {};
  if (text === undefined || text.trim() === "") return values;
  if (text.length > charactersMax) throw refused(text, `it is longer than ${charactersMax} characters`);
  partPattern.lastIndex = 0;
  for (let isMore = true; isMore;) {
    const at = partPattern.lastIndex;
    const found = partPattern.exec(text);
    if (found === null) throw refused(text, `it cannot be read from character ${at + 1} on`, fields);
    const [, name = "", operator = "", quoted, bare, joint = ""] = found;
    const field = fields.find((each) => each.toLowerCase() === name.toLowerCase());
    if (field === undefined) throw refused(text, `the field ${name} cannot be filtered here`, fields);
    if (!operatorsOf(field).includes(operator.toLowerCase())) throw refused(text, `${operator} is not known for the field ${field}`);
    if (values[field] !== undefined) throw refused(text, `the field ${field} is named twice`);
    values[field] = quoted?.replaceAll("''", "'") ?? bare ?? "";
    isMore = joint !== "";
  }
  return values;
}

function operatorsOf(field: string): readonly string[] {
  if (field === "startTime") return ["eq", "ge"];
  return field === "endTime" ? ["eq", "le"] : ["eq"];
}

/** RFC 3339 in UTC, from any form that Azure's clients write; a time without a zone is UTC. */
export function timeOf<Field extends string>(values: Readonly<Partial<Record<Field, string>>>, field: Field): string | undefined {
  const text = values[field];
  return text === undefined ? undefined : parseQueryTime(text, field);
}

function parseQueryTime(text: string, field: string): string {
  const isTime = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$/i.test(text);
  const isZoned = /[T ].*(Z|[+-]\d{2}:?\d{2})$/i.test(text) || !/[T ]/i.test(text);
  const ms = isTime ? fromTimestamp(isZoned ? text : `${text}Z`) : Number.NaN;
  if (Number.isNaN(ms)) throw refused(text, `${field} is not a time such as 2026-01-31T09:30:00Z`);
  return toTimestamp(ms);
}

function refused(text: string, reason: string, fields: readonly string[] = []): Fault {
  return new Fault("InputInvalid", `could not read the filter: ${reason}`, {
    evidence: { filter: text.slice(0, 300), ...(fields.length === 0 ? {} : { fields }) },
    action: "write name eq 'value', joined by and",
  });
}
