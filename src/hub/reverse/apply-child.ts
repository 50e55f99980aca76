// A run of applyDelta for tests that ends by SIGKILL in the midst of a write: `node apply-child.ts DELTA CA DISKID=PATH UNDO WRITES KEPTBYTES`.

import { readFile } from "node:fs/promises";
import type { WritableDisk } from "../../disk/disk.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import { applyDelta } from "./apply-delta.ts";

const [deltaPath = "", caFile = "", wish = "", undoPath = "", writes = "", kept = ""] = process.argv.slice(2);
const [diskId = "", path = ""] = wish.split("=");

let left = Number(writes);
const openDisk = async (at: string): Promise<WritableDisk> => {
  const disk = await openFileDisk(at, { access: "write" });
  return {
    sizeBytes: disk.sizeBytes,
    read: async (offset, into, signal) => await disk.read(offset, into, signal),
    extents: async (offset, length, signal) => await disk.extents(offset, length, signal),
    flush: async (signal) => await disk.flush(signal),
    write: async (offset, bytes, signal) => {
      left -= 1;
      if (left > 0) return await disk.write(offset, bytes, signal);
      await disk.write(offset, bytes.subarray(0, Math.min(Number(kept), bytes.length)), signal);
      process.kill(process.pid, "SIGKILL");
    },
    [Symbol.asyncDispose]: async () => await disk[Symbol.asyncDispose](),
  };
};

const caPem = await readFile(caFile, "utf8");
await applyDelta({ deltaPath, caPem, diskPaths: new Map([[diskId, path]]), undoPath, openDisk, signal: new AbortController().signal });
