// For tests: bodies made from a schema of docs/api, and bodies that differ from a right one in one place.

import fc from "fast-check";
import { z } from "zod";

export type Schema = Readonly<Record<string, unknown>>;
type Value = unknown;

const depthMax = 8;
const itemsMax = 3;
const charactersMax = 40;
const schemaShape = z.record(z.string(), z.unknown());
const schemasShape = z.array(schemaShape);
const propertiesShape = z.record(z.string(), schemaShape);

/** What the schema takes, as far as it says it. References are followed in `components`. */
export function rightBody(schema: Schema, components: Readonly<Record<string, Schema>>, depth = 0): fc.Arbitrary<Value> {
  const inner = (each: Schema): fc.Arbitrary<Value> => rightBody(each, components, depth + 1);
  if (depth > depthMax) return fc.constant(null);
  const { $ref, const: literal, enum: choices, type } = schema;
  if (typeof $ref === "string") return inner(components[$ref.split("/").at(-1) ?? ""] ?? {});
  if (literal !== undefined) return fc.constant(literal);
  if (Array.isArray(choices)) return fc.constantFrom(...(choices as readonly unknown[]));
  const branches = schemasShape.safeParse(schema["anyOf"] ?? schema["oneOf"]).data;
  if (branches !== undefined && branches.length > 0) return fc.oneof(...branches.map(inner));
  switch (type) {
    case "object":
      return objectOf(schema, inner);
    case "array": {
      const most = typeof schema["maxItems"] === "number" ? Math.min(schema["maxItems"], itemsMax) : itemsMax;
      const least = typeof schema["minItems"] === "number" ? Math.min(schema["minItems"], most) : 0;
      return fc.array(inner(schemaShape.safeParse(schema["items"]).data ?? {}), { minLength: least, maxLength: most });
    }
    case "string":
      return textOf(schema);
    case "integer":
    case "number":
      return numberOf(schema, type);
    case "boolean":
      return fc.boolean();
    case "null":
      return fc.constant(null);
    default:
      return fc.jsonValue({ maxDepth: 2 });
  }
}

function objectOf(schema: Schema, inner: (each: Schema) => fc.Arbitrary<Value>): fc.Arbitrary<Value> {
  const properties = propertiesShape.safeParse(schema["properties"]).data ?? {};
  const required = z.array(z.string()).safeParse(schema["required"]).data ?? [];
  const parts = Object.fromEntries(Object.entries(properties).map(([name, each]) => [name, inner(each)]));
  return fc.record(parts, { requiredKeys: required.filter((name) => name in parts) });
}

function textOf({ pattern, format, maxLength, minLength }: Schema): fc.Arbitrary<string> {
  if (format === "uuid") return fc.uuid();
  if (format === "date-time") return fc.date({ noInvalidDate: true }).map((date) => date.toISOString());
  if (typeof pattern === "string")
    return fc.stringMatching(new RegExp(pattern, "u"), { maxLength: charactersMax }).filter((text) => text.length < 2000);
  const most = Math.min(typeof maxLength === "number" ? maxLength : charactersMax, charactersMax);
  return fc.string({ minLength: Math.min(typeof minLength === "number" ? minLength : 0, most), maxLength: most, unit: "grapheme-ascii" });
}

function numberOf({ minimum, maximum }: Schema, type: "integer" | "number"): fc.Arbitrary<number> {
  const least = Math.max(typeof minimum === "number" ? minimum : 0, -(2 ** 31));
  const most = Math.min(typeof maximum === "number" ? maximum : 2 ** 31 - 1, 2 ** 31 - 1);
  return type === "integer"
    ? fc.integer({ min: Math.ceil(least), max: Math.floor(most) })
    : fc.double({ min: least, max: most, noNaN: true });
}

/** As it goes over the wire. */
export interface SentBody {
  readonly what: string;
  readonly bytes: Uint8Array;
  readonly contentType: string | undefined;
}

const json = "application/json";
const deepLevels = 5000;
const longCharacters = 100_000;
/** The bodies of one right one: as it is, and with one thing changed. */
export function mutatedBody(right: fc.Arbitrary<Value>): fc.Arbitrary<SentBody> {
  const where = fc.nat({ max: 1000 });
  return fc
    .tuple(right, fc.constantFrom(...Object.keys(mutations)), where)
    .map(([body, what, place]) => mutations[what]?.(body, place) ?? asIs(body));
}

const odd: readonly unknown[] = [null, true, -1, 1e308, 2 ** 60, "", "\u0000", "\ud800", [], {}, [[]], "é".repeat(300)];

const mutations: Readonly<Record<string, (body: Value, place: number) => SentBody>> = {
  right: (body) => asIs(body),
  "another type": (body, place) => told("another type", replaced(body, place, odd[place % odd.length])),
  "too long": (body, place) => told("too long", replaced(body, place, "x".repeat(longCharacters))),
  "too deep": (body, place) => {
    const mark = "\u0001deep\u0001";
    const deep = `${'{"a":'.repeat(deepLevels)}1${"}".repeat(deepLevels)}`;
    return wire(
      "too deep",
      toText(replaced(body, place, mark)).replace(JSON.stringify(mark), () => deep),
    );
  },
  "a member more": (body, place) => told("a member more", withMember(body, place, `unknown${place}`, { a: [1] })),
  "a member that prototypes have": (body, place) => {
    const name = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"][place % 5] ?? "";
    const mark = "\u0001name\u0001";
    const text = toText(withMember(body, place, mark, { polluted: true }));
    return wire(
      "a member that prototypes have",
      text.replace(JSON.stringify(mark), () => JSON.stringify(name)),
    );
  },
  "members that differ in case": (body, place) => told("members that differ in case", withTwin(body, place)),
  "a member twice": (body, place) => {
    const text = toText(body);
    return wire(
      "a member twice",
      text.startsWith("{") && text.length > 2 ? `{${text.slice(1, -1)},${text.slice(1)}` : text + String(place % 2),
    );
  },
  "another content type": (body, place) => ({
    ...asIs(body),
    what: "another content type",
    contentType: ["application/xml", "text/plain", "multipart/form-data", "application/json; charset=latin1", "x"][place % 5],
  }),
  "no content type": (body) => ({ ...asIs(body), what: "no content type", contentType: undefined }),
  "broken UTF-8": (body, place) => {
    const bytes = Buffer.from(toText(body), "utf8");
    bytes[place % Math.max(1, bytes.length)] = 0xff;
    return { what: "broken UTF-8", bytes, contentType: json };
  },
  "cut short": (body, place) => {
    const text = toText(body);
    return wire("cut short", text.slice(0, place % Math.max(1, text.length)));
  },
  empty: () => wire("empty", ""),
  "no object": (_body, place) => told("no object", odd[place % odd.length]),
};

export const mutationNames: readonly string[] = Object.keys(mutations);

function toText(body: Value): string {
  return JSON.stringify(body) ?? "";
}

function asIs(body: Value): SentBody {
  return told("right", body);
}

function told(what: string, body: Value): SentBody {
  return wire(what, toText(body));
}

function wire(what: string, text: string): SentBody {
  return { what, bytes: Buffer.from(text, "utf8"), contentType: json };
}

/** Every place in it, the whole first. */
function pathsOf(body: Value, path: readonly (string | number)[] = []): readonly (readonly (string | number)[])[] {
  if (typeof body !== "object" || body === null) return [path];
  return [path, ...Object.entries(body).flatMap(([name, inner]) => pathsOf(inner, [...path, name]))];
}

function changed(body: Value, path: readonly (string | number)[], change: (value: Value) => Value): Value {
  const [name, ...rest] = path;
  if (name === undefined) return change(body);
  if (Array.isArray(body)) return body.map((each: unknown, index) => (String(index) === String(name) ? changed(each, rest, change) : each));
  const members = schemaShape.parse(body);
  return { ...members, [name]: changed(members[name], rest, change) };
}

function chosen<Item>(items: readonly Item[], place: number): Item | undefined {
  return items[place % Math.max(1, items.length)];
}

function replaced(body: Value, place: number, value: Value): Value {
  return changed(body, chosen(pathsOf(body), place) ?? [], () => value);
}

function objectsOf(body: Value): readonly (readonly (string | number)[])[] {
  return pathsOf(body).filter((path) => {
    const value = path.reduce<Value>((at, name) => (at as Readonly<Record<string | number, unknown>>)[name], body); // The path is of this body.
    return typeof value === "object" && value !== null && !Array.isArray(value);
  });
}

function withMember(body: Value, place: number, name: string, value: Value): Value {
  const path = chosen(objectsOf(body), place);
  return path === undefined ? { [name]: value } : changed(body, path, (object) => ({ ...schemaShape.parse(object), [name]: value }));
}

function withTwin(body: Value, place: number): Value {
  const path = chosen(objectsOf(body), place);
  if (path === undefined) return { Properties: {}, properties: {} };
  return changed(body, path, (object) => {
    const members = schemaShape.parse(object);
    const [name, value] = Object.entries(members)[0] ?? ["properties", {}];
    return { ...members, [name.toUpperCase()]: value };
  });
}
