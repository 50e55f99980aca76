// The page tree: 128 ids make a page, page ids make the next level, up to one root. Pure functions over ids.
//
// Level 0 is the row of block ids. A page of level n holds 128 ids of level n - 1; the last one is padded with zero
// ids. A page of zero ids has the zero id. There is always at least one level of pages; the root is the id of the
// only page of the last level. Disks of one size are equal exactly when their roots are.

import { digestBytes, idsPerPage } from "./geometry.ts";
import { asBuffer, idOf, isZeroId, toHex, zeroId } from "./digest.ts";

export const pageBytes = idsPerPage * digestBytes;

/** Levels of pages above the blocks of a disk: at least one. */
export function pageLevelsOf(blockCount: number): number {
  let levels = 1;
  for (let reach = idsPerPage; reach < blockCount; reach *= idsPerPage) levels += 1;
  return levels;
}

/** Root of a disk whose block ids are `ids`, 32 bytes each, in order: 64 hex digits. */
export function rootOfBlockIds(ids: Uint8Array): string {
  let level = parentIdsOf(ids);
  while (level.length > digestBytes) level = parentIdsOf(level);
  return toHex(level);
}

/** Ids of the pages above a row of ids; one zero id above no ids at all. */
export function parentIdsOf(ids: Uint8Array): Uint8Array {
  if (ids.length % digestBytes !== 0) throw new TypeError(`${ids.length} bytes are not whole ids`);
  const pageCount = Math.max(1, Math.ceil(ids.length / pageBytes));
  const parents = Buffer.alloc(pageCount * digestBytes);
  for (let page = 0; page < pageCount; page++) {
    const children = ids.subarray(page * pageBytes, (page + 1) * pageBytes);
    parents.set(idOf(padPage(children)), page * digestBytes);
  }
  return parents;
}

/** The id at `slot` of a page; a view, not a copy. */
export function idAt(page: Uint8Array, slot: number): Uint8Array {
  return page.subarray(slot * digestBytes, (slot + 1) * digestBytes);
}

/** Block ids that are written. */
export interface PageChanges {
  /** Indexes of the pages of level 1 that change, ascending, each once. */
  readonly pageIndexes: readonly number[];
  /** Writes the changed ids of one page into `page`, which holds the ids of before. */
  apply(pageIndex: number, page: Uint8Array): void;
}

/** Where the pages of an existing tree are read from. Never asked for the zero id. */
export type LoadPage = (id: Uint8Array) => Promise<Uint8Array>;

/** A page and its id. */
export interface TreePage {
  readonly id: Uint8Array;
  readonly page: Uint8Array;
}

/** Takes each page that the new tree has and the old tree had not in this place, children before parents. */
export type EmitPage = (page: TreePage, replaced: TreePage | undefined) => Promise<void> | void;

export interface TreeUpdate {
  /** Root of the tree to start from, and the count of blocks that it was built for. */
  readonly root: Uint8Array;
  readonly blockCountBefore: number;
  /** Blocks of the new tree; at least blockCountBefore. Blocks past the old end are zero. */
  readonly blockCount: number;
  readonly changes: PageChanges;
  readonly loadPage: LoadPage;
  readonly emitPage: EmitPage;
}

/** Root of the tree with `changes` applied. Pages without a change are shared, never loaded. */
export async function updateTree(update: TreeUpdate): Promise<Uint8Array> {
  const levels = pageLevelsOf(update.blockCount);
  let root = update.root;
  for (let level = pageLevelsOf(update.blockCountBefore); level < levels; level++) root = await liftRoot(root, update.emitPage);
  if (update.changes.pageIndexes.length === 0) return root;
  return await updatePage(update, { level: levels, index: 0, id: root, changed: update.changes.pageIndexes });
}

interface PagePlace {
  readonly level: number;
  readonly index: number;
  readonly id: Uint8Array;
  /** Indexes of changed pages of level 1 under this page, ascending. */
  readonly changed: readonly number[];
}

async function updatePage(update: TreeUpdate, place: PagePlace): Promise<Uint8Array> {
  const before = isZeroId(place.id) ? undefined : await update.loadPage(place.id);
  const page = Buffer.alloc(pageBytes);
  if (before !== undefined) page.set(before);
  if (place.level === 1) update.changes.apply(place.index, page);
  else
    for (const group of groupByChild(place)) {
      const child = await updatePage(update, { ...group, id: Buffer.from(idAt(page, group.slot)) });
      page.set(child, group.slot * digestBytes);
    }
  const id = idOf(page);
  if (!isZeroId(id) && Buffer.compare(id, place.id) !== 0)
    await update.emitPage({ id, page }, before === undefined ? undefined : { id: place.id, page: before });
  return id;
}

/** Finds the page of level 1 with this index; undefined when it holds zero ids only. */
export async function findLeafPage(
  tree: { readonly root: Uint8Array; readonly blockCount: number; readonly loadPage: LoadPage },
  pageIndex: number,
): Promise<Uint8Array | undefined> {
  const path = await findPagePath(tree, pageIndex);
  return path.length < pageLevelsOf(tree.blockCount) ? undefined : path.at(-1);
}

/** The pages from the root's down to the one of level 1 with this index: shorter where a page of zero ids, which none is stored for, ends it. */
export async function findPagePath(
  tree: { readonly root: Uint8Array; readonly blockCount: number; readonly loadPage: LoadPage },
  pageIndex: number,
): Promise<readonly Uint8Array[]> {
  if (pageIndex * idsPerPage >= tree.blockCount || isZeroId(tree.root)) return [];
  let page = await tree.loadPage(tree.root);
  const path = [page];
  for (let level = pageLevelsOf(tree.blockCount); level > 1; level--) {
    const slot = Math.floor(pageIndex / idsPerPage ** (level - 2)) % idsPerPage;
    const id = idAt(page, slot);
    if (isZeroId(id)) return path;
    page = await tree.loadPage(id);
    path.push(page);
  }
  return path;
}

function groupByChild(place: PagePlace): { level: number; index: number; slot: number; changed: number[] }[] {
  const pagesPerChild = idsPerPage ** (place.level - 2);
  const groups: { level: number; index: number; slot: number; changed: number[] }[] = [];
  for (const changed of place.changed) {
    const index = Math.floor(changed / pagesPerChild);
    const last = groups.at(-1);
    if (last?.index === index) last.changed.push(changed);
    else groups.push({ level: place.level - 1, index, slot: index % idsPerPage, changed: [changed] });
  }
  return groups;
}

async function liftRoot(root: Uint8Array, emitPage: EmitPage): Promise<Uint8Array> {
  if (isZeroId(root)) return zeroId;
  const page = Buffer.alloc(pageBytes);
  page.set(root);
  const id = idOf(page);
  await emitPage({ id, page }, undefined);
  return id;
}

function padPage(ids: Uint8Array): Uint8Array {
  if (ids.length === pageBytes) return asBuffer(ids);
  const page = Buffer.alloc(pageBytes);
  page.set(ids);
  return page;
}
