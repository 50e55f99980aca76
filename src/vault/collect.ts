// Collection of garbage: removes packs that no point needs and rewrites those that are mostly garbage, beside writers and readers.
// The rules and why they are enough: docs/design/vault-format.md, Collection.

import { forEachParallel } from "../base/semaphore.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Fault } from "../contract/errors.ts";
import type { AreaId, MachineId, PointId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import type { Entries } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import { markLive, type LiveEntries } from "./mark-live.ts";
import { moveEntries, type PackMaker } from "./move-entries.ts";
import type { Pack } from "./pack.ts";
import type { StoredPoint } from "./point-format.ts";
import type { CollectionOptions, CollectionReport } from "./vault.ts";

/** Removals under way at once. */
const removalsMax = 8;
/** Packs smaller than this part of a full one are joined when a machine has at least joinedMin of them. */
const smallPart = 1 / 8;
const joinedMin = 8;

export interface CollectParts {
  readonly store: Store;
  readonly entries: Entries;
  readonly areaId: AreaId;
  readonly clock: Clock;
  readonly log: Log;
  readonly maker: PackMaker;
  readonly readerOf: (areaIds: readonly AreaId[]) => EntryReader;
  /** Every sealed point of the vault; no point that was there when the call began, and had no newer one, is missing. */
  readonly listPoints: (signal: AbortSignal | undefined) => Promise<readonly StoredPoint[]>;
  /** Whether a point under way, or sealed since the collection began, relies on the pack. */
  readonly isPinned: (pack: Pack) => boolean;
}

interface Choice {
  readonly dead: readonly Pack[];
  readonly sparse: readonly Pack[];
}

/** One collection at a time. On a fault or an abort everything that lives stays, and the next collection goes on. */
export async function collect(parts: CollectParts, options: CollectionOptions): Promise<CollectionReport> {
  const { entries, areaId, clock } = parts;
  const { signal, onProgress = () => undefined } = options;
  const beganMs = clock.monotonicMs();
  await entries.refresh([areaId]);
  const known = [...entries.packs].filter((pack) => pack.areaId === areaId && pack.state === "stored");
  const points = (await parts.listPoints(signal)).filter(({ areaIds }) => areaIds.includes(areaId));
  const onPoint = (doneCount: number): void => onProgress({ step: "mark", doneCount, totalCount: points.length });
  const live = await markLive({ ...parts, points, onPoint, signal });
  // From here to the end of this block nothing is awaited: no writer can claim an entry of a pack that was just chosen.
  const choice = choosePacks(parts, { ...options, known, live });
  if (options.isDryRun !== true) for (const pack of [...choice.dead, ...choice.sparse]) pack.state = "draining";
  const report = reportOf(known, choice, { live, pointCount: points.length, isPinned: parts.isPinned });
  if (options.isDryRun === true) return { ...report, tookMs: clock.monotonicMs() - beganMs };
  try {
    const pointIds = new Set(points.map(({ point }) => point.pointId));
    const { movedBytes, damagedPacks } = await removeAndMove(parts, { choice, live, pointIds, options });
    return { ...report, movedBytes, damagedPacks, tookMs: clock.monotonicMs() - beganMs };
  } finally {
    for (const pack of [...choice.dead, ...choice.sparse]) if (pack.state === "draining") pack.state = "stored";
  }
}

async function removeAndMove(
  parts: CollectParts,
  work: {
    readonly choice: Choice;
    readonly live: LiveEntries;
    readonly pointIds: ReadonlySet<PointId>;
    readonly options: CollectionOptions;
  },
): Promise<{ readonly movedBytes: number; readonly damagedPacks: readonly string[] }> {
  const { choice, live, pointIds, options } = work;
  const { signal, onProgress = () => undefined } = options;
  let doneCount = 0;
  const remove = async (pack: Pack): Promise<void> => {
    await parts.store.remove(pack.key, signal);
    parts.entries.dropRemoved(pack);
    doneCount += 1;
    onProgress({ step: "remove", doneCount, totalCount: choice.dead.length + choice.sparse.length });
  };
  await forEachParallel(choice.dead, removalsMax, remove);
  let movedBytes = 0;
  const damagedPacks: string[] = [];
  for (const [, packs] of Map.groupBy(choice.sparse, ({ ownerId }) => ownerId)) {
    const moved = await moveEntries({ ...parts, packs, live: live.set, pointIds, remove, signal });
    movedBytes += moved.movedBytes;
    damagedPacks.push(...moved.damagedPacks);
  }
  return { movedBytes, damagedPacks };
}

function choosePacks(
  parts: CollectParts,
  wish: CollectionOptions & { readonly known: readonly Pack[]; readonly live: LiveEntries },
): Choice {
  const { clock, isPinned, maker } = parts;
  const { orphanGraceMs = 2 * 3600_000, liveShareMin = 0.5, moveBytesMax = 4 * 2 ** 30, goneMachineIds = [] } = wish;
  const gone = new Set<MachineId>(goneMachineIds);
  const dead: Pack[] = [];
  const candidates: { readonly pack: Pack; readonly liveBytes: number; readonly share: number }[] = [];
  for (const pack of wish.known) {
    if (pack.state !== "stored" || isPinned(pack)) continue;
    const liveBytes = wish.live.bytesOf.get(pack.number) ?? 0;
    // What a copy that was cut has stored is asked for again soon: it stays for a while.
    const isYoung = clock.nowMs() - pack.writtenAtMs < orphanGraceMs && !gone.has(pack.ownerId);
    if (liveBytes > 0) candidates.push({ pack, liveBytes, share: liveBytes / pack.entryBytes });
    else if (!isYoung) dead.push(pack);
  }
  const isSmall = ({ pack }: { readonly pack: Pack }): boolean => pack.sizeBytes < maker.packBytes * smallPart;
  const smallCounts = new Map<MachineId, number>();
  for (const each of candidates) if (isSmall(each)) smallCounts.set(each.pack.ownerId, (smallCounts.get(each.pack.ownerId) ?? 0) + 1);
  const wanted = candidates
    .filter(
      (each) =>
        each.share < liveShareMin ||
        each.pack.sealHead.generation !== maker.secret.current ||
        (isSmall(each) && (smallCounts.get(each.pack.ownerId) ?? 0) >= joinedMin),
    )
    .sort((one, other) => one.share - other.share);
  let moveBytes = 0;
  const sparse = wanted.filter(({ liveBytes }) => (moveBytes += liveBytes) <= moveBytesMax).map(({ pack }) => pack);
  return { dead, sparse };
}

function reportOf(
  known: readonly Pack[],
  { dead, sparse }: Choice,
  facts: { readonly live: LiveEntries; readonly pointCount: number; readonly isPinned: (pack: Pack) => boolean },
): Omit<CollectionReport, "tookMs"> {
  const bytesOf = (packs: readonly Pack[]): number => packs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return {
    pointCount: facts.pointCount,
    packCount: known.length,
    packBytes: bytesOf(known),
    liveBytes: facts.live.bytesOf.values().reduce((sum, each) => sum + each, 0),
    removedPackCount: dead.length,
    rewrittenPackCount: sparse.length,
    removedBytes: bytesOf(dead) + bytesOf(sparse),
    movedBytes: 0,
    pinnedPackCount: known.filter(facts.isPinned).length,
    damagedPacks: [],
  };
}

/** The fault of a listing that took too long to be relied on. */
export function slowListing(tookMs: number, mostMs: number): Fault {
  return new Fault("StoreUnavailable", "could not collect garbage: the store took too long to list the recovery points", {
    evidence: { tookMs, mostMs },
  });
}
