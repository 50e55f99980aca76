// Stores the entries of one point under way: packs fill, close and travel; nothing is stored twice.

import { assert } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import { parsePackId, type PackId } from "../contract/ids.ts";
import type { MachineEntries } from "./machine-entries.ts";
import { packKeyOf, type Pack } from "./pack.ts";
import { PackBuilder } from "./pack-builder.ts";
import type { PackQueue } from "./pack-queue.ts";
import { depthMax, encodePatch, type ChangedGranule, type EntryKind } from "./patch.ts";
import { createObjectSealer, saltBytes, type VaultSecret } from "./sealing.ts";
import { compressEntry } from "./zstd.ts";

export interface EntryWriterOptions {
  readonly entries: MachineEntries;
  readonly queue: PackQueue;
  readonly secret: VaultSecret;
  readonly random: Random;
  readonly packBytes: number;
}

interface OpenPack {
  readonly pack: Pack;
  readonly packNumber: number;
  readonly builder: PackBuilder;
}

export class EntryWriter implements AsyncDisposable {
  readonly #options: EntryWriterOptions;
  readonly #abort = new AbortController();
  readonly #packs: Pack[] = [];
  readonly #uploads = new Set<Promise<void>>();
  #open: OpenPack;
  #closing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #storedBytes = 0;

  constructor(options: EntryWriterOptions) {
    this.#options = options;
    this.#open = this.#begin();
  }

  /** Bytes of closed packs. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  /** Packs with entries, whether durable yet or not. */
  get packIds(): readonly PackId[] {
    return this.#packs.map(({ packId }) => packId);
  }

  /** Throws what broke an upload since. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Stores content under its id, which the caller has checked; as a patch on `base` where that pays. */
  async store(
    kind: EntryKind,
    id: Uint8Array,
    content: Uint8Array,
    base?: { readonly id: Uint8Array; readonly changed: readonly ChangedGranule[] },
  ): Promise<void> {
    const baseDepth = base === undefined ? depthMax : (this.#options.entries.find(kind, base.id)?.depth ?? depthMax);
    const patch = base === undefined || baseDepth >= depthMax ? undefined : encodePatch(kind, base.id, base.changed);
    const plain = patch ?? content;
    const packed = compressEntry(plain);
    await this.#append(
      {
        id,
        kind,
        form: patch === undefined ? "full" : "patch",
        method: packed === undefined ? "raw" : "zstd",
        depth: patch === undefined ? 0 : baseDepth + 1,
      },
      packed ?? plain,
    );
  }

  /** Stores a full block from the zstd frame that the caller has unpacked and checked. */
  async storeFrame(id: Uint8Array, frame: Uint8Array): Promise<void> {
    await this.#append({ id, kind: "block", form: "full", method: "zstd", depth: 0 }, frame);
  }

  async #append(entry: Parameters<PackBuilder["append"]>[0], plain: Uint8Array): Promise<void> {
    this.throwIfFailed();
    // While it waits, the compressor's output is overwritten by others.
    const kept = this.#open.builder.hasRoom(plain.length) ? plain : Uint8Array.from(plain);
    while (!this.#open.builder.hasRoom(plain.length)) {
      await this.#closePack();
      this.throwIfFailed();
    }
    const { entries } = this.#options;
    if (entries.find(entry.kind, entry.id) !== undefined) return; // Stored by another call meanwhile.
    const row = this.#open.builder.append(entry, kept);
    entries.setPlace(row.id, { ...row, packNumber: this.#open.packNumber });
  }

  /** Closes the open pack and returns when all packs are durable. Nothing may be stored at the same time. */
  async finish(): Promise<void> {
    while (!this.#open.builder.isEmpty) await this.#closePack();
    while (this.#uploads.size > 0) await Promise.all(this.#uploads);
    this.throwIfFailed();
  }

  /** Gives up what is not durable yet; after finish() there is nothing left to give up. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error("the point was given up"));
    await this.#closing?.catch(() => undefined); // Told to its callers.
    while (this.#uploads.size > 0) await Promise.all(this.#uploads);
    for (const pack of [...this.#packs, this.#open.pack]) if (pack.state === "pending") this.#options.entries.dropPack(pack);
  }

  /** Hands the open pack to the queue and begins the next. Calls at the same time share one closing. */
  async #closePack(): Promise<void> {
    this.#closing ??= this.#handOver().finally(() => (this.#closing = undefined));
    await this.#closing;
  }

  async #handOver(): Promise<void> {
    const { pack, builder } = this.#open;
    assert(!builder.isEmpty, "an empty pack is not closed");
    const bytes = builder.finish();
    this.#packs.push(pack);
    this.#open = this.#begin();
    this.#storedBytes += bytes.length;
    try {
      const { uploaded } = await this.#options.queue.accept(pack, bytes, this.#abort.signal);
      const tracked: Promise<void> = uploaded
        .catch((error: unknown) => void (this.#failure ??= { error }))
        .finally(() => this.#uploads.delete(tracked));
      this.#uploads.add(tracked);
    } catch (error) {
      this.#failure ??= { error };
      throw error;
    }
  }

  #begin(): OpenPack {
    const { random, entries, secret, packBytes } = this.#options;
    const packId = parsePackId(random.uuid());
    const key = packKeyOf(entries.machineId, packId);
    const salt = random.bytes(saltBytes);
    const sealer = createObjectSealer(secret, key, salt);
    const builder = new PackBuilder({ key, salt, sealer, entryBytesMax: packBytes });
    const pack: Pack = { packId, key, sealer, state: "pending", read: async (offset, length) => builder.read(offset, length) };
    return { pack, builder, packNumber: entries.addPack(pack) };
  }
}
