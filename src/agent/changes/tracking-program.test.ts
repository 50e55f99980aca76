// Promises of the assembler and of the tracepoint's parser: encoding as the instruction set says, labels, refusals.

import assert from "node:assert/strict";
import { test } from "node:test";
import { assemble, exit, jump, label, load32, move, set, set64, setMap } from "./assembler.ts";
import { layoutCells } from "./cell-layout.ts";
import { buildTrackingProgram, parseEventFormat } from "./tracking-program.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

test("assemble encodes registers, offsets and immediates little-endian", () => {
  assert.equal(hex(assemble([move(6, 1)])), "bf16000000000000");
  assert.equal(hex(assemble([set(0, -1), exit()])), "b7000000ffffffff9500000000000000");
  assert.equal(hex(assemble([load32(1, 6, -4)])), "6161fcff00000000");
  assert.equal(hex(assemble([set64(2, 0x1_2345_6789n)])), "18020000896745230000000001000000");
  assert.equal(hex(assemble([setMap(1, 7)])), "18110000070000000000000000000000");
});

test("assemble counts wide instructions twice when it jumps, forwards and backwards", () => {
  const bytes = assemble([jump("end"), set64(1, 1n), label("back"), label("end"), jump("back")]);
  const view = new DataView(bytes.buffer);
  assert.equal(view.getInt16(2, true), 2);
  assert.equal(view.getInt16(3 * 8 + 2, true), -1);
});

test("assemble refuses labels that are missing or stand twice", () => {
  assert.throws(() => assemble([jump("nowhere")]), /nowhere/);
  assert.throws(() => assemble([label("a"), label("a")]), /once/);
});

const format = `name: block_rq_complete
ID: 1150
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;

\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;
\tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;
\tfield:int error;\toffset:28;\tsize:4;\tsigned:1;
\tfield:char rwbs[8];\toffset:32;\tsize:8;\tsigned:0;
`;

test("parseEventFormat reads the offsets and refuses a format that lacks one", () => {
  assert.deepEqual(parseEventFormat(format), { eventId: 1150, fields: { device: 8, sector: 16, sectorCount: 24, operation: 32 } });
  assert.equal(parseEventFormat(format.replace("nr_sector", "nr_bytes")), undefined);
});

test("buildTrackingProgram stays short and in range for the smallest and the largest disk", () => {
  for (const sizeBytes of [512, 2 ** 40, 64 * 2 ** 40]) {
    const code = buildTrackingProgram({
      layout: layoutCells(sizeBytes),
      device: 8 * 2 ** 20,
      fields: { device: 8, sector: 16, sectorCount: 24, operation: 32 },
      cellsFd: 3,
      controlFd: 4,
    });
    assert.ok(code.length / 8 < 150);
  }
});
