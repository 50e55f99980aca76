// Runs inside the guest: writes stamps one after the other to several filesystems, and churns others with random writes at a set rate.

import { randomFillSync } from "node:crypto";
import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { allocatePageAligned } from "../../../src/agent/kernel/page-aligned.ts";
import { encodeStamp, placeOf, stampBytes, type StampLayout } from "./stamps.ts";

const churnFileBytes = 32 << 20;
const churnWriteBytes = 8192;
const [task = "", rate = "0", slots = "0", ...folders] = process.argv.slice(2);

interface Stamped {
  readonly file: FileHandle;
  /** Whether each write is durable by itself. */
  readonly isDirect: boolean;
}

/** Two files a filesystem: one past the cache, one through it. */
async function openStamped(layout: StampLayout): Promise<Stamped[]> {
  const opened: Stamped[] = [];
  for (const folder of folders)
    for (const isDirect of [true, false]) {
      const flags = constants.O_RDWR | constants.O_CREAT | (isDirect ? constants.O_DIRECT | constants.O_DSYNC : 0);
      opened.push({ file: await open(join(folder, `stamps-${isDirect ? "direct" : "cached"}`), flags), isDirect });
    }
  const page = allocatePageAligned(stampBytes);
  for (const [file, stamped] of opened.entries()) {
    for (let slot = 0; slot < layout.slots; slot++) {
      encodeStamp(page, { sequence: 0, place: { file, slot }, timeMs: systemClock.nowMs() });
      await stamped.file.write(page, 0, stampBytes, slot * stampBytes);
    }
    await stamped.file.sync();
  }
  return opened;
}

async function writeStamps(): Promise<void> {
  const layout = { files: folders.length * 2, slots: Number(slots) };
  const files = await openStamped(layout);
  process.stdout.write("ready\n");
  const page = allocatePageAligned(stampBytes);
  for (let sequence = 1; ; sequence++) {
    const place = placeOf(layout, sequence);
    const stamped = files[place.file];
    if (stamped === undefined) throw new Error("assertion failed: every stamp has a file");
    encodeStamp(page, { sequence, place, timeMs: systemClock.nowMs() });
    await stamped.file.write(page, 0, stampBytes, place.slot * stampBytes);
    if (!stamped.isDirect) await stamped.file.datasync();
  }
}

/** Random writes through the cache, at `rate` bytes a second over all folders. */
async function churn(): Promise<void> {
  const files = await Promise.all(folders.map(async (folder) => await open(join(folder, "churn"), "w+")));
  for (const file of files) {
    const megabyte = Buffer.alloc(1 << 20);
    for (let at = 0; at < churnFileBytes; at += megabyte.length) await file.write(randomFillSync(megabyte), 0, megabyte.length, at);
    await file.sync();
  }
  process.stdout.write("ready\n");
  const bytes = randomFillSync(Buffer.alloc(churnWriteBytes));
  const startMs = systemClock.monotonicMs();
  const place = Buffer.alloc(4);
  for (let written = 0; ; written += bytes.length) {
    randomFillSync(place);
    const file = files[(written / churnWriteBytes) % files.length];
    const at = (place.readUInt32BE(0) % (churnFileBytes / churnWriteBytes)) * churnWriteBytes;
    await file?.write(bytes, 0, bytes.length, at);
    const aheadMs = (written / Number(rate)) * 1000 - (systemClock.monotonicMs() - startMs);
    if (aheadMs > 20) await systemClock.sleep(aheadMs);
  }
}

await (task === "stamps" ? writeStamps() : churn());
