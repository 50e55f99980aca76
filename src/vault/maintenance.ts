// Removal of points and machines, and collection: what one writer does with its area besides writing points.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Semaphore } from "../base/semaphore.ts";
import { Fault } from "../contract/errors.ts";
import { parseAreaId, type AreaId, type MachineId, type PointId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import { collect, slowListing } from "./collect.ts";
import type { Entries } from "./entries.ts";
import type { EntryReader } from "./entry-reader.ts";
import type { PackMaker } from "./move-entries.ts";
import { packPrefixOf, type Pack } from "./pack.ts";
import type { PointCatalogue } from "./point-catalogue.ts";
import type { PointClaims } from "./point-claims.ts";
import type { StoredPoint } from "./point-format.ts";
import { renewSecret, type VaultKeys } from "./sealing.ts";
import { removeUnheld } from "./point-holds.ts";
import type { CollectionOptions, CollectionReport } from "./vault.ts";

/**
 * A point on which a newer one of another area stands is not removed before this, and a listing of points that takes longer is not
 * relied on: so a listing never misses both.
 */
const settleMs = 10 * 60_000;

export interface MaintenanceParts {
  readonly store: Store;
  readonly areaId: AreaId;
  readonly entries: Entries;
  readonly catalogue: PointCatalogue;
  readonly clock: Clock;
  readonly log: Log;
  readonly maker: PackMaker;
  readonly readerOf: (areaIds: readonly AreaId[]) => EntryReader;
}

export class Maintenance {
  readonly #parts: MaintenanceParts;
  readonly #openedMs: number;
  /** One listing for a collection, or one removal of a point. */
  readonly #listing = new Semaphore(1);
  readonly #collections = new Semaphore(1);
  /** Of points under way; while a collection runs, also of those that ended meanwhile. */
  readonly #claims = new Map<PointClaims, "open" | "ended">();
  /** Points that points under way stand on, and how many do. */
  readonly #parents = new Map<PointId, number>();
  /** When the newest point on a point was sealed. */
  readonly #builtOnMs = new Map<PointId, number>();
  /** Removals under way. */
  readonly #removing = new Map<PointId, Promise<unknown>>();
  #isCollecting = false;

  constructor(parts: MaintenanceParts) {
    this.#parts = parts;
    this.#openedMs = parts.clock.monotonicMs();
  }

  /** Before the parent is looked up: on return it is gone, or it stays until the answer is disposed. */
  async holdParent(parentPointId: PointId): Promise<Disposable> {
    for (let removing; (removing = this.#removing.get(parentPointId)) !== undefined;) await removing.catch(() => undefined); // Told to who removes it.
    this.#parents.set(parentPointId, (this.#parents.get(parentPointId) ?? 0) + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        const left = (this.#parents.get(parentPointId) ?? 1) - 1;
        if (left > 0) this.#parents.set(parentPointId, left);
        else this.#parents.delete(parentPointId);
      },
    };
  }

  beginClaims(claims: PointClaims): void {
    this.#claims.set(claims, "open");
  }

  /** The point was sealed or given up. */
  endClaims(claims: PointClaims): void {
    if (this.#isCollecting) this.#claims.set(claims, "ended");
    else this.#claims.delete(claims);
  }

  noteSealed({ point: { parentPointId } }: Pick<StoredPoint, "point">): void {
    const nowMs = this.#parts.clock.monotonicMs();
    if (parentPointId !== undefined) this.#builtOnMs.set(parentPointId, nowMs);
    for (const [pointId, sealedMs] of this.#builtOnMs) if (nowMs - sealedMs > settleMs) this.#builtOnMs.delete(pointId);
  }

  async removePoint(machineId: MachineId, pointId: PointId): Promise<"removed" | "held"> {
    return await this.#listing.run(async () => {
      if (this.#parents.has(pointId)) return "held";
      const removing = this.#removeFree(machineId, pointId);
      // In the same step as the look at who stands on it: who comes now waits.
      this.#removing.set(pointId, removing);
      return await removing.finally(() => this.#removing.delete(pointId));
    });
  }

  async #removeFree(machineId: MachineId, pointId: PointId): Promise<"removed" | "held"> {
    const { store, catalogue } = this.#parts;
    const stored = await catalogue.get(machineId, pointId);
    if (stored !== undefined && this.#isUnsettled(stored)) return "held";
    const outcome = await removeUnheld({ store, machineId, pointId });
    if (outcome === "removed") catalogue.forgetPoint(pointId);
    return outcome;
  }

  /** What other appliances may be listing points for is not removed right after it was built upon. */
  #isUnsettled({ point, areaIds }: StoredPoint): boolean {
    if (areaIds.every((areaId) => areaId === this.#parts.areaId)) return false;
    const nowMs = this.#parts.clock.monotonicMs();
    return nowMs - (this.#builtOnMs.get(point.pointId) ?? this.#openedMs) < settleMs;
  }

  async collect(options: CollectionOptions): Promise<CollectionReport> {
    return await this.#collections.run(async () => {
      this.#isCollecting = true;
      try {
        return await collect(
          {
            ...this.#parts,
            listPoints: async (signal) => await this.#listPoints(signal),
            isPinned: (pack) => this.#isPinned(pack),
          },
          options,
        );
      } finally {
        this.#isCollecting = false;
        for (const [claims, state] of this.#claims) if (state === "ended") this.#claims.delete(claims);
        if (this.#claims.size === 0) this.#parts.entries.tidy();
      }
    });
  }

  hasOlderSeals(): boolean {
    const { entries, areaId, maker } = this.#parts;
    for (const pack of entries.packs)
      if (pack.areaId === areaId && pack.sealHead.generation !== maker.secret.current && pack.state !== "dropped") return true;
    return false;
  }

  /** A key that goes is not waited for by any pack of the area; a collection under way is, because it may be writing one. */
  async useKeys(keys: VaultKeys): Promise<void> {
    const { secret } = this.#parts.maker;
    const going = new Set(secret.keys.keys()).difference(new Set(keys.keys.keys()));
    if (going.size === 0) return renewSecret(secret, keys);
    await this.#collections.run(async () => {
      const { entries, areaId } = this.#parts;
      await entries.refresh([areaId]);
      // From here on nothing is awaited: nothing new is sealed with what goes, unless it is the current one.
      const held = [...entries.packs].filter((pack) => pack.areaId === areaId && going.has(pack.sealHead.generation));
      if (held.length > 0 || (going.has(secret.current) && this.#claims.size > 0)) throw keyInUse([...going], held.length);
      renewSecret(secret, keys);
    });
  }

  async removeMachine(machineId: MachineId): Promise<{ readonly freedBytes: number }> {
    const { store, catalogue, log } = this.#parts;
    let freedBytes = 0;
    const removeAll = async (prefix: string): Promise<void> => {
      for await (const { key, sizeBytes } of store.list(prefix)) {
        await store.remove(key);
        freedBytes += sizeBytes;
      }
    };
    await this.#listing.run(async () => {
      await removeAll(`points/${machineId}/`);
      catalogue.forget(machineId);
    });
    for (const prefix of [`holds/${machineId}/`, `removals/${machineId}/`]) await removeAll(prefix);
    // Version 1 kept each machine in an area of its own, which no other machine's point names.
    await removeAll(packPrefixOf(parseAreaId(machineId)));
    try {
      const { removedBytes, movedBytes } = await this.collect({ goneMachineIds: [machineId] });
      return { freedBytes: freedBytes + removedBytes - movedBytes };
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "DataDamaged") throw error;
      // The machine's points are gone; damage of another one's must not keep it. Later collections give the bytes back.
      log.warn("garbage could not be collected", { machineId, reason: error.message });
      return { freedBytes };
    }
  }

  async #listPoints(signal: AbortSignal | undefined): Promise<readonly StoredPoint[]> {
    const { catalogue, clock } = this.#parts;
    return await this.#listing.run(async () => {
      const beganMs = clock.monotonicMs();
      const points: StoredPoint[] = [];
      for await (const stored of catalogue.list()) {
        signal?.throwIfAborted();
        points.push(stored);
      }
      const tookMs = clock.monotonicMs() - beganMs;
      if (tookMs > settleMs / 2) throw slowListing(tookMs, settleMs / 2);
      return points;
    });
  }

  #isPinned(pack: Pack): boolean {
    for (const claims of this.#claims.keys()) if (pack.writer === claims || claims.pinned.has(pack)) return true;
    return false;
  }
}

function keyInUse(generations: readonly number[], packCount: number): Fault {
  return new Fault(
    "StateConflict",
    "could not give up a vault key: packs are sealed with it, or a recovery point is being written with it",
    {
      evidence: { generations: generations.join(", "), packCount },
      action: "wait until collection has rewritten the packs",
      retry: "later",
    },
  );
}
