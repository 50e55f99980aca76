// IPv4 subnets for isolated networks: the machine's own address and a neighbour for us. Pure.

export interface GuestSubnet {
  readonly mac: string;
  /** The guest's address, undefined when any from the range will do. */
  readonly guestAddress: string | undefined;
  /** Our address on the bridge, also told as the router. */
  readonly ownAddress: string;
  /** A third address, of neither. */
  readonly otherAddress: string;
  readonly networkAddress: string;
  readonly prefixLength: number;
  readonly rangeFirst: string;
  readonly rangeLast: string;
  readonly netmask: string;
}

const defaultNetwork = "192.0.2.0/24"; // TEST-NET-1 (RFC 5737): no real network is hidden by it.

/** The subnet for a card. An address that is none, or a subnet too small, leads to the default. */
export function subnetFor(mac: string, address: string | undefined): GuestSubnet {
  const wanted = parseAddress(address);
  const { value, prefixLength } = wanted ?? parseAddress(defaultNetwork) ?? { value: 0, prefixLength: 24 };
  const mask = prefixMask(prefixLength);
  const network = (value & mask) >>> 0;
  const broadcast = (network | ~mask) >>> 0;
  const own = wanted !== undefined && value === network + 1 ? broadcast - 1 : network + 1;
  return {
    mac,
    guestAddress: wanted === undefined ? undefined : addressText(value),
    ownAddress: addressText(own),
    otherAddress: addressText([network + 2, network + 3].find((each) => each !== value) ?? network + 2),
    networkAddress: addressText(network),
    prefixLength,
    rangeFirst: addressText(wanted === undefined ? network + 10 : value),
    rangeLast: addressText(wanted === undefined ? broadcast - 10 : value),
    netmask: addressText(mask),
  };
}

function parseAddress(text: string | undefined): { readonly value: number; readonly prefixLength: number } | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text ?? "");
  if (match === null) return undefined;
  const octets = match.slice(1, 5).map(Number);
  const prefixLength = Number(match[5] ?? 24);
  if (octets.some((octet) => octet > 255) || prefixLength < 8 || prefixLength > 29) return undefined;
  return { value: octets.reduce((sum, octet) => sum * 256 + octet, 0), prefixLength };
}

function prefixMask(prefixLength: number): number {
  return (0xffff_ffff << (32 - prefixLength)) >>> 0;
}

function addressText(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}
