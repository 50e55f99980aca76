// Reads everything that recovery points rely on, each entry once, and says what is damaged: pack, offset, disk range, points.

import { forEachParallel } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import type { AreaId, DiskId } from "../contract/ids.ts";
import { idFromHex, isZeroId } from "../disk/digest.ts";
import { blockBytes, blockCountOf, idsPerPage } from "../disk/geometry.ts";
import { idAt, pageLevelsOf } from "../disk/page-tree.ts";
import type { DigestRows } from "./digest-rows.ts";
import type { Entries, FoundEntry } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import { EntrySet } from "./entry-set.ts";
import type { EntryKind } from "./patch.ts";
import type { StoredPoint } from "./point-format.ts";
import type { DamagedRange, VerificationReport, VerifyOptions } from "./vault.ts";

const damagedMax = 1000;
/** Blocks that are read together: 2 MiB. */
const batchBlocks = 32;

export interface VerifyParts {
  readonly entries: Entries;
  readonly readerOf: (areaIds: readonly AreaId[]) => EntryReader;
  readonly digestRowsOf: (areaIds: readonly AreaId[]) => DigestRows;
  readonly points: readonly StoredPoint[];
}

/** Throws only what is no damage: a store that does not answer, an abort. */
export async function verify(parts: VerifyParts, options: VerifyOptions): Promise<VerificationReport> {
  const verifying = new Verifying(parts, options);
  for (const [index, stored] of parts.points.entries()) {
    await verifying.verifyPoint(stored);
    options.onProgress?.({ donePoints: index + 1, pointCount: parts.points.length, readBlocks: verifying.readBlocks });
  }
  const { damaged, damagedCount, readBlocks } = verifying;
  return { pointCount: parts.points.length, readBlocks, damaged, damagedCount };
}

interface TreePlace {
  readonly stored: StoredPoint;
  readonly diskId: DiskId;
  readonly sizeBytes: number;
  readonly reader: EntryReader;
  readonly digestRows: DigestRows;
  readonly id: Uint8Array;
  readonly level: number;
  /** First block under the page. */
  readonly firstBlock: number;
}

class Verifying {
  readonly damaged: DamagedRange[] = [];
  damagedCount = 0;
  readBlocks = 0;
  readonly #entries: Entries;
  readonly #parts: VerifyParts;
  readonly #options: VerifyOptions;
  /** Blocks that were read and were whole, and pages with nothing but such blocks below. */
  readonly #whole = new EntrySet();
  readonly #findings = new Map<string, string>();

  constructor(parts: VerifyParts, options: VerifyOptions) {
    this.#parts = parts;
    this.#entries = parts.entries;
    this.#options = options;
  }

  async verifyPoint(stored: StoredPoint): Promise<void> {
    const reader = this.#parts.readerOf(stored.areaIds);
    const digestRows = this.#parts.digestRowsOf(stored.areaIds);
    await this.#entries.prepare(stored.areaIds);
    for (const { diskId, root, sizeBytes } of stored.point.disks) {
      const id = idFromHex(root);
      const level = pageLevelsOf(blockCountOf(sizeBytes));
      if (!isZeroId(id)) await this.#verifyPage({ stored, diskId, sizeBytes, reader, digestRows, id, level, firstBlock: 0 });
    }
  }

  /** Whether all below the page is whole. */
  async #verifyPage(place: TreePlace): Promise<boolean> {
    this.#options.signal?.throwIfAborted();
    const { reader, id, level, firstBlock } = place;
    const entry = this.#find("page", id);
    if (entry !== undefined && this.#whole.has(entry)) return true;
    const blocksBelow = idsPerPage ** level;
    const page = await this.#tryLoad(async () => await reader.load("page", id));
    if (typeof page === "string") return this.#note(place, { kind: "page", id, firstBlock, blockCount: blocksBelow, finding: page });
    const children = Array.from({ length: idsPerPage }, (_, slot) => ({
      id: Uint8Array.from(idAt(page, slot)),
      firstBlock: firstBlock + (slot * blocksBelow) / idsPerPage,
    })).filter((child) => !isZeroId(child.id));
    let isWhole = true;
    if (level === 1) isWhole = await this.#verifyBlocks(place, children);
    else
      await forEachParallel(children, level === 2 ? (this.#options.parallelMax ?? 4) : 1, async (child) => {
        if (!(await this.#verifyPage({ ...place, ...child, level: level - 1 }))) isWhole = false;
      });
    if (isWhole && entry !== undefined) this.#whole.add(entry);
    return isWhole;
  }

  async #verifyBlocks(place: TreePlace, blocks: readonly { readonly id: Uint8Array; readonly firstBlock: number }[]): Promise<boolean> {
    await this.#entries.prefetch(
      "block",
      blocks.map(({ id }) => id),
    );
    const fresh = blocks.filter(({ id }) => {
      const entry = this.#find("block", id);
      return entry === undefined || !(this.#whole.has(entry) || this.#findings.has(nameOf(entry)));
    });
    for (let at = 0; at < fresh.length; at += batchBlocks)
      await this.#readBlocks(
        place,
        fresh.slice(at, at + batchBlocks).map(({ id }) => id),
      );
    let isWhole = true;
    for (const { id, firstBlock } of blocks) {
      const entry = this.#find("block", id);
      if (entry !== undefined && this.#whole.has(entry)) continue;
      const finding = (entry === undefined ? undefined : this.#findings.get(nameOf(entry))) ?? "could not read a block: it is missing";
      isWhole = this.#note(place, { kind: "block", id, firstBlock, blockCount: 1, finding });
    }
    return isWhole;
  }

  /** Reads blocks together, and what packs say of their granules; when that fails, each by itself. */
  async #readBlocks({ reader, digestRows }: TreePlace, ids: readonly Uint8Array[]): Promise<void> {
    const read = async (some: readonly Uint8Array[]): Promise<void> => {
      await reader.loadMany("block", some, "forget");
      await digestRows.load(some);
    };
    const together = await this.#tryLoad(async () => await read(ids));
    for (const id of ids) {
      const finding = typeof together === "string" ? await this.#tryLoad(async () => await read([id])) : "";
      const entry = this.#find("block", id);
      if (entry === undefined) continue;
      if (typeof finding === "string" && finding !== "") this.#findings.set(nameOf(entry), finding);
      else this.#whole.add(entry);
      this.readBlocks += 1;
    }
  }

  async #tryLoad<T>(load: () => Promise<T>): Promise<T | string> {
    try {
      return await load();
    } catch (error) {
      if (error instanceof Fault && error.code === "DataDamaged") return error.message;
      throw error;
    }
  }

  #note(
    { stored, diskId, sizeBytes }: TreePlace,
    what: {
      readonly kind: EntryKind;
      readonly id: Uint8Array;
      readonly firstBlock: number;
      readonly blockCount: number;
      readonly finding: string;
    },
  ): false {
    const place = this.#entries.find(what.kind, what.id);
    const offset = what.firstBlock * blockBytes;
    this.damagedCount += 1;
    if (this.damaged.length < damagedMax)
      this.damaged.push({
        pointId: stored.point.pointId,
        diskId,
        offset,
        length: Math.min(what.blockCount * blockBytes, sizeBytes - offset),
        finding: what.finding,
        ...(place === undefined ? {} : { packKey: place.pack.key, packOffset: place.offset }),
      });
    return false;
  }

  #find(kind: EntryKind, id: Uint8Array): FoundEntry | undefined {
    return this.#entries.findWhole(kind, id, ({ state }) => state !== "dropped");
  }
}

function nameOf({ packNumber, ordinal }: FoundEntry): string {
  return `${packNumber} ${ordinal}`;
}
