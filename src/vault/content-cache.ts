// Content of blocks and pages by id, least recently used out first, bounded in bytes. Kept content is never changed.

import { asBuffer } from "../disk/digest.ts";
import type { EntryKind } from "./patch.ts";

export class ContentCache {
  readonly #bytesMax: number;
  readonly #contents = new Map<string, Buffer>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get(kind: EntryKind, id: Uint8Array): Buffer | undefined {
    const key = keyOf(kind, id);
    const content = this.#contents.get(key);
    if (content === undefined) return undefined;
    this.#contents.delete(key);
    this.#contents.set(key, content);
    return content;
  }

  /** Takes the memory over: the caller changes it no more. */
  set(kind: EntryKind, id: Uint8Array, content: Buffer): void {
    const key = keyOf(kind, id);
    if (this.#contents.has(key)) return;
    this.#contents.set(key, content);
    this.#bytes += content.length;
    for (const [oldKey, old] of this.#contents) {
      if (this.#bytes <= this.#bytesMax) return;
      this.#contents.delete(oldKey);
      this.#bytes -= old.length;
    }
  }
}

function keyOf(kind: EntryKind, id: Uint8Array): string {
  return (kind === "block" ? "b" : "p") + asBuffer(id).toString("latin1");
}
