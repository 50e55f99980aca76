// Decides by which way a host may be reached. Pure: the same topology and name always give the same answer.

import { isIP } from "node:net";
import { normaliseHost, type Topology } from "./topology.ts";

/** Why, in words that a person reads: the list entry that matched. */
interface Reason {
  readonly host: string;
  readonly because: string;
}

export type Decision =
  /** Directly, at an address inside the private ranges, never by a proxy. */
  | (Reason & { readonly kind: "private" })
  /** Directly, on this side of the closed network. */
  | (Reason & { readonly kind: "site" })
  /** By this proxy, which resolves the name itself. */
  | (Reason & { readonly kind: "proxy"; readonly proxyUrl: string })
  /** A public name where no proxy stands in between. */
  | (Reason & { readonly kind: "public" })
  /** Named nowhere: refused. */
  | (Reason & { readonly kind: "undeclared" });

/** Private wins over site, site over public, and what nobody declared is refused. */
export function decide(topology: Topology, rawHost: string): Decision {
  const host = normaliseHost(rawHost);
  const isAddress = isIP(host) !== 0;
  const privateEntry = topology.privateNames.find((entry) => matchesName(entry, host));
  if (privateEntry !== undefined) return { kind: "private", host, because: `privateNames holds ${privateEntry}` };
  if (isAddress && topology.privateRanges.contains(host)) return { kind: "private", host, because: "privateRanges holds the address" };
  const siteEntry = topology.siteNames.find((entry) => matchesName(entry, host));
  if (siteEntry !== undefined) return { kind: "site", host, because: `siteNames holds ${siteEntry}` };
  if (isAddress && topology.siteRanges.contains(host)) return { kind: "site", host, because: "siteRanges holds the address" };
  const publicEntry = topology.publicNames.find((entry) => matchesName(entry, host));
  if (publicEntry === undefined) return { kind: "undeclared", host, because: "no list of the topology holds it" };
  const because = `publicNames holds ${publicEntry}`;
  return topology.proxy === undefined
    ? { kind: "public", host, because }
    : { kind: "proxy", host, proxyUrl: new URL(topology.proxy.url).origin, because };
}

/** An entry that begins with a dot matches every name below it, not the name itself. */
function matchesName(entry: string, host: string): boolean {
  return entry.startsWith(".") ? host.length > entry.length && host.endsWith(entry) : host === entry;
}
