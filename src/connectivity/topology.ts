// What a closed network looks like from one place: which names are private, on site or public, and by which proxy.

import { isIP } from "node:net";
import { z } from "zod";
import type { RegistrationKey } from "../contract/appliance-protocol.ts";
import { Fault } from "../contract/errors.ts";
import { parseAddressRanges, type AddressRanges } from "./address-range.ts";
import { proxyUrlShape, rangeShape } from "./network-shapes.ts";

const hostNamePattern = /^\.?[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$/;

/** An exact name ("a.b.c"), an address, or all names below a suffix (".b.c" or "*.b.c"). */
const namePatternShape = z
  .string()
  .max(253)
  .transform((text) => normaliseHost(text.startsWith("*.") ? text.slice(1) : text))
  .refine((text) => isIP(text) !== 0 || hostNamePattern.test(text), "not a host name, suffix or address");

const proxyShape = z.object({
  url: proxyUrlShape,
  /** File with one line "user:password", readable by this program only. */
  credentialsFile: z.string().max(4096).optional(),
});

/** The document. Every list may be empty; what no list names may not be reached. */
export const topologyShape = z.strictObject({
  /** Names that must resolve into privateRanges and never go by a proxy. */
  privateNames: z.array(namePatternShape).max(256).default([]),
  privateRanges: z.array(rangeShape).max(64).default([]),
  /** Names on this side of the closed network, reached directly: vCenter, guests, the appliance. */
  siteNames: z.array(namePatternShape).max(4096).default([]),
  siteRanges: z.array(rangeShape).max(64).default([]),
  /** Names of the outer world. They go by the proxy, or directly where no proxy is given. */
  publicNames: z.array(namePatternShape).max(256).default([]),
  proxy: proxyShape.optional(),
  /** Resolvers, "address" or "address:port"; the system's resolver when empty. */
  dnsServers: z.array(z.string().max(64).refine(isServerAddress, "not an address or address:port")).max(8).default([]),
  /** Fixed answers, asked before any resolver; checked like any other answer. */
  hosts: z
    .array(
      z.object({
        name: namePatternShape,
        addresses: z
          .array(z.union([z.ipv4(), z.ipv6()]))
          .min(1)
          .max(16),
      }),
    )
    .max(1024)
    .default([]),
});
export type TopologyDocument = z.input<typeof topologyShape>;

/** A parsed topology. Names are lower case; suffixes begin with a dot. */
export interface Topology extends Omit<z.output<typeof topologyShape>, "privateRanges" | "siteRanges"> {
  readonly privateRanges: AddressRanges;
  readonly siteRanges: AddressRanges;
}

/** Checks a document from outside. Throws InputInvalid that names each wrong field, never a credential. */
export function parseTopology(document: unknown): Topology {
  const parsed = topologyShape.safeParse(document);
  if (!parsed.success) {
    const problems = parsed.error.issues.slice(0, 20).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new Fault("InputInvalid", "could not read the network topology", { evidence: { problems } });
  }
  const both = parsed.data.privateNames.filter((name) => parsed.data.publicNames.includes(name));
  if (both.length > 0) {
    throw new Fault("InputInvalid", "could not read the network topology: names are private and public at once", {
      evidence: { names: both },
      action: "remove each of these names from privateNames or from publicNames",
    });
  }
  return {
    ...parsed.data,
    privateRanges: parseAddressRanges(parsed.data.privateRanges),
    siteRanges: parseAddressRanges(parsed.data.siteRanges),
  };
}

/** What only the site knows; the registration key knows the rest. */
export type SiteSettings = Pick<TopologyDocument, "proxy" | "dnsServers" | "siteNames" | "siteRanges" | "hosts">;

/** The topology as an appliance sees it: the key's names and ranges, and the site's own settings. */
export function topologyFromKey(
  key: Pick<RegistrationKey, "services" | "privateNames" | "privateRanges" | "publicNames">,
  site: SiteSettings,
): Topology {
  const privateNames = [...new Set([...key.privateNames, ...Object.values(key.services)].map((name) => name.toLowerCase()))];
  return parseTopology({ ...site, privateNames, privateRanges: key.privateRanges, publicNames: key.publicNames });
}

/** One spelling per host: lower case, no final dot, no brackets around an IPv6 address. */
export function normaliseHost(host: string): string {
  const lower = host.toLowerCase();
  if (lower.startsWith("[") && lower.endsWith("]")) return lower.slice(1, -1);
  return lower.endsWith(".") ? lower.slice(0, -1) : lower;
}

/** Splits "192.0.2.1", "192.0.2.1:5353", "fd00::1" and "[fd00::1]:5353"; the port is 53 unless told. */
export function splitServerAddress(text: string): { address: string; port: number } | undefined {
  if (isIP(text) !== 0) return { address: text, port: 53 };
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text);
  const address = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  return isIP(address) !== 0 && port >= 1 && port <= 65535 ? { address, port } : undefined;
}

function isServerAddress(text: string): boolean {
  return splitServerAddress(text) !== undefined;
}
