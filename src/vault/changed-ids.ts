// Block ids that a point under way has set, by page: 4 KiB for each page that is touched.

import { digestBytes, idsPerPage } from "../disk/geometry.ts";
import { idAt, pageBytes, type PageChanges } from "../disk/page-tree.ts";

interface ChangedPage {
  readonly ids: Uint8Array;
  /** 1 where the id is set. */
  readonly isSet: Uint8Array;
}

export class ChangedIds implements PageChanges {
  readonly #pages = new Map<number, ChangedPage>();

  get pageIndexes(): readonly number[] {
    return [...this.#pages.keys()].sort((a, b) => a - b);
  }

  get(block: number): Uint8Array | undefined {
    const page = this.#pages.get(Math.floor(block / idsPerPage));
    return page?.isSet[block % idsPerPage] === 1 ? idAt(page.ids, block % idsPerPage) : undefined;
  }

  set(block: number, id: Uint8Array): void {
    const pageIndex = Math.floor(block / idsPerPage);
    let page = this.#pages.get(pageIndex);
    if (page === undefined) this.#pages.set(pageIndex, (page = { ids: new Uint8Array(pageBytes), isSet: new Uint8Array(idsPerPage) }));
    page.ids.set(id, (block % idsPerPage) * digestBytes);
    page.isSet[block % idsPerPage] = 1;
  }

  apply(pageIndex: number, page: Uint8Array): void {
    const changed = this.#pages.get(pageIndex);
    if (changed === undefined) return;
    for (let slot = 0; slot < idsPerPage; slot++) if (changed.isSet[slot] === 1) page.set(idAt(changed.ids, slot), slot * digestBytes);
  }
}
