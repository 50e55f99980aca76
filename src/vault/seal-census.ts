// Counts what a store holds by the key generation that seals it: an end of each object is read, nothing is opened.

import { forEachParallel } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import type { Store, StoreKey } from "../store/store.ts";
import type { Pack } from "./pack.ts";
import { parseTrailer, trailerBytes } from "./pack-format.ts";
import { parsePointHead, pointHeadBytes } from "./point-format.ts";

export interface CountOptions {
  readonly onProgress?: (progress: { readonly doneCount: number; readonly totalCount: number }) => void;
  readonly signal?: AbortSignal;
}

export interface SealCount {
  readonly generation: number;
  readonly packCount: number;
  readonly packBytes: number;
  readonly pointCount: number;
}

export interface SealCensus {
  /** By generation, the oldest first; those of which there is something. */
  readonly counts: readonly SealCount[];
  /** Objects that do not say what seals them. */
  readonly unreadableCount: number;
  /** The first of them. */
  readonly unreadableKeys: readonly StoreKey[];
}

const readsMax = 16;
const batchCount = 4096;
const keysMax = 20;

type Found = { readonly key: StoreKey; readonly sizeBytes: number };

/** Objects that are removed meanwhile do not count. What `known` packs say is not read again: packs never change. */
export async function countSeals(store: Store, known: Iterable<Pack>, options: CountOptions): Promise<SealCensus> {
  const { signal, onProgress = () => undefined } = options;
  const generationOf = new Map<StoreKey, number>();
  for (const { key, sealHead, state } of known) if (state === "stored" || state === "draining") generationOf.set(key, sealHead.generation);
  const counts = new Map<number, SealCount>();
  const unreadable: StoreKey[] = [];
  let unreadableCount = 0;
  let [doneCount, totalCount] = [0, 0];
  const add = (generation: number, kind: "pack" | "point", sizeBytes: number): void => {
    const { packCount, packBytes, pointCount } = counts.get(generation) ?? { packCount: 0, packBytes: 0, pointCount: 0 };
    const isPack = kind === "pack";
    const more = { packCount: packCount + (isPack ? 1 : 0), packBytes: packBytes + (isPack ? sizeBytes : 0) };
    counts.set(generation, { generation, ...more, pointCount: pointCount + (isPack ? 0 : 1) });
  };
  const look = async (kind: "pack" | "point", found: Found): Promise<void> => {
    signal?.throwIfAborted();
    try {
      const generation = generationOf.get(found.key) ?? (await readGeneration(store, kind, found, signal));
      if (generation !== undefined) add(generation, kind, found.sizeBytes);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "DataDamaged") throw error;
      unreadableCount += 1;
      if (unreadable.length < keysMax) unreadable.push(found.key);
    }
    doneCount += 1;
    onProgress({ doneCount, totalCount });
  };
  for (const kind of ["pack", "point"] as const) {
    for await (const batch of batchesOf(store.list(`${kind}s/`, signal))) {
      totalCount += batch.length;
      await forEachParallel(batch, readsMax, async (found) => await look(kind, found));
    }
  }
  const sorted = [...counts.values()].sort((one, other) => one.generation - other.generation);
  return { counts: sorted, unreadableCount, unreadableKeys: unreadable };
}

/** Undefined when the object was removed since it was listed. */
async function readGeneration(
  store: Store,
  kind: "pack" | "point",
  { key, sizeBytes }: Found,
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  const length = Math.min(sizeBytes, kind === "pack" ? trailerBytes : pointHeadBytes);
  const bytes = await store.get(key, { offset: kind === "pack" ? sizeBytes - length : 0, length }, signal);
  if (bytes === undefined) return undefined;
  return kind === "pack" ? parseTrailer(key, sizeBytes, bytes).sealHead.generation : parsePointHead(key, bytes).generation;
}

async function* batchesOf(found: AsyncIterable<Found>): AsyncGenerator<readonly Found[], void, undefined> {
  let batch: Found[] = [];
  for await (const each of found) {
    batch.push(each);
    if (batch.length < batchCount) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
