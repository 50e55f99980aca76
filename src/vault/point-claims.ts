// What one point under way relies on: entries that may be used, what its machine has proved to have, and the packs that must stay.

import type { AreaId, MachineId } from "../contract/ids.ts";
import type { Entries, FoundEntry } from "./entries.ts";
import { EntrySet } from "./entry-set.ts";
import type { Pack } from "./pack.ts";
import type { EntryKind } from "./patch.ts";

export class PointClaims {
  readonly machineId: MachineId;
  readonly areaId: AreaId;
  readonly #entries: Entries;
  /** Entries that other machines stored, and whose bytes this one sent too. */
  readonly #proved = new EntrySet();
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
    const entry = this.#entries.findWhole(kind, id, (pack) => this.#isUsable(pack));
    if (entry === undefined) return false;
    const isOwn =
      entry.pack.ownerId === this.machineId ||
      this.#proved.has(entry) ||
      this.#entries.findAny(kind, id, (pack) => this.#isUsable(pack) && pack.ownerId === this.machineId);
    if (isOwn) this.#pin(entry);
    return isOwn;
  }

  /** Claims an entry whose content the caller has seen and checked, whoever stored it. */
  claim(kind: EntryKind, id: Uint8Array): FoundEntry | undefined {
    const entry = this.#entries.findWhole(kind, id, (pack) => this.#isUsable(pack));
    if (entry === undefined) return undefined;
    if (entry.pack.ownerId !== this.machineId) this.#proved.add(entry);
    this.#pin(entry);
    return entry;
  }

  #pin(entry: FoundEntry): void {
    this.#entries.visitWhole(
      entry,
      (pack) => this.#isUsable(pack),
      (each) => this.#pinned.add(each.pack),
    );
  }

  /** Durable in the own area, or written by this very point. */
  #isUsable(pack: Pack): boolean {
    return pack.areaId === this.areaId && (pack.state === "stored" || (pack.state === "pending" && pack.writer === this));
  }
}
