// Moves what lives of some packs of one machine into new packs, and lets the old ones be removed once the new are durable.

import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { parsePackId, type AreaId, type MachineId, type PointId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import type { Entries } from "./entries.ts";
import type { EntrySet } from "./entry-set.ts";
import { openSeal, groupReads } from "./entry-reader.ts";
import type { EntryDigests } from "./granule-digests.ts";
import type { EntryPlace } from "./index-row.ts";
import { openStoredPack, packKeyOf, readDigests, readFromStore, unnumbered, type Pack } from "./pack.ts";
import { PackBuilder } from "./pack-builder.ts";
import { damagedPack, pointTextBytesMax, type PackRow } from "./pack-format.ts";
import { parsePointText } from "./point-format.ts";
import { createNewSealer, newSealHead, saltBytes, type VaultSecret } from "./sealing.ts";

/** How packs are made here. */
export interface PackMaker {
  readonly packBytes: number;
  readonly random: Random;
  readonly secret: VaultSecret;
}

export interface MoveOptions {
  readonly store: Store;
  readonly entries: Entries;
  readonly areaId: AreaId;
  readonly clock: Clock;
  readonly maker: PackMaker;
  /** All of one machine, in state draining. */
  readonly packs: readonly Pack[];
  readonly live: EntrySet;
  /** Points whose text moves too. */
  readonly pointIds: ReadonlySet<PointId>;
  /** Called for each pack whose entries all stand elsewhere, durably. */
  readonly remove: (pack: Pack) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

export interface Moved {
  readonly movedBytes: number;
  /** Keys of packs that could not be read; they stay as they are. */
  readonly damagedPacks: readonly string[];
}

interface LiveRow {
  readonly row: PackRow;
  readonly digests: EntryDigests;
  readonly place: EntryPlace;
}

export async function moveEntries(options: MoveOptions): Promise<Moved> {
  const { packs, signal } = options;
  const making = new Making(options);
  const damagedPacks: string[] = [];
  let waiting: Pack[] = [];
  const flush = async (): Promise<void> => {
    await making.flush();
    for (const pack of waiting) await options.remove(pack);
    waiting = [];
  };
  for (const pack of packs) {
    signal?.throwIfAborted();
    try {
      const { rows, texts } = await contentOf(options, pack);
      if (!making.hasRoomForTexts(texts)) await flush();
      making.addTexts(texts);
      for (const group of groupReads(rows)) {
        const [first, last] = [group[0]?.place, group.at(-1)?.place];
        assert(first !== undefined && last !== undefined, "a group has a first and a last");
        const bytes = await pack.read(first.offset, last.offset + last.length - first.offset);
        if (bytes === undefined) throw damagedPack(pack.key, "it is missing");
        for (const { row, digests, place } of group) {
          const at = place.offset - first.offset;
          const plain = openSeal(pack, place, bytes.subarray(at, at + place.length));
          if (!making.hasRoom(plain.length)) await flush();
          making.add(row, plain, digests);
        }
      }
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "DataDamaged") throw error;
      damagedPacks.push(pack.key);
      pack.state = "stored";
      continue;
    }
    waiting.push(pack);
  }
  await flush();
  return { movedBytes: making.movedBytes, damagedPacks };
}

/** What lives in a pack, in its order, and the texts of points that are still there: as the pack itself tells. */
async function contentOf(
  { store, maker, pointIds, live }: MoveOptions,
  pack: Pack,
): Promise<{ readonly rows: readonly LiveRow[]; readonly texts: readonly string[] }> {
  const { packId, areaId, key, sizeBytes, number } = pack;
  const opened = await openStoredPack({ store, secret: maker.secret }, { packId, areaId, key, sizeBytes });
  if (opened === undefined) throw damagedPack(key, "it is missing");
  const digests = await readDigests({ ...opened.pack, entryCount: opened.index.rows.length });
  if (digests === undefined) throw damagedPack(key, "it is missing");
  const rows = opened.index.rows
    .map((row, ordinal) => ({ row, digests: digests.of(ordinal), place: { ...row, packNumber: number } }))
    .filter((_, ordinal) => live.has({ packNumber: number, ordinal }));
  const texts = opened.index.pointsText.split("\n").filter((text) => {
    const stored = parsePointText(text);
    return stored !== undefined && pointIds.has(stored.point.pointId);
  });
  return { rows, texts };
}

/** The pack that is being made. */
class Making {
  readonly #options: MoveOptions;
  readonly #ownerId: MachineId;
  #open: { readonly pack: Pack; readonly builder: PackBuilder } | undefined;
  #rows: PackRow[] = [];
  #texts = new Set<string>();
  #textBytes = 0;
  movedBytes = 0;

  constructor(options: MoveOptions) {
    this.#options = options;
    const [first] = options.packs;
    assert(first !== undefined, "there is a pack to move");
    this.#ownerId = first.ownerId;
  }

  hasRoom(plainBytes: number): boolean {
    return this.#open === undefined || this.#open.builder.hasRoom(plainBytes);
  }

  hasRoomForTexts(texts: readonly string[]): boolean {
    return this.#textBytes + bytesOf(texts) <= pointTextBytesMax;
  }

  /** A text is of use only in a pack with entries; without any it is given up with its old pack. */
  addTexts(texts: readonly string[]): void {
    for (const text of texts) this.#texts.add(text);
    this.#textBytes += bytesOf(texts);
  }

  add(row: Omit<PackRow, "offset" | "length">, plain: Uint8Array, digests: EntryDigests): void {
    this.#open ??= this.#begin();
    const appended = this.#open.builder.append(row, plain, digests);
    this.#rows.push(appended);
    this.movedBytes += appended.length;
  }

  /** Durable, and known to readers and writers, on return. */
  async flush(): Promise<void> {
    const { store, entries, signal } = this.#options;
    if (this.#open !== undefined) {
      const { pack, builder } = this.#open;
      pack.entryBytes = builder.entryBytes;
      const { bytes, digestBytes } = await builder.finish([...this.#texts].join("\n"));
      // Its key is known from before: a listing that meets it must not take it for another writer's.
      entries.addPack(pack);
      try {
        await store.put(pack.key, bytes, signal);
      } catch (error) {
        entries.dropPack(pack);
        throw error;
      }
      pack.sizeBytes = bytes.length;
      pack.digestBytes = digestBytes;
      pack.pendingDigests = undefined;
      pack.state = "stored";
      pack.read = readFromStore(store, pack.key);
      for (const row of this.#rows) entries.addEntry(row, pack);
    }
    this.#open = undefined;
    this.#rows = [];
    this.#texts = new Set();
    this.#textBytes = 0;
  }

  #begin(): { readonly pack: Pack; readonly builder: PackBuilder } {
    const { maker, areaId, clock } = this.#options;
    const packId = parsePackId(maker.random.uuid());
    const key = packKeyOf(areaId, packId);
    const sealHead = newSealHead(maker.secret, maker.random.bytes(saltBytes));
    const sealer = createNewSealer(maker.secret, key, sealHead);
    const [ownerId, writtenAtMs] = [this.#ownerId, clock.nowMs()];
    const builder = new PackBuilder({ key, ownerId, writtenAtMs, sealHead, sealer, entryBytesMax: maker.packBytes });
    const pack: Pack = {
      ...{ packId, key, areaId, ownerId, writtenAtMs, sealer, sealHead, ...unnumbered, writer: this },
      sizeBytes: 0,
      entryBytes: 0,
      digestBytes: 0,
      pendingDigests: async () => await builder.digests(),
      state: "pending",
      read: async (offset, length) => await builder.read(offset, length),
    };
    return { pack, builder };
  }
}

function bytesOf(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0);
}
