// $filter of a list: a small part of OData, parsed once into a tree of checked comparisons. See docs/decisions/filter.md.

import { fromTimestamp } from "../../base/clock.ts";
import { ArmFault } from "./arm-errors.ts";
import { readTokens, type Token } from "./filter-tokens.ts";

/** What a type lets a filter name. */
export interface FilterField {
  readonly kind: "text" | "number" | "boolean" | "time";
  /** Where the value stands in the answer: ["properties", "state"]. */
  readonly path: readonly string[];
}

/** By the name that filters use; compared without case. */
export type FilterFields = Readonly<Record<string, FilterField>>;

export type FilterOperator = "eq" | "ne" | "gt" | "ge" | "lt" | "le";

/** Times are milliseconds since 1970. */
export type FilterValue = string | number | boolean;

export interface Comparison {
  readonly kind: "compare";
  /** As the type writes it. */
  readonly field: string;
  readonly operator: FilterOperator;
  readonly value: FilterValue;
}

export type Filter =
  | Comparison
  | { readonly kind: "and" | "or"; readonly parts: readonly Filter[] }
  /** atScope(), assignedTo('…'): what it means is the type's. */
  | { readonly kind: "call"; readonly name: string; readonly value: string | undefined };

export interface FilterGrammar {
  readonly fields: FilterFields;
  /** Functions that may be called, each with at most one text. */
  readonly calls?: readonly string[];
}

const charactersMax = 4096;
const depthMax = 16;
const operators: ReadonlySet<string> = new Set<FilterOperator>(["eq", "ne", "gt", "ge", "lt", "le"]);

/** Parses and checks; whatever is not in the grammar is Fault InputInvalid with the code InvalidFilter. */
export function parseFilter(text: string, grammar: FilterGrammar): Filter {
  if (text.length > charactersMax) refuseFilter(text, `it is longer than ${charactersMax} characters`);
  const reader: Reader = { text, tokens: readTokens(text), position: 0, grammar };
  const filter = readOr(reader, 0);
  if (reader.position < reader.tokens.length)
    refuseFilter(text, `there is something left at "${reader.tokens[reader.position]?.text ?? ""}"`);
  return filter;
}

/** Whether an answer passes, for lists that are in memory already. `call` decides functions. */
export function passesFilter(filter: Filter, fields: FilterFields, answer: unknown, call: (name: string) => boolean = () => true): boolean {
  switch (filter.kind) {
    case "and":
      return filter.parts.every((part) => passesFilter(part, fields, answer, call));
    case "or":
      return filter.parts.some((part) => passesFilter(part, fields, answer, call));
    case "call":
      return call(filter.name);
    case "compare":
      return compare(filter, readPath(answer, fields[filter.field]?.path ?? []));
  }
}

export function refuseFilter(text: string, reason: string, known?: readonly string[]): never {
  throw new ArmFault("InputInvalid", "InvalidFilter", `could not read $filter: ${reason}`, {
    evidence: { filter: text.slice(0, 300), ...(known === undefined ? {} : { filterable: known }) },
    action: "write comparisons such as name eq 'x', joined by and and or, over the fields that the resource type lets be filtered",
    target: "$filter",
  });
}

interface Reader {
  readonly text: string;
  readonly tokens: readonly Token[];
  readonly grammar: FilterGrammar;
  position: number;
}

function readOr(reader: Reader, depth: number): Filter {
  return readJoined(reader, "or", () => readJoined(reader, "and", () => readTerm(reader, depth)));
}

function readJoined(reader: Reader, kind: "and" | "or", readPart: () => Filter): Filter {
  const parts = [readPart()];
  while (isWord(reader, kind)) {
    reader.position += 1;
    parts.push(readPart());
  }
  const [only] = parts;
  return parts.length === 1 && only !== undefined ? only : { kind, parts };
}

function readTerm(reader: Reader, depth: number): Filter {
  if (depth > depthMax) refuseFilter(reader.text, `it is nested deeper than ${depthMax}`);
  const token = next(reader);
  if (token.kind === "open") {
    const inner = readOr(reader, depth + 1);
    if (next(reader).kind !== "close") refuseFilter(reader.text, "a closing parenthesis is missing");
    return inner;
  }
  if (token.kind !== "word") refuseFilter(reader.text, `a field was expected at "${token.text}"`);
  return reader.tokens[reader.position]?.kind === "open" ? readCall(reader, token.text) : readComparison(reader, token.text);
}

function readCall(reader: Reader, given: string): Filter {
  const { grammar, text } = reader;
  const name = grammar.calls?.find((each) => each.toLowerCase() === given.toLowerCase());
  if (name === undefined) refuseFilter(text, `the function ${given} is not known here`, grammar.calls ?? []);
  reader.position += 1;
  const argument = next(reader);
  if (argument.kind === "close") return { kind: "call", name, value: undefined };
  if (argument.kind !== "text" || next(reader).kind !== "close") refuseFilter(text, `the function ${name} takes one text`);
  return { kind: "call", name, value: argument.text };
}

function readComparison(reader: Reader, given: string): Comparison {
  const { grammar, text } = reader;
  const [field, definition] = Object.entries(grammar.fields).find(([name]) => name.toLowerCase() === given.toLowerCase()) ?? [];
  if (field === undefined || definition === undefined)
    refuseFilter(text, `the field ${given} cannot be filtered here`, Object.keys(grammar.fields));
  const operator = next(reader).text.toLowerCase();
  if (!isOperator(operator)) refuseFilter(text, `eq, ne, gt, ge, lt or le was expected after ${field}`);
  if (definition.kind !== "number" && definition.kind !== "time" && operator !== "eq" && operator !== "ne")
    refuseFilter(text, `the field ${field} has no order: only eq and ne are allowed`);
  return { kind: "compare", field, operator, value: toValue(reader, field, definition.kind, next(reader)) };
}

function toValue(reader: Reader, field: string, kind: FilterField["kind"], token: Token): FilterValue {
  const value = valueOf(kind, token);
  return value ?? refuseFilter(reader.text, `"${token.text}" is not a ${kind} for the field ${field}`);
}

// oxlint-disable-next-line typescript/consistent-return -- every kind answers; the compiler proves it
function valueOf(kind: FilterField["kind"], { kind: form, text }: Token): FilterValue | undefined {
  if (form !== "text" && form !== "word") return undefined;
  switch (kind) {
    case "text":
      // UUIDs come bare from some clients.
      return form === "text" || /^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(text) ? text : undefined;
    case "number":
      return form === "word" && /^-?\d{1,15}(\.\d{1,9})?$/.test(text) ? Number(text) : undefined;
    case "boolean":
      return /^(true|false)$/i.test(text) ? text.toLowerCase() === "true" : undefined;
    case "time": {
      const isDate = /^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:\d{2})?)?$/i.test(text);
      const ms = isDate ? fromTimestamp(/T.*(Z|[+-]\d{2}:\d{2})$/i.test(text) || !/T/i.test(text) ? text : `${text}Z`) : Number.NaN;
      return Number.isNaN(ms) ? undefined : ms;
    }
  }
}

function compare({ operator, value }: Comparison, found: unknown): boolean {
  const sign = order(found, value);
  if (sign === undefined) return operator === "ne";
  switch (operator) {
    case "eq":
      return sign === 0;
    case "ne":
      return sign !== 0;
    case "gt":
      return sign > 0;
    case "ge":
      return sign >= 0;
    case "lt":
      return sign < 0;
    case "le":
      return sign <= 0;
  }
}

/** ARM compares names, states and ids without case. undefined: nothing to compare with. */
function order(found: unknown, value: FilterValue): number | undefined {
  if (found === undefined || found === null) return undefined;
  if (typeof value === "string") return typeof found === "string" && found.toLowerCase() === value.toLowerCase() ? 0 : 1;
  if (typeof value === "boolean") return JSON.stringify(found).replaceAll('"', "").toLowerCase() === String(value) ? 0 : 1;
  const number =
    typeof found === "number"
      ? found
      : typeof found === "string"
        ? /^-?[\d.]+$/.test(found)
          ? Number(found)
          : fromTimestamp(found)
        : Number.NaN;
  return Number.isNaN(number) ? undefined : number - value;
}

function readPath(answer: unknown, path: readonly string[]): unknown {
  let present = answer;
  for (const name of path) present = typeof present === "object" && present !== null ? Reflect.get(present, name) : undefined;
  return present;
}

function next(reader: Reader): Token {
  const token = reader.tokens[reader.position];
  if (token === undefined) refuseFilter(reader.text, "it ends too early");
  reader.position += 1;
  return token;
}

function isWord(reader: Reader, word: string): boolean {
  const token = reader.tokens[reader.position];
  return token?.kind === "word" && token.text.toLowerCase() === word;
}

function isOperator(text: string): text is FilterOperator {
  return operators.has(text);
}
