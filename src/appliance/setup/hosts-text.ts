// Lines of a hosts file, in and out: "address name name # remark".

import { isIP } from "node:net";
import { Fault } from "../../contract/errors.ts";

export interface HostLine {
  readonly name: string;
  readonly addresses: readonly string[];
}

const linesMax = 4096;
const namePattern = /^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$/;
/** A hosts file always has them, and they say nothing of the closed network. */
const ownNames = /^(?:localhost|ip6-|broadcasthost)/;

/** Each name once, its addresses in order. Lines of the machine itself are left out. Throws InputInvalid that names each wrong line. */
export function parseHostsText(text: string): readonly HostLine[] {
  const found = new Map<string, string[]>();
  const problems: string[] = [];
  const lines = text.split(/\r?\n/);
  if (lines.length > linesMax) throw new Fault("InputInvalid", "could not read the hosts lines: too many", { evidence: { linesMax } });
  for (const [index, line] of lines.entries()) {
    const [address = "", ...names] = line.replace(/#.*$/, "").trim().toLowerCase().split(/\s+/);
    if (address === "") continue;
    const wrong = names.find((name) => !namePattern.test(name));
    if (isIP(address) === 0) problems.push(`line ${index + 1}: ${address.slice(0, 80)} is not an address`);
    else if (names.length === 0) problems.push(`line ${index + 1}: no name after ${address}`);
    else if (wrong !== undefined) problems.push(`line ${index + 1}: ${wrong.slice(0, 80)} is not a name`);
    for (const name of names) {
      if (isOwn(address, name)) continue;
      const known = found.get(name) ?? [];
      if (!known.includes(address)) found.set(name, [...known, address]);
    }
  }
  if (problems.length > 0) {
    throw new Fault("InputInvalid", "could not read the hosts lines", {
      evidence: { problems: problems.slice(0, 20) },
      action: "write each line as: address name",
    });
  }
  return [...found].map(([name, addresses]) => ({ name, addresses }));
}

export function toHostsText(lines: readonly HostLine[]): string {
  return lines.flatMap(({ name, addresses }) => addresses.map((address) => `${address} ${name}\n`)).join("");
}

function isOwn(address: string, name: string): boolean {
  return ownNames.test(name) && (address.startsWith("127.") || address.startsWith("ff") || address.startsWith("fe") || address === "::1");
}
