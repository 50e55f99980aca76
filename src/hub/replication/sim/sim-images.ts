// Image files of recovery points as plain copies, for tests: what the landing writes, without hydration.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { removeImages } from "../../../landing/qemu/write-images.ts";
import type { ImageFolder } from "../world.ts";

/** `onCall` is told before and after each call, as a target's is. */
export function simImages(folder: string, onCall?: (call: string) => void): ImageFolder {
  return {
    folder,
    remove: async (path, names) => {
      onCall?.("before remove images");
      await removeImages(path, names);
      onCall?.("after remove images");
    },
    write: async (wish) => {
      onCall?.("before write images");
      const files: { path: string; sizeBytes: number }[] = [];
      await mkdir(wish.folder, { recursive: true });
      for (const [index, { content }] of wish.disks.entries()) {
        const bytes = new Uint8Array(content.sizeBytes);
        await content.read(0, bytes);
        const path = join(wish.folder, `disk${index}.${wish.format}`);
        await writeFile(path, bytes);
        files.push({ path, sizeBytes: bytes.length });
      }
      onCall?.("after write images");
      return { files, changes: ["nothing"] };
    },
  };
}
