// The way of finished packs to the store: several uploads at once, what waits is kept in memory or in the spool folder.

import { mkdir, open, readFile, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { withRetry } from "../base/retry.ts";
import { Fault } from "../contract/errors.ts";
import type { Store } from "../store/store.ts";
import { writeLargeFile } from "../store/write-large-file.ts";
import { readFromStore, type Pack } from "./pack.ts";

export interface SpoolOptions {
  /** Folder of this vault alone; what it holds is removed when the vault opens. */
  readonly folder: string;
  /** Bytes of packs that may wait in the folder. */
  readonly spoolBytesMax: number;
  /** How long a full spool may stay without one upload ending, before SpoolFull. 30 000 unless told. */
  readonly stallMsMax?: number;
}

export interface PackQueueOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly spool?: SpoolOptions;
  /** 4 unless told. */
  readonly uploadsMax?: number;
}

/** With a spool, an upload is tried again this often, with waits up to uploadWaitMsMax: about an hour without a line. */
const spooledAttemptsMax = 250;
const uploadWaitMsMax = 15_000;
/** While uploads end this quickly one after the other, waiting for the next end costs less than writing a pack twice. */
const patienceMs = 250;

export class PackQueue {
  readonly #options: PackQueueOptions;
  readonly #uploadsMax: number;
  #uploading = 0;
  #spooledBytes = 0;
  #endedCount = 0;
  #lastEndMs = Number.NEGATIVE_INFINITY;
  /** Called, all of them, whenever an upload ended. */
  #wakers: (() => void)[] = [];

  private constructor(options: PackQueueOptions) {
    this.#options = options;
    this.#uploadsMax = options.uploadsMax ?? 4;
  }

  static async open(options: PackQueueOptions): Promise<PackQueue> {
    if (options.spool !== undefined) {
      await rm(options.spool.folder, { recursive: true, force: true });
      await mkdir(options.spool.folder, { recursive: true, mode: 0o700 });
    }
    return new PackQueue(options);
  }

  /**
   * Takes a finished pack. Resolves when it is on its way and the caller may go on: at once when an upload is free, else
   * when the spool has it. `uploaded` resolves when the pack is durable in the store, and then its state is "stored";
   * `released` when `bytes` are no longer used.
   */
  async accept(
    pack: Pack,
    bytes: Uint8Array,
    signal: AbortSignal,
  ): Promise<{ readonly uploaded: Promise<void>; readonly released: Promise<void> }> {
    const { spool } = this.#options;
    for (;;) {
      signal.throwIfAborted();
      if (this.#uploading < this.#uploadsMax) {
        const uploaded = this.#upload(pack, async () => bytes, signal);
        return { uploaded, released: uploaded };
      }
      if (spool !== undefined && (await this.#waitForQuickEnd(signal))) continue;
      if (
        spool !== undefined &&
        this.#spooledBytes + bytes.length <= spool.spoolBytesMax &&
        (await this.#spoolPack(pack, spool, bytes, signal))
      )
        return { uploaded: this.#uploadFromSpool(pack, spool, bytes.length, signal), released: Promise.resolve() };
      await this.#waitForRoom(signal);
    }
  }

  /** Puts the pack into the folder; false when the folder's disk is full although packs of ours leave it again. */
  async #spoolPack(pack: Pack, spool: SpoolOptions, bytes: Uint8Array, signal: AbortSignal): Promise<boolean> {
    const path = join(spool.folder, pack.packId);
    this.#spooledBytes += bytes.length;
    try {
      await writeLargeFile(path, bytes, signal);
    } catch (error) {
      this.#spooledBytes -= bytes.length;
      await unlink(path).catch(() => undefined); // Absent when it could not even be made.
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
      if (this.#spooledBytes > 0) return false;
      throw new Fault("SpoolFull", "could not keep a pack until its upload: the disk of the spool folder is full", {
        evidence: { packBytes: bytes.length, spoolBytesMax: spool.spoolBytesMax },
        cause: error,
      });
    }
    pack.read = async (offset, length) => {
      await using file = await open(path, "r");
      const part = Buffer.allocUnsafe(length);
      await file.read(part, 0, length, offset);
      return part;
    };
    return true;
  }

  async #uploadFromSpool(pack: Pack, spool: SpoolOptions, packBytes: number, signal: AbortSignal): Promise<void> {
    const path = join(spool.folder, pack.packId);
    try {
      while (this.#uploading >= this.#uploadsMax) await this.#nextEnd(signal);
      await this.#upload(pack, async () => await readFile(path), signal);
    } finally {
      this.#spooledBytes -= packBytes;
      await unlink(path);
      this.#wake();
    }
  }

  async #upload(pack: Pack, bytes: () => Promise<Uint8Array>, signal: AbortSignal): Promise<void> {
    this.#uploading += 1;
    try {
      await withRetry(
        {
          clock: this.#options.clock,
          attemptsMax: this.#options.spool === undefined ? 1 : spooledAttemptsMax,
          firstWaitMs: 500,
          waitMaxMs: uploadWaitMsMax,
          isTransient: (error) => error instanceof Fault && error.retry !== "never",
          onRetry: (_error, attempt, waitMs) =>
            this.#options.log.warn("pack upload failed and is tried again", { pack: pack.key, attempt, waitMs }),
          signal,
        },
        async () => await this.#options.store.put(pack.key, await bytes(), signal),
      );
      pack.state = "stored";
      pack.pendingDigests = undefined;
      pack.read = readFromStore(this.#options.store, pack.key);
      this.#endedCount += 1;
      this.#lastEndMs = this.#options.clock.monotonicMs();
    } finally {
      this.#uploading -= 1;
      this.#wake();
    }
  }

  /** Waits for an upload that is likely to end soon; whether one did. */
  async #waitForQuickEnd(signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    const leftMs = this.#lastEndMs + patienceMs - clock.monotonicMs();
    if (!(leftMs > 0)) return false;
    const endedBefore = this.#endedCount;
    const timer = new AbortController();
    await Promise.race([this.#nextEnd(signal), clock.sleep(leftMs, timer.signal).catch(() => undefined)]); // Aborted below alone.
    timer.abort();
    return this.#endedCount !== endedBefore;
  }

  /** Waits until some upload ended; with a spool, at most stallMsMax. */
  async #waitForRoom(signal: AbortSignal): Promise<void> {
    const { spool, clock } = this.#options;
    if (spool === undefined) return await this.#nextEnd(signal);
    const endedBefore = this.#endedCount;
    const timer = new AbortController();
    const stallMsMax = spool.stallMsMax ?? 30_000;
    const isStalled = await Promise.race([
      this.#nextEnd(signal).then(() => false),
      clock.sleep(stallMsMax, timer.signal).then(
        () => this.#endedCount === endedBefore,
        () => false,
      ),
    ]);
    timer.abort();
    if (isStalled)
      throw new Fault("SpoolFull", "could not keep a pack until its upload: the spool is full and no upload ends", {
        evidence: { spooledBytes: this.#spooledBytes, spoolBytesMax: spool.spoolBytesMax, stalledMs: stallMsMax },
      });
  }

  async #nextEnd(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      this.#wakers.push(() => {
        signal.removeEventListener("abort", abort);
        resolve();
      });
    });
  }

  #wake(): void {
    const wakers = this.#wakers;
    this.#wakers = [];
    for (const wake of wakers) wake();
  }
}
