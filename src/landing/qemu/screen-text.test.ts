// Screens as QEMU dumps them: text, graphics, empty.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseScreen } from "./screen-text.ts";

/** A dump as QEMU prints it: eight cells a line. */
function dumpOf(cells: readonly number[]): string {
  const words = cells.map((cell) => `0x${(0x0700 | cell).toString(16).padStart(4, "0")}`);
  const lines = Array.from({ length: Math.ceil(words.length / 8) }, (_, line) => words.slice(line * 8, line * 8 + 8).join(" "));
  return lines.map((line, index) => `${(0xb8000 + index * 16).toString(16).padStart(16, "0")}: ${line}`).join("\r\n");
}

function screenOf(text: string): readonly number[] {
  const rows = text.split("\n").map((line) => line.padEnd(80, " "));
  return Array.from(rows.join("").padEnd(2000, "\0"), (letter) => letter.codePointAt(0) ?? 0);
}

describe("parseScreen", () => {
  it("reads the text of a screen", () => {
    const text = "SeaBIOS (version 1.16)\n\nBooting from Hard Disk...\ngrub rescue>";
    assert.equal(parseScreen(dumpOf(screenOf(text))), text);
  });

  it("says undefined of an empty screen, of graphics, and of a dump of another size", () => {
    assert.equal(parseScreen(dumpOf(screenOf(""))), undefined);
    assert.equal(parseScreen(dumpOf(Array.from({ length: 2000 }, (_, index) => index % 256))), undefined);
    assert.equal(parseScreen(dumpOf(screenOf("GRUB").slice(0, 1999))), undefined);
  });
});
