// Reads that are asked for together: each fills its own memory, and what cannot be filled whole is told.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { createLanes } from "../sender/lanes.ts";
import { openBatchReads } from "./batch-reads.ts";
import { allocatePageAligned } from "./page-aligned.ts";
import { openSystemCalls } from "./system-calls.ts";

const granule = 4096;
const batches = openBatchReads(openSystemCalls(), systemClock);

test("BatchReads fills each read's own memory, more reads than a queue holds and several batches at once", async () => {
  await using disk = await openDisk();
  const granuleCount = disk.bytes.length / granule;
  const readSome = async (memory: Uint8Array): Promise<void> => {
    const offsets = Array.from({ length: 500 }, (_, index) => ((index * 7) % granuleCount) * granule);
    const reads = offsets.map((offset, index) => ({ offset, into: memory.subarray(index * granule, (index + 1) * granule) }));
    const filled = await batches.read(disk.file.fd, reads);
    assert.ok(filled.every(Boolean));
    for (const { offset, into } of reads) assert.equal(disk.bytes.compare(into, 0, granule, offset, offset + granule), 0);
  };
  const lanes = createLanes(6).map(({ raw }) => raw);
  await Promise.all([...lanes, allocatePageAligned(500 * granule)].map(readSome));
});

test("BatchReads tells which reads were not filled: beyond the end, and without a file", async () => {
  await using disk = await openDisk();
  const memory = allocatePageAligned(3 * granule);
  const reads = [disk.bytes.length, 0, disk.bytes.length + granule].map((offset, index) => ({
    offset,
    into: memory.subarray(index * granule, (index + 1) * granule),
  }));
  assert.deepEqual(await batches.read(disk.file.fd, reads), [false, true, false]);
  assert.deepEqual(await batches.read(1_000_000, reads), [false, false, false]);
  assert.deepEqual(await batches.read(disk.file.fd, []), []);
});

async function openDisk() {
  const folder = await mkdtemp(join(tmpdir(), "watari-reads-"));
  const bytes = randomBytes(512 * granule);
  const path = join(folder, "disk");
  await using written = await open(path, "w");
  await written.write(bytes);
  const file = await open(path, constants.O_RDONLY | constants.O_DIRECT);
  return {
    bytes,
    file,
    [Symbol.asyncDispose]: async () => {
      await file.close();
      await rm(folder, { recursive: true });
    },
  };
}
