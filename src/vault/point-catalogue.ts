// The sealed recovery points of a store; opened points are remembered, their list never is.

import { parseMachineId, parsePointId, type MachineId, type PointId } from "../contract/ids.ts";
import type { Store } from "../store/store.ts";
import { parsePoint, pointKeyOf, type StoredPoint } from "./point-format.ts";
import type { VaultSecret } from "./sealing.ts";

const rememberedMax = 4096;

export class PointCatalogue {
  readonly #store: Store;
  readonly #secret: VaultSecret;
  readonly #points = new Map<PointId, StoredPoint>();

  constructor(store: Store, secret: VaultSecret) {
    this.#store = store;
    this.#secret = secret;
  }

  async *list(machineId?: MachineId): AsyncGenerator<StoredPoint, void, undefined> {
    for await (const { key } of this.#store.list(machineId === undefined ? "points/" : `points/${machineId}/`)) {
      const [, , pointText] = key.split("/");
      const point = this.#points.get(parsePointId(pointText ?? "")) ?? (await this.#open(key));
      if (point !== undefined) yield point;
    }
  }

  /** A point of a machine that is known; costs one call, not a listing. */
  async get(machineId: MachineId, pointId: PointId): Promise<StoredPoint | undefined> {
    const key = pointKeyOf(machineId, pointId);
    const known = this.#points.get(pointId);
    if (known === undefined || known.point.machineId !== machineId) return await this.#open(key);
    return (await this.#store.head(key)) === undefined ? undefined : known;
  }

  async find(pointId: PointId): Promise<StoredPoint | undefined> {
    const known = this.#points.get(pointId);
    if (known !== undefined) return await this.get(known.point.machineId, pointId);
    for await (const { key } of this.#store.list("points/")) {
      const [, machineText, pointText] = key.split("/");
      if (pointText === pointId) return await this.#open(pointKeyOf(parseMachineId(machineText ?? ""), pointId));
    }
    return undefined;
  }

  add(stored: StoredPoint): void {
    this.#points.set(stored.point.pointId, stored);
    for (const oldest of this.#points.keys()) {
      if (this.#points.size <= rememberedMax) return;
      this.#points.delete(oldest);
    }
  }

  forget(machineId: MachineId): void {
    for (const [pointId, { point }] of this.#points) if (point.machineId === machineId) this.#points.delete(pointId);
  }

  forgetPoint(pointId: PointId): void {
    this.#points.delete(pointId);
  }

  /** Undefined when it was removed since it was listed. */
  async #open(key: string): Promise<StoredPoint | undefined> {
    const object = await this.#store.get(key);
    if (object === undefined) return undefined;
    const stored = parsePoint(this.#secret, key, object);
    this.add(stored);
    return stored;
  }
}
