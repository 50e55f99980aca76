// Writes the decisions of a topology in the forms that other systems read. Pure; what a form cannot say is listed, never bent.

import { isIP } from "node:net";
import type { Topology } from "./topology.ts";

/** A rendering and the entries that its form has no word for. */
export interface Rendering {
  readonly text: string;
  readonly omitted: readonly { readonly entry: string; readonly reason: string }[];
}

/** Names with their addresses, as lines of a hosts file, sorted so that two runs are equal. */
export function renderHosts(entries: readonly { readonly name: string; readonly addresses: readonly string[] }[]): string {
  const lines = entries.flatMap(({ name, addresses }) => addresses.map((address) => `${address}\t${name}`));
  return [...new Set(lines)]
    .toSorted()
    .map((line) => `${line}\n`)
    .join("");
}

/**
 * NO_PROXY of everything that goes directly. Only exact names, leading-dot suffixes and exact addresses mean the same to
 * curl, Node, Python and Go; ranges, "*" and "host:port" do not, and are left out.
 */
export function renderNoProxy(topology: Topology): Rendering {
  const ranges = directRanges(topology);
  return {
    text: [...directNames(topology), ...ranges.filter((range) => isIP(range) !== 0)].join(","),
    omitted: ranges
      .filter((range) => isIP(range) === 0)
      .map((entry) => ({ entry, reason: "NO_PROXY has no form for ranges that all programs read alike" })),
  };
}

/** The semicolon list of Windows proxy settings: "*.suffix", exact names, and ranges that end on an octet as "10.200.0.*". */
export function renderBypassList(topology: Topology): Rendering {
  const names = directNames(topology).map((name) => (name.startsWith(".") ? `*${name}` : name));
  const ranges = directRanges(topology).map((entry) => ({ entry, form: isIP(entry) === 0 ? octetWildcard(entry) : entry }));
  return {
    text: [...names, ...ranges.flatMap(({ form }) => form ?? [])].join(";"),
    omitted: ranges
      .filter(({ form }) => form === undefined)
      .map(({ entry }) => ({ entry, reason: "a bypass list has no form for a range that does not end on an octet" })),
  };
}

function directNames(topology: Topology): string[] {
  return [...new Set([...topology.privateNames, ...topology.siteNames])];
}

function directRanges(topology: Topology): string[] {
  return [...new Set([...topology.privateRanges.texts, ...topology.siteRanges.texts])];
}

function octetWildcard(range: string): string | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)\.\d+\/(8|16|24)$/.exec(range);
  if (match === null) return undefined;
  return `${match.slice(1, 1 + Number(match[4]) / 8).join(".")}.*`;
}
