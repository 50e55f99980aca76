// Stores the entries of one point under way: packs fill, close and travel; nothing is stored twice.

import { assert } from "../base/assert.ts";
import type { Random } from "../base/random.ts";
import { parsePackId, type PackId } from "../contract/ids.ts";
import type { MachineEntries } from "./machine-entries.ts";
import { packKeyOf, type Pack } from "./pack.ts";
import { PackBuilder } from "./pack-builder.ts";
import type { PackRow } from "./pack-format.ts";
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
    const patch = base === undefined ? undefined : encodePatch(kind, base.id, base.changed);
    while (!this.#open.builder.hasRoom((patch ?? content).length)) await this.#closePack();
    const baseDepth = base === undefined ? undefined : this.#depthToStandOn(kind, base.id);
    if (patch !== undefined && baseDepth !== undefined) return this.#append({ id, kind, form: "patch", depth: baseDepth + 1 }, patch);
    while (!this.#open.builder.hasRoom(content.length)) await this.#closePack();
    this.#append({ id, kind, form: "full", depth: 0 }, content);
  }

  /** Stores a full block from the zstd frame that the caller has unpacked and checked. */
  async storeFrame(id: Uint8Array, frame: Uint8Array): Promise<void> {
    while (!this.#open.builder.hasRoom(frame.length)) await this.#closePack();
    this.#append({ id, kind: "block", form: "full", depth: 0 }, frame, "zstd");
  }

  /**
   * Depth of an entry that a patch may stand on: durable, or in the open pack. Packs become durable in any order, so a
   * base in another pack under way could be missing after a crash while the patch on it is there.
   */
  #depthToStandOn(kind: EntryKind, baseId: Uint8Array): number | undefined {
    const place = this.#options.entries.find(kind, baseId);
    if (place === undefined || place.depth >= depthMax) return undefined;
    return place.packNumber === this.#open.packNumber || this.#options.entries.isDurable(place) ? place.depth : undefined;
  }

  /** The open pack has room for `plain`; nothing is awaited between that and this. */
  #append(entry: Pick<PackRow, "id" | "kind" | "form" | "depth">, plain: Uint8Array, packing: "raw" | "zstd" = "raw"): void {
    this.throwIfFailed();
    const { entries } = this.#options;
    if (entries.find(entry.kind, entry.id) !== undefined) return; // Stored by another call meanwhile.
    const packed = packing === "zstd" ? plain : compressEntry(plain);
    const row = this.#open.builder.append({ ...entry, method: packed === undefined ? "raw" : "zstd" }, packed ?? plain);
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
    this.throwIfFailed();
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
