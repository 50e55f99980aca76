// Sets of addresses written as CIDR ranges, IPv4 and IPv6: parsed once, asked many times.

import { BlockList, isIP } from "node:net";

/** A set of addresses. */
export interface AddressRanges {
  readonly texts: readonly string[];
  contains(address: string): boolean;
}

/** Parses "10.200.0.0/24", "fd00::/8" and single addresses; throws TypeError that quotes the text. */
export function parseAddressRanges(texts: readonly string[]): AddressRanges {
  const list = new BlockList();
  for (const text of texts) addRange(list, text);
  return {
    texts,
    contains: (address) => {
      const family = isIP(address);
      return family !== 0 && list.check(address, family === 4 ? "ipv4" : "ipv6");
    },
  };
}

function addRange(list: BlockList, text: string): void {
  const [address = "", prefixText, ...rest] = text.split("/");
  const family = isIP(address);
  const bitsMax = family === 4 ? 32 : 128;
  const prefix = prefixText === undefined ? bitsMax : parsePrefix(prefixText);
  if (family === 0 || rest.length > 0 || prefix === undefined || prefix > bitsMax) {
    throw new TypeError(`not an address range: ${JSON.stringify(text.slice(0, 80))}`);
  }
  list.addSubnet(address, prefix, family === 4 ? "ipv4" : "ipv6");
}

function parsePrefix(text: string): number | undefined {
  return /^(0|[1-9]\d{0,2})$/.test(text) ? Number(text) : undefined;
}
