// Where each stored entry stands: digest → places, in memory or mostly in a folder, and never believed against the packs that tell the same.

import { unlinkSync } from "node:fs";
import { mkdir, readdir, readFile, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { Semaphore } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import { BucketCache } from "./bucket-cache.ts";
import { EntryRun } from "./entry-run.ts";
import { EntryTable } from "./entry-table.ts";
import { encodeManifest, parseManifest, type IndexManifest, type KeptPack } from "./index-manifest.ts";
import { isRowOf, readRow, rowWords, viewWords, type IndexEntry } from "./index-row.ts";
import type { EntryKind } from "./patch.ts";
import { rowsOfRuns, rowsOfTable, runPath, writeRun, type RowSource } from "./write-run.ts";

const memoryEntriesMax = 64 * 2 ** 20;
const keptEntriesMax = 2 ** 31;
/** Entries that wait in memory for their run: 11 MiB, and as much while the run is written. */
const tableEntriesMax = 128 << 10;
/** So many runs of about one size become one. */
const mergedRuns = 4;
/** Places that are read before others may run: half a millisecond on a cold solid-state disk. */
const readsAtOnceMax = 4;
const manifestName = "list";

export interface EntryIndexOptions {
  /** Local folder of this index alone. What it holds from before is used as far as it is whole. */
  readonly folder?: string | undefined;
  /** 64 Mi without a folder (4 GiB of memory), 2 Gi with one, unless told. */
  readonly entriesMax?: number | undefined;
  readonly tableEntriesMax?: number | undefined;
  /** Whether a pack is there; rows of others are left out when runs are written. */
  readonly isAlive: (packNumber: number) => boolean;
  /** Packs whose last entry is in this table or an earlier one, and the next number of a pack. */
  readonly keptPacks: (table: number) => Omit<IndexManifest, "runSerials">;
}

export interface OpenedIndex {
  readonly index: EntryIndex;
  /** What is known from before. */
  readonly packs: readonly KeptPack[];
  readonly nextPackNumber: number;
}

/** With a folder, memory holds a filter of 10 bits an entry and the entries that came last; the rest lies in runs. */
export class EntryIndex implements AsyncDisposable {
  readonly #options: EntryIndexOptions;
  readonly #tableMax: number;
  readonly #cache = new BucketCache();
  readonly #listing = new Semaphore(1);
  #table = new EntryTable();
  /** The table before, while its run is written. */
  #full: EntryTable | undefined;
  /** An empty one whose memory is used again. */
  #spare: EntryTable | undefined;
  #tableNumber = 1;
  #runs: readonly EntryRun[] = [];
  #runRows = 0;
  #nextSerial: number;
  #flushing: Promise<void> | undefined;
  #merging: Promise<void> | undefined;
  #fault: Fault | undefined;
  #isClosing = false;

  private constructor(options: EntryIndexOptions, runs: readonly EntryRun[]) {
    this.#options = options;
    this.#tableMax = options.tableEntriesMax ?? tableEntriesMax;
    this.#useRuns(runs);
    this.#nextSerial = runs.reduce((most, { serial }) => Math.max(most, serial), 0) + 1;
  }

  static async open(options: EntryIndexOptions): Promise<OpenedIndex> {
    const { folder } = options;
    if (folder === undefined) return { index: new EntryIndex(options, []), packs: [], nextPackNumber: 0 };
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const found = await openKept(folder);
    const kept = new Set([manifestName, ...found.runs.map(({ serial }) => `run-${serial}`)]);
    for (const name of await readdir(folder)) if (!kept.has(name)) await rm(join(folder, name), { recursive: true });
    return { index: new EntryIndex(options, found.runs), packs: found.packs, nextPackNumber: found.nextPackNumber };
  }

  /** Number of the table that takes entries now. */
  get tableNumber(): number {
    return this.#tableNumber;
  }

  /** Whether some entries are looked for in files. */
  get hasRuns(): boolean {
    return this.#runs.length > 0;
  }

  /** Adds an entry beside others of the same digest. */
  add(id: Uint8Array, entry: IndexEntry): void {
    this.#refuseTooMany();
    this.#table.add(id, entry);
    if (this.#options.folder === undefined || this.#table.count < this.#tableMax || this.#full !== undefined) return;
    this.#swapTables();
    void this.#startFlush(this.#options.folder).catch(() => undefined); // Tried again, and told, by settle().
  }

  /** All entries of this kind and digest, oldest pack first; of packs that are gone too. Quick after prefetch. */
  all(kind: EntryKind, id: Uint8Array): readonly IndexEntry[] {
    if (this.#fault !== undefined) throw this.#fault;
    const found: IndexEntry[] = [];
    this.#table.collect(kind, id, found);
    this.#full?.collect(kind, id, found);
    for (const run of this.#runs) {
      if (!run.mayHold(viewWords(id))) continue;
      const rows = this.#bucket(run, run.bucketOf(viewWords(id)));
      const words = viewWords(id);
      for (let at = 0; at < rows.length; at += rowWords) if (isRowOf(rows, at, kind, words)) found.push(readRow(rows, at));
    }
    if (found.length > 1) found.sort((one, other) => one.packNumber - other.packNumber || one.ordinal - other.ordinal);
    return found;
  }

  /** Brings what all() needs for these into memory, for a while, without stopping the program. Waits where entries come too quickly. */
  async prefetch(ids: readonly Uint8Array[]): Promise<void> {
    await this.settle();
    if (this.#runs.length === 0) return;
    const wanted: { readonly run: EntryRun; readonly bucket: number }[] = [];
    for (const id of ids)
      for (const run of this.#runs) {
        const words = viewWords(id);
        if (!run.mayHold(words)) continue;
        const bucket = run.bucketOf(words);
        if (!this.#cache.has(run.serial, bucket)) wanted.push({ run, bucket });
      }
    // What is in the page cache is read quicker at once than by a thread; what is not must not stop the program for long.
    for (const [index, { run, bucket }] of wanted.entries()) {
      if (index % readsAtOnceMax === readsAtOnceMax - 1) await letOthersRun();
      if (this.#runs.includes(run)) this.#bucket(run, bucket); // Else it was merged meanwhile.
    }
  }

  /** Waits while a table is full and the one before is not written yet. Throws what keeps it from being written. */
  async settle(): Promise<void> {
    const { folder } = this.#options;
    if (folder === undefined) return;
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#full !== undefined && this.#table.count >= this.#tableMax) await this.#startFlush(folder);
  }

  /** Gives back memory of entries whose packs are gone; in files they go when runs are merged. */
  tidy(): void {
    if (this.#options.folder === undefined) this.#table = this.#table.without(this.#options.isAlive);
  }

  /** Keeps all for the next opening. What cannot be written is read from packs then. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const { folder } = this.#options;
    await Promise.allSettled([this.#flushing, this.#merging]);
    if (folder !== undefined && this.#fault === undefined) {
      await this.#closeTables(folder).catch(() => undefined); // Whatever is not in the list is read from packs again.
    }
    for (const run of this.#runs) await run.close();
    this.#runs = [];
  }

  async #closeTables(folder: string): Promise<void> {
    if (this.#full !== undefined) await this.#startFlush(folder);
    if (this.#table.count > 0) this.#swapTables();
    if (this.#full === undefined) await this.#writeManifest(folder);
    else await this.#startFlush(folder);
  }

  #refuseTooMany(): void {
    const { folder, entriesMax = folder === undefined ? memoryEntriesMax : keptEntriesMax } = this.#options;
    if (this.#runRows + this.#table.count + (this.#full?.count ?? 0) >= entriesMax)
      throw new Fault("LimitReached", "could not index a stored block: there are more blocks than the index may hold", {
        evidence: { entriesMax },
      });
  }

  #useRuns(runs: readonly EntryRun[]): void {
    this.#runs = runs;
    this.#runRows = runs.reduce((sum, { rowCount }) => sum + rowCount, 0);
  }

  #swapTables(): void {
    this.#full = this.#table;
    this.#table = this.#spare ?? new EntryTable(this.#tableMax);
    this.#spare = undefined;
    this.#tableNumber += 1;
  }

  #bucket(run: EntryRun, bucket: number): Uint32Array {
    const cached = this.#cache.get(run.serial, bucket);
    if (cached !== undefined) return cached;
    const rows = this.#cache.room(run.serial, bucket, run.bucketWords(bucket));
    if (!run.readBucket(bucket, rows)) throw this.#noteDamage(run);
    return rows;
  }

  async #startFlush(folder: string): Promise<void> {
    this.#flushing ??= this.#flush(folder).finally(() => (this.#flushing = undefined));
    await this.#flushing;
  }

  async #flush(folder: string): Promise<void> {
    const full = this.#full;
    if (full === undefined) return;
    const run = await this.#write(folder, rowsOfTable(full, this.#options.isAlive));
    if (run !== undefined) this.#useRuns([...this.#runs, run]);
    this.#full = undefined;
    full.clear();
    this.#spare = full;
    await this.#writeManifest(folder);
    this.#startMerge(folder);
  }

  async #write(folder: string, source: RowSource): Promise<EntryRun | undefined> {
    const serial = this.#nextSerial++;
    try {
      if ((await writeRun(folder, serial, source)) === 0) return undefined;
      const run = await EntryRun.open(runPath(folder, serial), serial);
      if (run === undefined) throw new Error("a run is not what was just written");
      return run;
    } catch (error) {
      if (error instanceof Fault) throw error;
      throw new Fault("SpoolFull", "could not keep the index of stored blocks in its folder", {
        evidence: { folder },
        causes: ["the disk of the folder is full or damaged"],
        action: "free space on that disk; replication goes on by itself",
        cause: error,
      });
    }
  }

  /** One merge at a time, beside everything else. A failed one is tried again after the next run. */
  #startMerge(folder: string): void {
    if (this.#merging !== undefined || this.#isClosing) return;
    const merged = mergeableRuns(this.#runs, this.#tableMax);
    if (merged === undefined) return;
    this.#merging = this.#merge(folder, merged).then(
      () => {
        this.#merging = undefined;
        this.#startMerge(folder);
      },
      () => (this.#merging = undefined),
    );
  }

  async #merge(folder: string, merged: readonly EntryRun[]): Promise<void> {
    const stopped = (): Fault | undefined => (this.#isClosing ? new Fault("JobCancelled", "the index is closed") : undefined);
    const source = rowsOfRuns(merged, { isAlive: this.#options.isAlive, damaged: (run) => this.#noteDamage(run), stopped });
    const run = await this.#write(folder, source);
    const rest = this.#runs.filter((each) => !merged.includes(each));
    this.#useRuns(run === undefined ? rest : [...rest, run]);
    await this.#writeManifest(folder);
    for (const old of merged) {
      await old.close();
      await unlink(runPath(folder, old.serial));
    }
  }

  async #writeManifest(folder: string): Promise<void> {
    await this.#listing.run(async () => {
      const inMemory = this.#full === undefined ? Math.sign(this.#table.count) : 2;
      const runSerials = this.#runs.map(({ serial }) => serial);
      await writeFileAtomic(
        join(folder, manifestName),
        await encodeManifest({ runSerials, ...this.#options.keptPacks(this.#tableNumber - inMemory) }),
      );
    });
  }

  /** Nothing of a damaged index is used any more: the next opening builds it anew from the packs. */
  #noteDamage(run: EntryRun): Fault {
    const { folder = "" } = this.#options;
    try {
      unlinkSync(join(folder, manifestName));
    } catch {
      // It is gone already, or the disk takes no more changes; then the damage is met again.
    }
    return (this.#fault ??= new Fault("DataDamaged", "could not look up stored blocks: a file of their index on this machine is damaged", {
      evidence: { file: runPath(folder, run.serial) },
      causes: ["the disk of the folder lost or changed bytes", "another program wrote into the folder"],
      action: "restart the program: it builds the index anew from the stored packs, which are not concerned",
      retry: "never",
    }));
  }
}

/** Several runs of about one size; undefined when there are too few. */
function mergeableRuns(runs: readonly EntryRun[], smallest: number): readonly EntryRun[] | undefined {
  const classOf = ({ rowCount }: EntryRun): number =>
    Math.max(0, Math.floor(Math.log2(rowCount / smallest) / Math.log2(mergedRuns) + 0.01));
  for (const [, group] of [...Map.groupBy(runs, classOf)].sort(([one], [other]) => one - other))
    if (group.length >= mergedRuns) return group;
  return undefined;
}

/** Runs and packs of before; none at all where one thing is not as it was written. */
async function openKept(
  folder: string,
): Promise<{ readonly runs: readonly EntryRun[]; readonly packs: readonly KeptPack[]; readonly nextPackNumber: number }> {
  const bytes = await readFile(join(folder, manifestName)).catch(passAbsent);
  const manifest = bytes === undefined ? undefined : await parseManifest(bytes);
  const runs: EntryRun[] = [];
  for (const serial of manifest?.runSerials ?? []) {
    const run = await EntryRun.open(runPath(folder, serial), serial);
    if (run !== undefined) runs.push(run);
  }
  if (manifest !== undefined && runs.length === manifest.runSerials.length) return { ...manifest, runs };
  for (const run of runs) await run.close();
  await rm(join(folder, manifestName), { force: true });
  return { runs: [], packs: [], nextPackNumber: 0 };
}

async function letOthersRun(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

function passAbsent(error: unknown): undefined {
  if (!(error instanceof Error) || !("code" in error) || error.code !== "ENOENT") throw error;
  return undefined;
}
