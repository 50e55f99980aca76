// Folders of a guest as a tar archive (POSIX pax), always the same bytes for the same recovery point: a download can go on where it broke.

import { Fault } from "../../contract/errors.ts";
import type { GuestFiles, GuestNode, NamedNode } from "./guest-files.ts";

const recordBytes = 512;
const octalMax = 8 ** 7 - 1;
const sizeMax = 8 ** 11 - 1;
const depthMax = 512;
/** Files with several names that are remembered; later ones come whole for each name. */
const linkedMax = 1_000_000;
const nameMax = 100;

export interface ArchiveWish {
  readonly files: GuestFiles;
  /** Each with its whole path, without a leading "/". */
  readonly entries: readonly NamedNode[];
}

/** From byte `from` on; content before it is not read. */
export async function* writeTar(wish: ArchiveWish, from: number, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
  const archive = new Archive(wish.files, from, signal);
  for (const entry of wish.entries) yield* archive.add(entry.name, entry.node, []);
  yield* archive.pass(Buffer.alloc(2 * recordBytes));
}

class Archive {
  readonly #files: GuestFiles;
  readonly #from: number;
  readonly #signal: AbortSignal | undefined;
  /** First name of each file that has several. */
  readonly #names = new Map<number, Buffer>();
  readonly #folders = new Set<number>();
  #at = 0;

  constructor(files: GuestFiles, from: number, signal: AbortSignal | undefined) {
    this.#files = files;
    this.#from = from;
    this.#signal = signal;
  }

  /** What of these bytes stands at or after the beginning that is wanted. */
  *pass(bytes: Uint8Array): Generator<Uint8Array, void, undefined> {
    const skipped = Math.max(0, this.#from - this.#at);
    this.#at += bytes.length;
    if (skipped < bytes.length) yield bytes.subarray(skipped);
  }

  async *add(path: Buffer, node: GuestNode, above: readonly number[]): AsyncGenerator<Uint8Array, void, undefined> {
    this.#signal?.throwIfAborted();
    if (node.kind === "socket") return; // Made by who listens on it; there is nothing in it.
    if (node.kind !== "folder") return yield* this.#addFile(path, node);
    if (above.length >= depthMax || above.includes(node.serial))
      throw new Fault("DataDamaged", "could not read the guest's files: a folder contains itself", { evidence: { inode: node.serial } });
    // A damaged folder with two parents, and another below it with two, would make an archive without end.
    if (this.#folders.has(node.serial))
      throw new Fault("DataDamaged", "could not read the guest's files: a folder stands in two others", {
        evidence: { inode: node.serial },
      });
    this.#folders.add(node.serial);
    if (path.length > 0) yield* this.pass(headOf({ path: Buffer.concat([path, slash]), node, type: "5", sizeBytes: 0 }));
    for await (const { name, node: child } of this.#files.list(node))
      yield* this.add(path.length === 0 ? name : Buffer.concat([path, slash, name]), child, [...above, node.serial]);
  }

  async *#addFile(path: Buffer, node: GuestNode): AsyncGenerator<Uint8Array, void, undefined> {
    const earlier = this.#names.get(node.serial);
    if (earlier !== undefined) return yield* this.pass(headOf({ path, node, type: "1", sizeBytes: 0, link: earlier }));
    if (node.linkCount > 1 && this.#names.size < linkedMax) this.#names.set(node.serial, path);
    if (node.kind === "link")
      return yield* this.pass(headOf({ path, node, type: "2", sizeBytes: 0, link: await this.#files.readLink(node) }));
    if (node.kind !== "file") {
      const type = node.kind === "pipe" ? "6" : node.device?.kind === "block" ? "4" : "3";
      return yield* this.pass(headOf({ path, node, type, sizeBytes: 0 }));
    }
    yield* this.pass(headOf({ path, node, type: "0", sizeBytes: node.sizeBytes }));
    yield* this.#addContent(node);
    yield* this.pass(Buffer.alloc((recordBytes - (node.sizeBytes % recordBytes)) % recordBytes));
  }

  async *#addContent(node: GuestNode): AsyncGenerator<Uint8Array, void, undefined> {
    const skipped = Math.min(node.sizeBytes, Math.max(0, this.#from - this.#at));
    this.#at += skipped;
    for await (const piece of this.#files.read(node, skipped)) {
      this.#signal?.throwIfAborted();
      yield* this.pass(piece);
    }
  }
}

const slash = Buffer.from("/");

interface Head {
  readonly path: Buffer;
  readonly node: GuestNode;
  readonly type: "0" | "1" | "2" | "3" | "4" | "5" | "6" | "x";
  readonly sizeBytes: number;
  readonly link?: Buffer;
}

/** The record of a file, and before it one with what has no room there. */
function headOf(head: Head): Buffer {
  const { path, node, link, sizeBytes } = head;
  const more: Buffer[] = [];
  const add = (key: string, value: Buffer | string): void => void more.push(extended(key, Buffer.from(value)));
  if (path.length > nameMax) add("path", path);
  if (link !== undefined && link.length > nameMax) add("linkpath", link);
  if (sizeBytes > sizeMax) add("size", String(sizeBytes));
  if (node.uid > octalMax) add("uid", String(node.uid));
  if (node.gid > octalMax) add("gid", String(node.gid));
  if (node.modifiedAt < 0 || node.modifiedAt > sizeMax) add("mtime", String(node.modifiedAt));
  const own = record(head);
  if (more.length === 0) return own;
  const text = Buffer.concat(more);
  const name = Buffer.from("PaxHeaders");
  const before = record({ path: name, node: { ...node, modifiedAt: 0 }, type: "x", sizeBytes: text.length });
  return Buffer.concat([before, text, Buffer.alloc((recordBytes - (text.length % recordBytes)) % recordBytes), own]);
}

/** "<length> <key>=<value>\n", where the length counts itself. */
function extended(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function record({ path, node, type, sizeBytes, link }: Head): Buffer {
  const bytes = Buffer.alloc(recordBytes);
  const octal = (value: number, at: number, digits: number): void => {
    const most = 8 ** digits - 1;
    bytes.write((value < 0 || value > most ? 0 : value).toString(8).padStart(digits, "0"), at, "latin1");
  };
  path.copy(bytes, 0, 0, nameMax);
  octal(node.mode, 100, 7);
  octal(node.uid, 108, 7);
  octal(node.gid, 116, 7);
  octal(sizeBytes, 124, 11);
  octal(node.modifiedAt, 136, 11);
  bytes.write(type, 156, "latin1");
  link?.copy(bytes, 157, 0, nameMax);
  bytes.write("ustar\u000000", 257, "latin1");
  octal(node.device?.major ?? 0, 329, 7);
  octal(node.device?.minor ?? 0, 337, 7);
  bytes.fill(0x20, 148, 156);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return bytes;
}
