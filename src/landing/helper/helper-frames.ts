// The frames between this program and the helper machine: two lengths, a head of words, a body. What comes from there is not trusted.

import { Fault } from "../../contract/errors.ts";

export const bodyBytesMax = 4 << 20;
const headBytesMax = 64 << 10;
const lengthsBytes = 8;

export interface HelperAnswer {
  /** ok; absent: no such file; failed: the first word says why. */
  readonly state: "ok" | "absent" | "failed";
  readonly words: readonly string[];
  readonly body: Buffer;
}

/** Words are separated by NUL, which none of them may hold. */
export function encodeRequest(words: readonly (string | Uint8Array)[], body: Uint8Array = new Uint8Array(0)): Buffer {
  const parts = words.map((word) => Buffer.from(word));
  const head = Buffer.concat(parts.flatMap((part, index) => (index === 0 ? [part] : [Buffer.alloc(1), part])));
  if (parts.some((part) => part.includes(0)) || head.length > headBytesMax || body.length > bodyBytesMax)
    throw new Fault("InputInvalid", "could not ask the helper machine: a path is too long or holds a NUL");
  const lengths = Buffer.alloc(lengthsBytes);
  lengths.writeUInt32BE(head.length, 0);
  lengths.writeUInt32BE(body.length, 4);
  return Buffer.concat([lengths, head, body]);
}

/** Keys of encrypted volumes, each behind its length. */
export function encodeKeys(keys: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    keys.flatMap((key) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(key.length, 0);
      return [length, key];
    }),
  );
}

/** Puts answers together from pieces as they come. */
export class AnswerReader {
  #held: Buffer[] = [];
  #heldBytes = 0;

  /** Throws Fault DataDamaged for what is no answer. */
  push(piece: Buffer): HelperAnswer | undefined {
    this.#held.push(piece);
    this.#heldBytes += piece.length;
    if (this.#heldBytes < lengthsBytes) return undefined;
    if ((this.#held[0]?.length ?? 0) < lengthsBytes) this.#held = [Buffer.concat(this.#held)];
    const [first = Buffer.alloc(0)] = this.#held;
    const headBytes = first.readUInt32BE(0);
    const bodyBytes = first.readUInt32BE(4);
    const wholeBytes = lengthsBytes + headBytes + bodyBytes;
    if (headBytes > headBytesMax || bodyBytes > 2 * bodyBytesMax || this.#heldBytes > wholeBytes) throw damagedAnswer();
    if (this.#heldBytes < wholeBytes) return undefined;
    const whole = Buffer.concat(this.#held);
    this.#held = [];
    this.#heldBytes = 0;
    const [state, ...words] = whole.toString("utf8", lengthsBytes, lengthsBytes + headBytes).split("\0");
    if (state !== "ok" && state !== "absent" && state !== "failed") throw damagedAnswer();
    return { state, words, body: whole.subarray(lengthsBytes + headBytes) };
  }
}

export interface HelperNode {
  readonly serial: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly linkCount: number;
  readonly sizeBytes: number;
  readonly modifiedAt: number;
  readonly major: number;
  readonly minor: number;
  /** Number of the filesystem that it stands in: each subvolume of btrfs counts its files anew. */
  readonly filesystem: number;
}

const nodeBytes = 56;

export function parseNode(bytes: Buffer): HelperNode {
  if (bytes.length < nodeBytes) throw damagedAnswer();
  return {
    serial: Number(bytes.readBigUInt64BE(0)),
    mode: bytes.readUInt32BE(8),
    uid: bytes.readUInt32BE(12),
    gid: bytes.readUInt32BE(16),
    linkCount: bytes.readUInt32BE(20),
    sizeBytes: Number(bytes.readBigUInt64BE(24)),
    modifiedAt: Number(bytes.readBigInt64BE(32)),
    major: bytes.readUInt32BE(40),
    minor: bytes.readUInt32BE(44),
    filesystem: Number(bytes.readBigUInt64BE(48)),
  };
}

/** Entries of a folder, one behind the other: node, length of the name, name. */
export function parseEntries(bytes: Buffer): readonly { readonly name: Buffer; readonly node: HelperNode }[] {
  const entries: { readonly name: Buffer; readonly node: HelperNode }[] = [];
  for (let at = 0; at < bytes.length;) {
    const node = parseNode(bytes.subarray(at));
    if (bytes.length < at + nodeBytes + 2) throw damagedAnswer();
    const end = at + nodeBytes + 2 + bytes.readUInt16BE(at + nodeBytes);
    const name = bytes.subarray(at + nodeBytes + 2, end);
    if (end > bytes.length || name.length === 0 || name.includes(0) || name.includes(0x2f)) throw damagedAnswer();
    entries.push({ name, node });
    at = end;
  }
  return entries;
}

export function damagedAnswer(): Fault {
  return new Fault("DataDamaged", "could not read the guest's files: the helper machine gave an answer that is none");
}
