// Record data as it stands in DNS messages (RFC 1035, 2782), for types that the resolver takes only as bytes.

import { Fault } from "../../contract/errors.ts";

export type RecordData =
  | { readonly kind: "CNAME"; readonly target: string }
  | { readonly kind: "PTR"; readonly target: string }
  | { readonly kind: "MX"; readonly preference: number; readonly exchange: string }
  | { readonly kind: "SRV"; readonly priority: number; readonly weight: number; readonly port: number; readonly target: string }
  | { readonly kind: "TXT"; readonly texts: readonly string[] }
  | {
      readonly kind: "SOA";
      readonly host: string;
      readonly email: string;
      /** Serial, refresh, retry, expire, minimum. */
      readonly numbers: readonly number[];
    };

/** Numbers of the types, RFC 1035 3.2.2 and RFC 2782. */
export const recordTypeNumbers = { CNAME: 5, SOA: 6, PTR: 12, MX: 15, TXT: 16, SRV: 33 } as const;

const labelBytesMax = 63;
const nameBytesMax = 255;
const textBytesMax = 255;

// oxlint-disable-next-line typescript/consistent-return -- every kind answers; the compiler proves it
export function encodeRecordData(data: RecordData): Uint8Array {
  switch (data.kind) {
    case "CNAME":
    case "PTR":
      return encodeName(data.target);
    case "MX":
      return Buffer.concat([encodeShorts([data.preference]), encodeName(data.exchange)]);
    case "SRV":
      return Buffer.concat([encodeShorts([data.priority, data.weight, data.port]), encodeName(data.target)]);
    case "TXT":
      return Buffer.concat(data.texts.map(encodeText));
    case "SOA": {
      const numbers = Buffer.alloc(data.numbers.length * 4);
      for (const [index, value] of data.numbers.entries()) numbers.writeUInt32BE(value, index * 4);
      return Buffer.concat([encodeName(data.host), encodeName(data.email), numbers]);
    }
  }
}

function encodeName(name: string): Uint8Array {
  const labels = name
    .replace(/\.$/, "")
    .split(".")
    .map((label) => Buffer.from(label, "ascii"));
  const encoded = Buffer.concat([...labels.flatMap((label) => [Buffer.of(label.length), label]), Buffer.of(0)]);
  if (labels.every((label) => label.length > 0 && label.length <= labelBytesMax) && encoded.length <= nameBytesMax) return encoded;
  throw new Fault("InputInvalid", "could not save the DNS record: it names what is no host name", {
    evidence: { name: name.slice(0, 300) },
  });
}

function encodeText(text: string): Uint8Array {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length > textBytesMax)
    throw new Fault("InputInvalid", `could not save the DNS record: a text is longer than ${textBytesMax} bytes`, {
      evidence: { bytes: bytes.length },
    });
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}

function encodeShorts(values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(values.length * 2);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, index * 2);
  return bytes;
}
