// What one point under way relies on: entries that may be used, what its machine has proved to have, and the packs that must stay.

import type { AreaId, MachineId } from "../contract/ids.ts";
import type { Entries } from "./entries.ts";
import type { EntryPlace } from "./entry-index.ts";
import { NumberSet } from "./number-set.ts";
import type { Pack } from "./pack.ts";
import type { EntryKind } from "./patch.ts";

export class PointClaims {
  readonly machineId: MachineId;
  readonly areaId: AreaId;
  readonly #entries: Entries;
  /** Entries that other machines stored, and whose bytes this one sent too. */
  readonly #proved = new NumberSet();
  readonly #pinned = new Set<Pack>();

  constructor(options: { readonly entries: Entries; readonly areaId: AreaId; readonly machineId: MachineId }) {
    this.#entries = options.entries;
    this.areaId = options.areaId;
    this.machineId = options.machineId;
  }

  /** Packs that hold what this point has claimed. They stay until the point is sealed or given up. */
  get pinned(): ReadonlySet<Pack> {
    return this.#pinned;
  }

  /** Claims an entry that this machine may be told of: it has stored or sent it. Whether there is one. */
  claimOwn(kind: EntryKind, id: Uint8Array): boolean {
    const number = this.#entries.findWhole(kind, id, (pack) => this.#isUsable(pack));
    if (number === undefined) return false;
    const isOwn =
      this.#proved.has(number) ||
      this.#entries.index.find(
        kind,
        id,
        (each) => this.#isUsable(this.#entries.packOfNumber(each)) && this.#entries.packOfNumber(each).ownerId === this.machineId,
      ) !== undefined;
    if (isOwn) this.#pin(number);
    return isOwn;
  }

  /** Claims an entry whose content the caller has seen and checked, whoever stored it. */
  claim(kind: EntryKind, id: Uint8Array): EntryPlace | undefined {
    const number = this.#entries.findWhole(kind, id, (pack) => this.#isUsable(pack));
    if (number === undefined) return undefined;
    if (this.#entries.packOfNumber(number).ownerId !== this.machineId) this.#proved.add(number);
    this.#pin(number);
    return this.#entries.index.placeOf(number);
  }

  #pin(number: number): void {
    this.#entries.visitWhole(
      number,
      (pack) => this.#isUsable(pack),
      (each) => this.#pinned.add(this.#entries.packOfNumber(each)),
    );
  }

  /** Durable in the own area, or written by this very point. */
  #isUsable(pack: Pack): boolean {
    return pack.areaId === this.areaId && (pack.state === "stored" || (pack.state === "pending" && pack.writer === this));
  }
}
