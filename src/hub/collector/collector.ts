// Finds what jobs made and nothing counts on any more, in the database, on the target and in folders; removes it when told.

import { access } from "node:fs/promises";
import type { Log } from "../../base/log.ts";
import type { Target } from "../../landing/target.ts";
import type { Database } from "../db/database.ts";
import { nextFence } from "../db/fences.ts";
import { givenUpExports, landedNames, rowOrphans } from "../db/orphans.ts";

export interface Orphan {
  readonly kind: string;
  readonly id: string;
  readonly reason: string;
  /** no: a person has to look. */
  readonly isRemovable: "yes" | "no";
}

export interface CollectorDependencies {
  readonly database: Database;
  readonly log: Log;
  /** Absent where no machines land. */
  readonly target?: Target;
  readonly images?: { remove(folder: string, names: { readonly format: string; readonly count: number }): Promise<void> };
}

interface OrphanKind {
  find(): Promise<readonly Orphan[]>;
  remove(orphan: Orphan): Promise<void>;
}

export class Collector {
  readonly #kinds: readonly OrphanKind[];
  readonly #log: Log;

  constructor(dependencies: CollectorDependencies) {
    this.#log = dependencies.log;
    const { target } = dependencies;
    this.#kinds = [
      ...rowKinds(dependencies),
      exportKind(dependencies),
      ...(target === undefined ? [] : [machineKind(dependencies, target), traceKind(target)]),
    ];
  }

  /** Everything that nothing counts on, now. What a running job has just made may be among it for a moment. */
  async find(): Promise<readonly Orphan[]> {
    const found = [];
    for (const kind of this.#kinds) found.push(...(await kind.find()));
    return found;
  }

  /** Removes those of `orphans` that still are; answers what is left of them. */
  async remove(orphans: readonly Orphan[]): Promise<readonly Orphan[]> {
    for (const kind of this.#kinds)
      for (const orphan of await kind.find()) {
        if (orphan.isRemovable === "no" || !orphans.some((wanted) => isSame(wanted, orphan))) continue;
        await kind.remove(orphan);
        this.#log.warn("orphan removed", { orphanKind: orphan.kind, id: orphan.id, reason: orphan.reason });
      }
    const left = await this.find();
    return orphans.filter((orphan) => left.some((other) => isSame(orphan, other)));
  }
}

export function isSame(left: Orphan, right: Orphan): boolean {
  return left.kind === right.kind && left.id === right.id;
}

function rowKinds({ database }: CollectorDependencies): readonly OrphanKind[] {
  return rowOrphans(database.db).map((rows) => ({
    find: async () => (await rows.find()).map((row) => ({ ...row, kind: rows.kind, isRemovable: "yes" })),
    remove: async ({ id }) => void (await rows.remove([id])),
  }));
}

/** A machine's row is written before the target is asked, so a machine without one was given up. */
function machineKind({ database }: CollectorDependencies, target: Target): OrphanKind {
  return {
    find: async () => {
      const landed = await target.list(); // Before the rows: what is landed in between has its row already.
      const known = await landedNames(database.db);
      return landed
        .filter((name) => !known.has(name))
        .map((id) => ({ kind: "landed machine", id, reason: "the database does not know it", isRemovable: "yes" }));
    },
    remove: async ({ id }) => await target.under({ kind: "job", fence: await nextFence(database.db) }).remove(id),
  };
}

function traceKind(target: Target): OrphanKind {
  return {
    find: async () =>
      ((await target.leftovers?.()) ?? []).map((id) => ({
        kind: "trace on the target",
        id,
        reason: "it belongs to no landed machine",
        isRemovable: "no",
      })),
    remove: async () => undefined,
  };
}

function exportKind({ database, images }: CollectorDependencies): OrphanKind {
  const written = async () => {
    const found = [];
    for (const given of await givenUpExports(database.db)) if (await exists(given.folder)) found.push(given);
    return found;
  };
  return {
    find: async () =>
      (await written()).map(({ folder }) => ({
        kind: "export folder",
        id: folder,
        reason: "its job gave up",
        isRemovable: images === undefined ? "no" : "yes",
      })),
    remove: async ({ id }) => {
      for (const { folder, format, count } of await written()) if (folder === id) await images?.remove(folder, { format, count });
    },
  };
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
