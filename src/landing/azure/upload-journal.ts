// What of a disk was acknowledged by Azure: a file of fixed records, one a piece, so that a killed upload goes on where it was.

import { createHash } from "node:crypto";
import { open, readFile, type FileHandle } from "node:fs/promises";
import { digestBytes } from "../../disk/geometry.ts";

export interface SentPiece {
  readonly index: number;
  /** A bit for each granule of 4 KiB of the piece: it was sent. */
  readonly granules: Uint8Array;
  /** Ids of the page of the tree that the piece is: as it is at the recovery point, and as it was sent. */
  readonly pointPage: Uint8Array;
  readonly sentPage: Uint8Array;
}

export const granulesPerPiece = 2048;
const granuleMapBytes = granulesPerPiece / 8;
const checkBytes = 8;
const bodyBytes = 4 + granuleMapBytes + 2 * digestBytes;
const recordBytes = bodyBytes + checkBytes;

/** Belongs to one disk of Azure: another disk of the same name has another journal. */
export class UploadJournal implements AsyncDisposable {
  readonly sent: Map<number, SentPiece>;
  readonly #file: FileHandle;
  #endBytes: number;
  #appending: Promise<void> = Promise.resolve();

  private constructor(file: FileHandle, read: { readonly sent: Map<number, SentPiece>; readonly bytes: number }) {
    this.#file = file;
    this.sent = read.sent;
    this.#endBytes = read.bytes;
  }

  /** A record that a crash cut, and all after it, is dropped. */
  static async open(path: string): Promise<UploadJournal> {
    const text = await readFile(path).catch((error: unknown) => {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return Buffer.alloc(0);
      throw error;
    });
    const read = readRecords(text);
    const file = await open(path, text.length === 0 ? "w+" : "r+", 0o600);
    await file.truncate(read.bytes);
    return new UploadJournal(file, read);
  }

  /** Durable on return. */
  async add(piece: SentPiece): Promise<void> {
    const at = this.#endBytes;
    this.#endBytes += recordBytes;
    const record = toRecord(piece);
    this.#appending = this.#appending.then(async () => {
      await this.#file.write(record, 0, recordBytes, at);
      await this.#file.datasync();
    });
    await this.#appending;
    this.sent.set(piece.index, piece);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#appending.catch(() => undefined); // Who added was told.
    await this.#file.close();
  }
}

function toRecord({ index, granules, pointPage, sentPage }: SentPiece): Buffer {
  const record = Buffer.alloc(recordBytes);
  record.writeUInt32BE(index, 0);
  record.set(granules, 4);
  record.set(pointPage, 4 + granuleMapBytes);
  record.set(sentPage, 4 + granuleMapBytes + digestBytes);
  record.set(checkOf(record.subarray(0, bodyBytes)), bodyBytes);
  return record;
}

function readRecords(bytes: Buffer): { readonly sent: Map<number, SentPiece>; readonly bytes: number } {
  const sent = new Map<number, SentPiece>();
  let at = 0;
  for (; at + recordBytes <= bytes.length; at += recordBytes) {
    const body = bytes.subarray(at, at + bodyBytes);
    if (!checkOf(body).equals(bytes.subarray(at + bodyBytes, at + recordBytes))) break;
    sent.set(body.readUInt32BE(0), {
      index: body.readUInt32BE(0),
      granules: body.subarray(4, 4 + granuleMapBytes),
      pointPage: body.subarray(4 + granuleMapBytes, 4 + granuleMapBytes + digestBytes),
      sentPage: body.subarray(4 + granuleMapBytes + digestBytes),
    });
  }
  return { sent, bytes: at };
}

function checkOf(body: Uint8Array): Buffer {
  return createHash("sha256").update(body).digest().subarray(0, checkBytes);
}
