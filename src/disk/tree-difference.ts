// Which blocks two disks of one size differ in, by their page trees: pages that both have are never looked at.

import { equalBytes, isZeroId } from "./digest.ts";
import { idsPerPage } from "./geometry.ts";
import { idAt, pageBytes, pageLevelsOf, type LoadPage } from "./page-tree.ts";

export interface DifferingBlock {
  readonly block: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

export interface ComparedTrees {
  readonly before: Uint8Array;
  readonly after: Uint8Array;
  readonly blockCount: number;
  readonly loadPage: LoadPage;
}

const zeroPage: Uint8Array = Buffer.alloc(pageBytes);

/** In order of the blocks. The ids are copies. */
export async function* differingBlocks(trees: ComparedTrees): AsyncGenerator<DifferingBlock, void, undefined> {
  yield* below(trees, { level: pageLevelsOf(trees.blockCount), index: 0, before: trees.before, after: trees.after });
}

interface Place {
  readonly level: number;
  readonly index: number;
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

async function* below(trees: ComparedTrees, place: Place): AsyncGenerator<DifferingBlock, void, undefined> {
  if (equalBytes(place.before, place.after)) return;
  const before = await load(trees, place.before);
  const after = await load(trees, place.after);
  for (let slot = 0; slot < idsPerPage; slot++) {
    const [one, other] = [idAt(before, slot), idAt(after, slot)];
    if (equalBytes(one, other)) continue;
    const index = place.index * idsPerPage + slot;
    if (place.level === 1) yield { block: index, before: Buffer.from(one), after: Buffer.from(other) };
    else yield* below(trees, { level: place.level - 1, index, before: Buffer.from(one), after: Buffer.from(other) });
  }
}

async function load({ loadPage }: ComparedTrees, id: Uint8Array): Promise<Uint8Array> {
  return isZeroId(id) ? zeroPage : Buffer.from(await loadPage(id));
}
