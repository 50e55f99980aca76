// Runs inside the guest under load: writes stamps one after the other to several filesystems, or churns files with random writes, both at a set rate.

import { randomFillSync, randomInt } from "node:crypto";
import { constants, openSync, writeSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { allocatePageAligned } from "../../../src/agent/kernel/page-aligned.ts";
import { encodeStamp, placeOf, stampBytes, type StampLayout } from "./stamps.ts";

const churnWriteBytes = 8192;
/** Written over and over: so much that what is sent together holds nothing twice, and packing wins nothing. */
const churnPoolBytes = 16 << 20;
const churnFileBytes = 32 << 20;
const [task = "", rate = "1", slots = "0", ...folders] = process.argv.slice(2);

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
  const startMs = systemClock.monotonicMs();
  for (let sequence = 1; ; sequence++) {
    const place = placeOf(layout, sequence);
    const stamped = files[place.file];
    if (stamped === undefined) throw new Error("assertion failed: every stamp has a file");
    encodeStamp(page, { sequence, place, timeMs: systemClock.nowMs() });
    await stamped.file.write(page, 0, stampBytes, place.slot * stampBytes);
    if (!stamped.isDirect) await stamped.file.datasync();
    const aheadMs = (sequence / Number(rate)) * 1000 - (systemClock.monotonicMs() - startMs);
    if (aheadMs > 0) await systemClock.sleep(aheadMs);
  }
}

/** Random writes through the cache, at `rate` bytes a second over all folders, in bursts of a few milliseconds. */
async function churn(): Promise<void> {
  const pool = randomFillSync(Buffer.alloc(churnPoolBytes));
  const files = folders.map((folder) => openSync(join(folder, "churn"), "w+"));
  for (const file of files) for (let at = 0; at < churnFileBytes; at += pool.length) writeSync(file, pool, 0, pool.length, at);
  process.stdout.write("ready\n");
  const startMs = systemClock.monotonicMs();
  for (let written = 0; ;) {
    const dueBytes = ((systemClock.monotonicMs() - startMs) / 1000) * Number(rate);
    for (; written < dueBytes; written += churnWriteBytes) {
      const slot = randomInt(churnFileBytes / churnWriteBytes);
      const file = files[(written / churnWriteBytes) % files.length] ?? -1;
      writeSync(file, pool, written % pool.length, churnWriteBytes, slot * churnWriteBytes);
    }
    await systemClock.sleep(25);
  }
}

await (task === "stamps" ? writeStamps() : churn());
