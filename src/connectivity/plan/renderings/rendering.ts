// What a rendering of a plan is: files for one program, and what its form cannot say.

import type { PlanEndpoint, PrivateEndpoint } from "../endpoints.ts";
import type { PlanMatrix, PlanRole } from "../matrix.ts";
import type { PlanDocument } from "../plan-document.ts";

export interface RenderedFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

export interface Rendered {
  readonly files: readonly RenderedFile[];
  /** Entries that the form has no word for. Never bent, always told. */
  readonly omitted: readonly { readonly entry: string; readonly reason: string }[];
}

/** What a rendering is made from. `role` matters to the forms that are written for one machine. */
export interface RenderInput {
  readonly plan: PlanDocument;
  readonly matrix: PlanMatrix;
  readonly role: PlanRole;
  /** DNS forms: answer the private names here, or ask the resolver of the zone where the endpoints live. */
  readonly dnsMode: "records" | "forward";
}

export function textFile(name: string, lines: readonly string[]): RenderedFile {
  return { name, bytes: new TextEncoder().encode(lines.map((line) => `${line}\n`).join("")) };
}

/** Windows reads .reg files as UTF-16 with a byte order mark, and lines that end in CR LF. */
export function windowsFile(name: string, lines: readonly string[]): RenderedFile {
  return { name, bytes: new Uint8Array(Buffer.from(`\uFEFF${lines.map((line) => `${line}\r\n`).join("")}`, "utf16le")) };
}

export interface PlacedName {
  readonly name: string;
  readonly address: string;
  readonly dnsZone: string;
}

/** The private names that have an address, each with the DNS zone to answer it from: the name itself when no zone holds it. */
export function placedNames(endpoints: readonly PlanEndpoint[]): readonly PlacedName[] {
  const placed = endpoints.filter(isPlaced).map(({ name, address, dnsZone }) => ({ name, address, dnsZone: dnsZone ?? name }));
  return placed.filter(
    (entry, index) => placed.findIndex(({ name, address }) => name === entry.name && address === entry.address) === index,
  );
}

function isPlaced(endpoint: PlanEndpoint): endpoint is PrivateEndpoint & { readonly address: string } {
  return endpoint.kind === "private" && endpoint.address !== undefined;
}

/** What a form that needs addresses leaves out. */
export function unplacedNames(endpoints: readonly PlanEndpoint[]): Rendered["omitted"] {
  return endpoints.flatMap((endpoint) =>
    endpoint.kind === "private" && endpoint.address === undefined ? [{ entry: endpoint.name, reason: "it has no address yet" }] : [],
  );
}

/** Resolvers of the zones where the private endpoints live: where conditional forwarders point. */
export function privateResolvers({ plan, matrix }: RenderInput): readonly string[] {
  const zones = new Set(matrix.endpoints.flatMap((endpoint) => (endpoint.kind === "private" ? [endpoint.zone] : [])));
  return [...new Set([...zones].flatMap((zone) => plan.zones[zone]?.dnsServers ?? []))];
}

/** Names grouped by the DNS zone that answers them, in a fixed order. */
export function byDnsZone(names: readonly PlacedName[]): readonly (readonly [string, readonly PlacedName[]])[] {
  return [...Map.groupBy(names, ({ dnsZone }) => dnsZone)].toSorted(([one], [other]) => (one < other ? -1 : 1));
}
