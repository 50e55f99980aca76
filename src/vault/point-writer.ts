// One recovery point in the making: takes ids, blocks and patches, then seals pages and point in the order of the format page.

import { hash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import type { DiskId, PackId } from "../contract/ids.ts";
import { blockIdOf, digestGranules, digestRowBytes, rowIdOf } from "../disk/block-id.ts";
import { asBuffer, equalBytes, idFromHex, isZeroId, toHex, zeroId } from "../disk/digest.ts";
import { blockBytes, blockCountOf, granuleBytes, granulesPerBlock, idsPerPage } from "../disk/geometry.ts";
import { findLeafPage, idAt, updateTree } from "../disk/page-tree.ts";
import { changedGranulesMax } from "./change-granules.ts";
import { ChangedIds } from "./changed-ids.ts";
import type { Entries } from "./entries.ts";
import type { EntryWriter } from "./entry-writer.ts";
import type { EntryReader } from "./entry-reader.ts";
import type { PointClaims } from "./point-claims.ts";
import { changedGranules, type ChangedGranule } from "./patch.ts";
import { toPointText, type StoredPoint } from "./point-format.ts";
import { decompressLarge, paysPacked, viewFrame } from "./zstd.ts";
import type { BlockId, PointDisk, PointWriter, RecoveryPoint, SealOutcome, SentBlock, SentGranules } from "./vault.ts";

/** A disk of the point, with the tree that it starts from. */
export interface WriterDisk extends Omit<PointDisk, "root"> {
  readonly parent: { readonly root: string; readonly sizeBytes: number };
}

export interface PointWriterOptions {
  readonly entries: Entries;
  readonly reader: EntryReader;
  readonly claims: PointClaims;
  readonly writer: EntryWriter;
  readonly disks: readonly WriterDisk[];
  /** A local folder for what is too much for memory, and a name in it that nobody else uses. */
  readonly scratch: { readonly folder: string | undefined; readonly name: string };
  /** The point as it will be sealed, given its packs. */
  readonly compose: (
    disks: readonly PointDisk[],
    facts: Pick<RecoveryPoint, "timeMs" | "consistency">,
  ) => (packIds: readonly PackId[]) => SealingPoint;
  /** Puts the point object; answers its stored size. */
  readonly seal: (point: SealingPoint) => Promise<number>;
  readonly onClose: () => void;
}

/** Pages that are made before others may run. */
const pagesAtOnce = 64;

type SealingPoint = Omit<StoredPoint, "generation">;

interface DiskState {
  readonly disk: WriterDisk;
  readonly blockCount: number;
  readonly changed: ChangedIds;
  /** Blocks whose content is on its way. */
  readonly chains: Map<number, BlockChain>;
  /** Blocks whose present id need() was asked about and answered "have it" for that reason alone. */
  readonly unchanged: Set<number>;
}

/** Writes to one block, one after the other: a patch stands on the result of the write before it. */
interface BlockChain {
  last: Promise<void>;
  /** The block was set anew meanwhile: what the chain still brings is void. */
  isVoid: boolean;
}

/** A block of which granules came, and which ones of the sent. */
interface CutBlock {
  readonly block: number;
  readonly first: number;
  readonly granuleCount: number;
}
interface BasedBlock extends CutBlock {
  /** What it has now. */
  readonly baseId: Uint8Array;
}

export class VaultPointWriter implements PointWriter {
  readonly #options: PointWriterOptions;
  readonly #disks: ReadonlyMap<DiskId, DiskState>;
  #phase: "open" | "sealing" | "closed" = "open";

  constructor(options: PointWriterOptions) {
    this.#options = options;
    this.#disks = new Map(
      options.disks.map((disk, index) => {
        const blockCount = blockCountOf(disk.sizeBytes);
        const pageCount = Math.ceil(blockCount / idsPerPage);
        const { folder: scratchFolder, name } = options.scratch;
        const changed = new ChangedIds({ pageCount, scratchFolder, scratchName: `${name}-${index}` });
        return [disk.diskId, { disk, blockCount, changed, chains: new Map(), unchanged: new Set() }];
      }),
    );
  }

  async need(diskId: DiskId, firstBlock: number, ids: readonly BlockId[]): Promise<readonly boolean[]> {
    if (ids.length > 0) this.#stateOf(diskId, firstBlock + ids.length - 1);
    const state = this.#stateOf(diskId, firstBlock);
    const isUnchanged = await this.#findUnchanged(state, firstBlock, ids);
    await this.#options.entries.prefetch(
      "block",
      ids.filter((_, index) => isUnchanged[index] !== true),
    );
    return ids.map((id, index) => isUnchanged[index] !== true && !this.#isOwn(id));
  }

  setBlock(diskId: DiskId, block: number, id: BlockId): void {
    const state = this.#stateOf(diskId, block);
    const wasUnchanged = state.unchanged.delete(block);
    if (!wasUnchanged && !this.#isOwn(id))
      throw new Fault("InputInvalid", "could not set a block: the vault does not have this content", {
        evidence: { diskId, block, id: toHex(id) },
      });
    voidChain(state, block);
    state.changed.set(block, id);
  }

  async putBlock(diskId: DiskId, block: number, id: BlockId, bytes: Uint8Array, packing: "raw" | "zstd" = "raw"): Promise<void> {
    const state = this.#stateOf(diskId, block);
    const content = packing === "raw" ? bytes : viewFrame(bytes, blockBytes);
    const row = new Uint8Array(digestRowBytes);
    if (content?.length === blockBytes) digestGranules(content, row);
    if (content?.length !== blockBytes || !equalBytes(rowIdOf(row), id)) throw damagedBlock(diskId, { block, id, bytes, packing });
    voidChain(state, block);
    const { writer } = this.#options;
    if (isZeroId(id) || writer.isStored("block", id)) return state.changed.set(block, id);
    const isFrame = packing === "zstd" && paysPacked(bytes.length, blockBytes);
    const kept = isFrame || packing === "raw" ? bytes : Uint8Array.from(content);
    await runInChains(state, [{ block }], async () => {
      if (isFrame) await writer.storeFrame(id, kept, row);
      else await writer.store("block", id, kept);
      return [id];
    });
  }

  async putBlocks(diskId: DiskId, blocks: readonly SentBlock[]): Promise<void> {
    const states = blocks.map(({ block }) => this.#stateOf(diskId, block));
    const [state] = states;
    if (state === undefined) return;
    const damaged = (sent: SentBlock): Fault => damagedBlock(diskId, sent);
    const worthStoring = blocks.map((sent) => withoutPoorPacking(sent, damaged));
    const ids = blocks.map(({ id }) => id);
    await runInNewChains(state, blocks, async () => {
      await this.#options.entries.prefetch("block", ids);
      await this.#options.writer.storeSent(worthStoring, damaged);
    });
  }

  async changeGranules(diskId: DiskId, sent: SentGranules): Promise<void> {
    const blocks = cutBlocks(diskId, sent);
    const state = this.#stateOf(diskId, blocks.at(-1)?.block ?? -1);
    const damaged = (): Fault => damagedGranules(diskId, sent);
    await runInChains(state, blocks, async () => {
      const based = await this.#withBases(state, blocks);
      const ids = await this.#options.writer.change(sent, based, damaged);
      const left = based.filter((_, index) => ids[index] === undefined);
      if (left.length === 0) return ids;
      const plain = plainOf(sent) ?? fail(damaged());
      return await Promise.all(based.map(async (block, index) => ids[index] ?? (await this.#changeSeen(block, sent, plain))));
    });
  }

  async blockIds(diskId: DiskId, firstBlock: number, count: number): Promise<readonly BlockId[]> {
    const blocks = Array.from({ length: count }, (_, index) => ({ block: firstBlock + index }));
    const state = this.#stateOf(diskId, firstBlock + count - 1);
    await Promise.all(blocks.map(async ({ block }) => await state.chains.get(block)?.last));
    return (await this.#withBases(state, blocks)).map(({ baseId }) => baseId);
  }

  async changeableRows(diskId: DiskId, blocks: readonly number[]): Promise<readonly (Uint8Array | undefined)[]> {
    if (blocks.length === 0) return [];
    const state = this.#stateOf(diskId, Math.max(...blocks));
    const based = await this.#withBases(
      state,
      blocks.map((block) => ({ block })),
    );
    return await this.#options.writer.changeableRows(based.map(({ baseId }) => baseId));
  }

  async seal({ timeMs, consistency, expectedRoots = [] }: Parameters<PointWriter["seal"]>[0]): Promise<SealOutcome> {
    assert(this.#phase === "open", "a point is sealed once");
    for (const { chains } of this.#disks.values()) assert(chains.size === 0, "a point is sealed when its blocks are taken");
    this.#phase = "sealing";
    const { writer, compose, seal } = this.#options;
    const disks: PointDisk[] = [];
    for (const state of this.#disks.values()) {
      const { parent: _, ...disk } = state.disk;
      disks.push({ ...disk, root: toHex(await this.#storePages(state)) });
    }
    refuseOtherRoots(disks, expectedRoots);
    const pointOf = compose(disks, { timeMs, consistency });
    await writer.finish((packIds) => toPointText(pointOf(packIds)));
    const stored = pointOf(writer.packIds);
    const storedBytes = writer.storedBytes + (await seal(stored));
    return { point: stored.point, storedBytes, sharedBytes: writer.sharedBytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    await this.#options.writer[Symbol.asyncDispose]();
    for (const { changed } of this.#disks.values()) changed[Symbol.dispose]();
    this.#options.onClose();
  }

  #stateOf(diskId: DiskId, block: number): DiskState {
    assert(this.#phase === "open", "a point under way is open");
    this.#options.writer.throwIfFailed();
    const state = this.#disks.get(diskId);
    if (state === undefined)
      throw new Fault("InputInvalid", "could not take a block: the point has no such disk", { evidence: { diskId } });
    if (!Number.isInteger(block) || block < 0 || block >= state.blockCount)
      throw new Fault("InputInvalid", "could not take a block: it lies outside its disk", {
        evidence: { diskId, block, blockCount: state.blockCount },
      });
    return state;
  }

  /** Whether this machine may be told that the vault has the content. */
  #isOwn(id: BlockId): boolean {
    return isZeroId(id) || this.#options.claims.claimOwn("block", id);
  }

  /** Which blocks have these ids already, in this point or the one before. */
  async #findUnchanged(state: DiskState, firstBlock: number, ids: readonly BlockId[]): Promise<readonly boolean[]> {
    if (isZeroId(idFromHex(state.disk.parent.root))) return [];
    const present = await this.#withBases(
      state,
      ids.map((_, index) => ({ block: firstBlock + index })),
    );
    return present.map(({ block, baseId }, index) => {
      const isSame = equalBytes(baseId, ids[index] ?? zeroId);
      if (isSame) state.unchanged.add(block);
      return isSame;
    });
  }

  /** Looks at what the block had, where that cannot be done without. */
  async #changeSeen({ baseId, first, granuleCount }: BasedBlock, sent: SentGranules, plain: Uint8Array): Promise<Uint8Array> {
    const { reader, writer } = this.#options;
    const content = isZeroId(baseId) ? Buffer.alloc(blockBytes) : await reader.loadOwn("block", baseId);
    for (const { index, bytes } of granulesOf(sent, plain, { first, granuleCount })) content.set(bytes, index * granuleBytes);
    const id = blockIdOf(content);
    // Full: it cannot stand on what it had, or what that says of its granules is damaged and so ends here.
    if (!isZeroId(id) && !writer.isStored("block", id)) await writer.store("block", id, content);
    return id;
  }

  /** The ids that blocks have at the moment. */
  async #withBases<T extends { readonly block: number }>(
    state: DiskState,
    blocks: readonly T[],
  ): Promise<readonly (T & { readonly baseId: Uint8Array })[]> {
    const pages = new Map<number, Promise<Uint8Array | undefined>>();
    const pageOf = async (index: number): Promise<Uint8Array | undefined> => {
      const page = pages.get(index) ?? this.#leafPage(state, index);
      pages.set(index, page);
      return await page;
    };
    const based: (T & { readonly baseId: Uint8Array })[] = [];
    for (const each of blocks) {
      const changed = state.changed.get(each.block);
      const page = changed === undefined ? await pageOf(Math.floor(each.block / idsPerPage)) : undefined;
      const id = changed ?? (page === undefined ? zeroId : idAt(page, each.block % idsPerPage));
      based.push({ ...each, baseId: Uint8Array.from(id) });
    }
    return based;
  }

  /** Ids of 128 blocks as they were in the point before; undefined for zeros. */
  async #leafPage(state: DiskState, pageIndex: number): Promise<Uint8Array | undefined> {
    const { root, sizeBytes } = state.disk.parent;
    const tree = { root: idFromHex(root), blockCount: blockCountOf(sizeBytes), loadPage: this.#loadPage };
    return await findLeafPage(tree, pageIndex);
  }

  async #storePages(state: DiskState): Promise<Uint8Array> {
    const { writer, entries, reader } = this.#options;
    let pageCount = 0;
    return await updateTree({
      root: idFromHex(state.disk.parent.root),
      blockCountBefore: blockCountOf(state.disk.parent.sizeBytes),
      blockCount: state.blockCount,
      changes: state.changed,
      loadPage: this.#loadPage,
      emitPage: async ({ id, page }, replaced) => {
        reader.remember("page", id, asBuffer(page)); // The next point begins with them.
        await entries.prefetch("page", [id]);
        // Pages come from memory to memory: without a pause nothing else would run until all are done.
        if (++pageCount % pagesAtOnce === 0) await new Promise((resolve) => setImmediate(resolve));
        if (writer.isStored("page", id)) return;
        await writer.store(
          "page",
          id,
          page,
          replaced === undefined ? undefined : { id: replaced.id, changed: changedGranules("page", replaced.page, page) },
        );
      },
    });
  }

  readonly #loadPage = async (id: Uint8Array): Promise<Uint8Array> => await this.#options.reader.load("page", id);
}

/** The blocks that are touched, each with its part of the sent granules. Throws InputInvalid. */
function cutBlocks(diskId: DiskId, { granules, bytes, packing }: SentGranules): readonly CutBlock[] {
  const blocks: { block: number; first: number; granuleCount: number }[] = [];
  let before = -1;
  for (const [index, granule] of granules.entries()) {
    const isRising = Number.isInteger(granule) && granule > before;
    if (!isRising || granules.length > changedGranulesMax || (packing === "raw" && bytes.length !== granules.length * granuleBytes))
      throw new Fault("InputInvalid", "could not change granules: they are not in order, too many, or have a wrong size", {
        evidence: { diskId, granules: granules.length, bytes: bytes.length },
      });
    before = granule;
    const block = Math.floor(granule / granulesPerBlock);
    const last = blocks.at(-1);
    if (last?.block === block) last.granuleCount += 1;
    else blocks.push({ block, first: index, granuleCount: 1 });
  }
  return blocks;
}

/** Undefined when they do not unpack, or have another digest. */
function plainOf({ granules, bytes, packing, digest }: SentGranules): Uint8Array | undefined {
  const plain = packing === "raw" ? bytes : decompressLarge(bytes, granules.length * granuleBytes);
  const isWhole = plain?.length === granules.length * granuleBytes;
  return isWhole && (digest === undefined || equalBytes(hash("sha256", plain, "buffer"), digest)) ? plain : undefined;
}

function granulesOf(sent: SentGranules, plain: Uint8Array, { first, granuleCount }: Omit<CutBlock, "block">): ChangedGranule[] {
  return sent.granules.slice(first, first + granuleCount).map((granule, index) => ({
    index: granule % granulesPerBlock,
    bytes: plain.subarray((first + index) * granuleBytes, (first + index + 1) * granuleBytes),
  }));
}

function fail(fault: Fault): never {
  throw fault;
}

function damagedGranules(diskId: DiskId, { granules, bytes, packing }: SentGranules): Fault {
  return new Fault("DataDamaged", "could not change granules: their bytes do not fit their digest", {
    evidence: { diskId, firstGranule: granules[0] ?? 0, granules: granules.length, bytes: bytes.length, packing },
    causes: damagedCauses,
    action: "look at the agent's log; the granules are sent again with the next point",
  });
}

function refuseOtherRoots(disks: readonly PointDisk[], expectedRoots: readonly { readonly diskId: DiskId; readonly root: string }[]): void {
  for (const expected of expectedRoots) {
    const root = disks.find(({ diskId }) => diskId === expected.diskId)?.root;
    if (root !== expected.root)
      throw new Fault("RootsDiffer", "could not seal a recovery point: source and replica have different roots", {
        evidence: { diskId: expected.diskId, sourceRoot: expected.root, replicaRoot: root ?? "no such disk" },
      });
  }
}

const damagedCauses = ["bytes were changed between the source's memory and here", "the sender is not an agent of this version"];

function damagedBlock(diskId: DiskId, { block, id, bytes, packing }: SentBlock): Fault {
  return new Fault("DataDamaged", "could not take a block: its bytes do not fit its digest", {
    evidence: { diskId, block, id: toHex(id), bytes: bytes.length, packing },
    causes: damagedCauses,
    action: "look at the agent's log; the block is sent again with the next point",
  });
}

/** A frame that saves hardly anything is not worth unpacking at every read. */
function withoutPoorPacking(sent: SentBlock, damaged: (sent: SentBlock) => Fault): SentBlock {
  if (sent.packing === "raw" || paysPacked(sent.bytes.length, blockBytes)) return sent;
  const content = viewFrame(sent.bytes, blockBytes);
  if (content === undefined) throw damaged(sent);
  return { ...sent, bytes: Uint8Array.from(content), packing: "raw" };
}

function voidChain(state: DiskState, block: number): void {
  const chain = state.chains.get(block);
  if (chain === undefined) return;
  chain.isVoid = true;
  state.chains.delete(block);
}

/** Runs `write`, which sets blocks anew: it waits for no write before it, and later ones wait for it. */
async function runInNewChains(state: DiskState, blocks: readonly SentBlock[], write: () => Promise<void>): Promise<void> {
  const chains = blocks.map(({ block, id }) => {
    voidChain(state, block);
    const chain: BlockChain = { last: Promise.resolve(), isVoid: false };
    state.chains.set(block, chain);
    return { block, id, chain };
  });
  const task = write().then(() => {
    for (const { block, id, chain } of chains) if (!chain.isVoid) state.changed.set(block, id);
  });
  for (const { chain } of chains) chain.last = task;
  try {
    await task;
  } finally {
    for (const { block, chain } of chains) if (chain.last === task && state.chains.get(block) === chain) state.chains.delete(block);
  }
}

/** Runs `write` after the writes to these blocks before it, then sets the ids that it gives. */
async function runInChains(
  state: DiskState,
  blocks: readonly { readonly block: number }[],
  write: () => Promise<readonly (Uint8Array | undefined)[]>,
): Promise<void> {
  const chains = blocks.map(({ block }) => {
    const chain = state.chains.get(block) ?? { last: Promise.resolve(), isVoid: false };
    state.chains.set(block, chain);
    return { block, chain, before: chain.last };
  });
  const task = Promise.all(new Set(chains.map(({ before }) => before))).then(async () => {
    const ids = await write();
    for (const [index, { block, chain }] of chains.entries()) {
      const id = ids[index];
      if (id !== undefined && !chain.isVoid) state.changed.set(block, id);
    }
  });
  for (const { chain } of chains) chain.last = task;
  try {
    await task;
  } finally {
    for (const { block, chain } of chains) if (chain.last === task && state.chains.get(block) === chain) state.chains.delete(block);
  }
}
