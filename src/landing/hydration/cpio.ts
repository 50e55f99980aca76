// The cpio archive of initramfs images in its "newc" form: a writer and a bounded reader (kernel's buffer-format.rst).

export interface CpioEntry {
  /** Path without a leading slash. */
  readonly name: string;
  /** File type and permission bits, as in stat. */
  readonly mode: number;
  readonly content: Uint8Array;
}

export const cpioTypes = { mask: 0o170000, folder: 0o040000, file: 0o100000, link: 0o120000 } as const;

const headerBytes = 110;
const trailerName = "TRAILER!!!";
const nameBytesMax = 4_096;
const cpioMagic = "070701";
const checksumMagic = "070702";

/** One archive with its trailer, padded with zeros to a multiple of 512 bytes. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  const push = (bytes: Uint8Array, alignBytes: number) => {
    const paddingBytes = (alignBytes - ((sizeBytes + bytes.length) % alignBytes)) % alignBytes;
    pieces.push(bytes, new Uint8Array(paddingBytes));
    sizeBytes += bytes.length + paddingBytes;
  };
  for (const [index, entry] of entries.entries()) {
    push(encodeHeader(entry, index + 1), 4);
    push(entry.content, 4);
  }
  push(encodeHeader({ name: trailerName, mode: 0, content: new Uint8Array(0) }, 0), 512);
  return Buffer.concat(pieces);
}

function encodeHeader(entry: CpioEntry, inode: number): Buffer {
  const name = Buffer.from(`${entry.name}\0`);
  const linkCount = (entry.mode & cpioTypes.mask) === cpioTypes.folder ? 2 : 1;
  const fields = [inode, entry.mode, 0, 0, linkCount, 0, entry.content.length, 0, 0, 0, 0, name.length, 0];
  const hex = fields.map((value) => value.toString(16).padStart(8, "0")).join("");
  return Buffer.concat([Buffer.from(cpioMagic + hex, "latin1"), name]);
}

export type CpioReading =
  | { readonly kind: "read"; readonly entries: readonly CpioEntry[]; /** First byte behind the trailer. */ readonly end: number }
  | { readonly kind: "broken"; readonly at: number; readonly reason: string };

/** Reads one archive that starts at `from`. Contents are views of `bytes`. */
export function readCpio(bytes: Buffer, from = 0): CpioReading {
  const entries: CpioEntry[] = [];
  let at = from;
  for (;;) {
    if (at + headerBytes > bytes.length) return { kind: "broken", at, reason: "the archive ends inside a header" };
    const magic = bytes.toString("latin1", at, at + 6);
    if (magic !== cpioMagic && magic !== checksumMagic) return { kind: "broken", at, reason: "a header has another magic" };
    const mode = hexField(bytes, at, 1);
    const contentBytes = hexField(bytes, at, 6);
    const nameBytes = hexField(bytes, at, 11);
    if (mode === undefined || contentBytes === undefined || nameBytes === undefined)
      return { kind: "broken", at, reason: "a header holds other than hex digits" };
    const nameEnd = at + headerBytes + nameBytes;
    if (nameBytes < 2 || nameBytes > nameBytesMax || nameEnd > bytes.length || bytes[nameEnd - 1] !== 0)
      return { kind: "broken", at, reason: "a name is cut or too long" };
    const name = bytes.toString("utf8", at + headerBytes, nameEnd - 1);
    const contentAt = align(nameEnd, from);
    const end = contentAt + contentBytes;
    if (name === trailerName) return { kind: "read", entries, end: Math.min(bytes.length, contentAt) };
    if (end > bytes.length) return { kind: "broken", at, reason: "a content is cut" };
    entries.push({ name, mode, content: bytes.subarray(contentAt, end) });
    at = align(end, from);
  }
}

function align(offset: number, from: number): number {
  return from + Math.ceil((offset - from) / 4) * 4;
}

function hexField(bytes: Buffer, at: number, index: number): number | undefined {
  const text = bytes.toString("latin1", at + 6 + index * 8, at + 14 + index * 8);
  return /^[0-9a-fA-F]{8}$/.test(text) ? Number.parseInt(text, 16) : undefined;
}
