// Entries that were read together are opened, unpacked and checked in threads, straight into their readers' memory where that is shared.

import { assert } from "../base/assert.ts";
import { digestBytes } from "../disk/geometry.ts";
import { isShared, openContentsMax, openSealedMax, type BlockPool } from "./block-pool.ts";
import type { LoadJob, PlacedJob } from "./entry-reader.ts";
import { openPlace, type OpenFailure } from "./open-entries.ts";
import type { Pack } from "./pack.ts";
import { kindSizes, type EntryKind } from "./patch.ts";
import type { VaultSecret } from "./sealing.ts";

/** Bytes of a pack from an offset on. */
interface ReadBytes {
  readonly pack: Pack;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface ThreadWish {
  readonly pool: BlockPool;
  readonly secret: VaultSecret;
  readonly kind: EntryKind;
  readonly read: ReadBytes;
  /** Full entries by offset, each the whole content of its job. */
  readonly wanted: readonly PlacedJob[];
}

export interface FailedOpening {
  readonly placed: PlacedJob;
  readonly finding: OpenFailure["finding"];
}

/** Resolves when no thread is at it any more. Jobs with shared memory have their content there; `take` gets the others' contents. */
export async function openInThreads(wish: ThreadWish, take: (job: LoadJob, content: Buffer) => void): Promise<FailedOpening | undefined> {
  const failed = await Promise.all(
    cutParts(wish.wanted, kindSizes[wish.kind].contentBytes).map(async (part) => await openPart(wish, part, take)),
  );
  return failed.find((each) => each !== undefined);
}

/** As many neighbours as one piece of the pool's memory holds. */
function cutParts(wanted: readonly PlacedJob[], contentBytes: number): PlacedJob[][] {
  const parts: PlacedJob[][] = [];
  const countMax = Math.floor(openContentsMax / contentBytes);
  for (const placed of wanted) {
    const part = parts.at(-1);
    const first = part?.[0];
    const fits = first !== undefined && placed.place.offset + placed.place.length - first.place.offset <= openSealedMax;
    if (part !== undefined && fits && part.length < countMax) part.push(placed);
    else parts.push([placed]);
  }
  return parts;
}

async function openPart(
  { pool, secret, kind, read }: ThreadWish,
  part: readonly PlacedJob[],
  take: (job: LoadJob, content: Buffer) => void,
): Promise<FailedOpening | undefined> {
  const { pack, offset, bytes } = read;
  const [first, last] = [part[0]?.place, part.at(-1)?.place];
  assert(first !== undefined && last !== undefined, "a part has a first and a last");
  const { contentBytes } = kindSizes[kind];
  const into = sharedMemoryOf(part.map(({ job }) => job));
  const places = new Uint32Array(part.length * openPlace.count);
  const ids = new Uint8Array(part.length * digestBytes);
  for (const [index, { job, place }] of part.entries()) {
    const target = into === undefined ? index * contentBytes : (job.into?.byteOffset ?? 0);
    places.set([place.offset - first.offset, place.length, place.offset, place.method === "zstd" ? 1 : 0, target], index * openPlace.count);
    ids.set(job.id, index * digestBytes);
  }
  const failure = await pool.open({
    ...{ kind, places, ids, secret, into },
    packKey: pack.key,
    sealHead: pack.sealHead,
    sealed: bytes.subarray(first.offset - offset, last.offset + last.length - offset),
    take: (contents) => {
      if (into !== undefined) return;
      for (const [index, { job }] of part.entries()) {
        const content = contents.subarray(index * contentBytes, (index + 1) * contentBytes);
        if (job.into === undefined) take(job, Buffer.from(content));
        else job.into.set(content);
      }
    },
  });
  const placed = failure === undefined ? undefined : part[failure.index];
  return failure === undefined || placed === undefined ? undefined : { placed, finding: failure.finding };
}

/** The memory that all of these are to be written into, where it is one and shared. */
function sharedMemoryOf(jobs: readonly LoadJob[]): Uint8Array | undefined {
  const memory = jobs[0]?.into;
  if (memory === undefined || !isShared(memory)) return undefined;
  return jobs.every(({ into }) => into?.buffer === memory.buffer) ? new Uint8Array(memory.buffer) : undefined;
}
