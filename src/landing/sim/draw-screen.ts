// The screen of a simulated machine as a PNG: one grey pixel for each character, so that it differs when its text does (PNG specification, 3rd edition).

import { crc32, deflateSync } from "node:zlib";

const columns = 80;
const rows = 25;
const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

export function drawScreen(text: string): Uint8Array {
  const lines = text.split("\n").slice(-rows);
  const pixels = Buffer.alloc(rows * (1 + columns)); // Each row begins with its filter: none.
  for (const [row, line] of lines.entries()) pixels.write(line.slice(0, columns), row * (1 + columns) + 1, "latin1");
  const head = Buffer.alloc(13);
  head.writeUInt32BE(columns, 0);
  head.writeUInt32BE(rows, 4);
  head[8] = 8; // Bits a pixel; colour type, compression, filter and interlace are 0: grey, deflate, by row, none.
  return Buffer.concat([signature, chunk("IHDR", head), chunk("IDAT", deflateSync(pixels)), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(type: string, content: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), content]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(content.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}
