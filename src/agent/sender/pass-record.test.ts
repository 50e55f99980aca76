// The record of a pass: what it gives back, and that it gives nothing back to another subject.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { PassRecord, removePassRecords } from "./pass-record.ts";

const subject = { diskId: "serial-a", session: "ab", sizeBytes: 200 * 65_536, excluded: "[]" };

test("PassRecord gives back what was written, to the same subject that goes on, and to nobody else", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "watari-pass-"));
  t.after(async () => await rm(folder, { recursive: true }));
  const [full, last] = [randomBytes(64 * 32), randomBytes(8 * 32)];
  {
    await using record = await PassRecord.open(folder, subject, "anew");
    await record.write(1, full);
    await record.write(3, last);
    assert.deepEqual(
      [0, 1, 2, 3].map((frame) => record.has(frame)),
      [false, true, false, true],
    );
  }
  {
    await using record = await PassRecord.open(folder, subject, "goOn");
    assert.equal(record.frameCount, 2);
    const [one, three] = [new Uint8Array(64 * 32), new Uint8Array(8 * 32)];
    await record.read(1, one);
    await record.read(3, three);
    assert.ok(full.equals(one) && last.equals(three));
    await record.forget(1);
  }
  {
    await using record = await PassRecord.open(folder, subject, "goOn");
    assert.equal(record.has(1), false);
  }
  await truncate(join(folder, "passes", "serial-a"), 4097);
  {
    await using record = await PassRecord.open(folder, subject, "goOn");
    assert.equal(record.frameCount, 0, "a record that was cut is none");
    await record.write(0, full);
  }
  for (const other of [{ session: "cd" }, { sizeBytes: 201 * 65_536 }, { excluded: "[1]" }]) {
    await using record = await PassRecord.open(folder, { ...subject, ...other }, "goOn");
    assert.equal(record.frameCount, 0);
    await record.write(0, full);
  }
  await removePassRecords(folder);
  assert.deepEqual(await readdir(join(folder, "passes")), []);
});
