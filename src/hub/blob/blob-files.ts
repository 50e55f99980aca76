// Containers and blobs as folders and files: each blob is one file, whole or absent, with its properties in front.

import { randomUUID } from "node:crypto";
import { link, mkdir, open, readdir, rename, rm, stat, unlink, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { flushFolder } from "../../base/atomic-file.ts";
import { openNewFile, type NewFile } from "../../store/write-large-file.ts";
import { BlobError } from "./blob-error.ts";

/** Properties stand in the first 4 KiB of a file as JSON, padded with spaces; the content follows. */
const headBytes = 4096;
const suffix = ".blob";
const temporaryFolder = ".tmp";
const nameCharsMax = 1024;
const fileNameBytesMax = 255;

export interface BlobFacts {
  readonly name: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  /** With its quotes. */
  readonly etag: string;
  readonly contentType: string;
  readonly contentMd5: string | undefined;
}

const headShape = z.object({
  format: z.literal(1),
  name: z.string(),
  modifiedMs: z.number(),
  etag: z.string(),
  contentType: z.string(),
  contentMd5: z.string().exactOptional(),
});

export interface OpenBlob extends AsyncDisposable {
  readonly facts: BlobFacts;
  /** Fills as much of `into` as the file has from `offset` of the content. */
  read(offset: number, into: Uint8Array): Promise<number>;
}

/** All accounts live under one root: <root>/<account>/<container>/<encoded blob name>. */
export class BlobFiles {
  readonly #root: string;

  private constructor(root: string) {
    this.#root = root;
  }

  /** Removes what a crash left half written. */
  static async open(root: string): Promise<BlobFiles> {
    await mkdir(root, { recursive: true, mode: 0o700 });
    await rm(join(root, temporaryFolder), { recursive: true, force: true });
    await mkdir(join(root, temporaryFolder), { mode: 0o700 });
    await flushFolder(root);
    return new BlobFiles(root);
  }

  async createContainer(account: string, container: string): Promise<"created" | "exists"> {
    const path = join(this.#root, account, container);
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return "exists";
    await flushMade(path, first);
    return "created";
  }

  async hasContainer(account: string, container: string): Promise<boolean> {
    return (await this.containerTimeMs(account, container)) !== undefined;
  }

  /** Names, in order. */
  async containers(account: string): Promise<readonly string[]> {
    const entries = (await absentAsUndefined(async () => await readdir(join(this.#root, account), { withFileTypes: true }))) ?? [];
    return entries.flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort();
  }

  /** With everything in it; repeatable. */
  async removeAccount(account: string): Promise<void> {
    await rm(join(this.#root, account), { recursive: true, force: true });
  }

  /** When anything was last put right into it or made in it; undefined when there is none. */
  async containerTimeMs(account: string, container: string): Promise<number | undefined> {
    return (await absentAsUndefined(async () => await stat(join(this.#root, account, container))))?.mtimeMs;
  }

  /** False when there is none. */
  async removeContainer(account: string, container: string): Promise<boolean> {
    const doomed = join(this.#root, temporaryFolder, randomUUID());
    const moved = await absentAsUndefined(async () => {
      await rename(join(this.#root, account, container), doomed);
      await flushFolder(join(this.#root, account));
      return true;
    });
    if (moved === undefined) return false;
    await rm(doomed, { recursive: true });
    return true;
  }

  /** A file for a blob's content, not yet visible. */
  async begin(facts: Omit<BlobFacts, "sizeBytes">, sizeBytes: number): Promise<PendingBlob> {
    const { name, modifiedMs, etag, contentType, contentMd5 } = facts;
    const head = Buffer.alloc(headBytes, " ");
    const text = JSON.stringify({ format: 1, name, modifiedMs, etag, contentType, ...(contentMd5 === undefined ? {} : { contentMd5 }) });
    if (head.write(text, "utf8") !== Buffer.byteLength(text)) throw new BlobError("InvalidHeaderValue", "The properties are too long.");
    const path = join(this.#root, temporaryFolder, randomUUID());
    const file = await openNewFile(path, headBytes + sizeBytes);
    await file.append(head);
    return { path, file };
  }

  async discard(pending: PendingBlob): Promise<void> {
    await pending.file[Symbol.asyncDispose]();
    await absentAsUndefined(async () => await unlink(pending.path));
  }

  /** Makes the blob visible; it is durable on return. "exists" only with onlyNew. */
  async publish(pending: PendingBlob, place: BlobPlace, mode: "onlyNew" | "replace"): Promise<"stored" | "exists"> {
    await pending.file.finish();
    const path = this.#pathOf(place);
    const first = await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    if (first !== undefined) await flushMade(dirname(path), first);
    try {
      if (mode === "replace") await rename(pending.path, path);
      else await link(pending.path, path);
    } catch (error) {
      if (codeOf(error) === "EEXIST") return "exists";
      throw error;
    }
    await flushFolder(dirname(path));
    return "stored";
  }

  async openBlob(place: BlobPlace): Promise<OpenBlob | undefined> {
    const file = await absentAsUndefined(async () => await open(this.#pathOf(place), "r"));
    if (file === undefined) return undefined;
    try {
      return await toOpenBlob(file);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async facts(place: BlobPlace): Promise<BlobFacts | undefined> {
    await using blob = await this.openBlob(place);
    return blob?.facts;
  }

  /** False when there is none. */
  async remove(place: BlobPlace): Promise<boolean> {
    const path = this.#pathOf(place);
    const removed = await absentAsUndefined(async () => {
      await unlink(path);
      await flushFolder(dirname(path));
      return true;
    });
    return removed ?? false;
  }

  /** Names that start with `prefix` and are not before `from`, in order. */
  async *names(account: string, container: string, prefix: string, from: string): AsyncGenerator<string, void, undefined> {
    yield* this.#walk(join(this.#root, account, container), "", { prefix, from });
  }

  async *#walk(folder: string, above: string, range: { prefix: string; from: string }): AsyncGenerator<string, void, undefined> {
    const entries = (await absentAsUndefined(async () => await readdir(folder, { withFileTypes: true }))) ?? [];
    const parts = entries.map((entry) =>
      entry.isDirectory() ? `${decodeSegment(entry.name)}/` : decodeSegment(entry.name.slice(0, -suffix.length)),
    );
    for (const part of parts.sort()) {
      const name = above + part;
      const isFolder = part.endsWith("/");
      if (!name.startsWith(range.prefix) && !(isFolder && range.prefix.startsWith(name))) continue;
      if (name < range.from && !(isFolder && range.from.startsWith(name))) continue;
      if (isFolder) yield* this.#walk(join(folder, encodeSegment(part.slice(0, -1))), name, range);
      else yield name;
    }
  }

  #pathOf({ account, container, name }: BlobPlace): string {
    const segments = name.split("/").map(encodeSegment);
    if (name === "" || name.length > nameCharsMax || segments.some((segment) => segment.length + suffix.length > fileNameBytesMax))
      throw new BlobError("InvalidUri", "The blob's name is empty or too long.");
    return join(this.#root, account, container, ...segments) + suffix;
  }
}

export interface PendingBlob {
  readonly path: string;
  readonly file: NewFile;
}

export interface BlobPlace {
  readonly account: string;
  readonly container: string;
  readonly name: string;
}

async function toOpenBlob(file: FileHandle): Promise<OpenBlob> {
  const head = Buffer.alloc(headBytes);
  const { bytesRead } = await file.read(head, 0, headBytes, 0);
  const fileBytes = (await file.stat()).size;
  if (bytesRead !== headBytes) throw new BlobError("InternalError", "The stored blob is damaged.");
  const { name, modifiedMs, etag, contentType, contentMd5 } = headShape.parse(JSON.parse(head.toString("utf8")));
  return {
    facts: { name, modifiedMs, etag, contentType, contentMd5, sizeBytes: fileBytes - headBytes },
    read: async (offset, into) => (await file.read(into, 0, into.length, headBytes + offset)).bytesRead,
    [Symbol.asyncDispose]: async () => await file.close(),
  };
}

/** A part of a name as a file name: no dots, no case that a filesystem could fold, never empty. */
function encodeSegment(segment: string): string {
  if (segment === "") return "%";
  return segment.replace(/[^a-z0-9_-]/gu, (char) =>
    [...Buffer.from(char, "utf8")].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""),
  );
}

function decodeSegment(fileName: string): string {
  return fileName === "%" ? "" : decodeURIComponent(fileName);
}

async function flushMade(path: string, first: string): Promise<void> {
  for (let made = path; made.length >= first.length; made = dirname(made)) await flushFolder(dirname(made));
}

async function absentAsUndefined<T>(task: () => Promise<T>): Promise<T | undefined> {
  try {
    return await task();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}
