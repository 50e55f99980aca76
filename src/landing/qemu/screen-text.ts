// What a machine's screen shows, as text: firmware and boot loaders speak there before any serial console is set up.

import { z } from "zod";
import type { Qmp } from "./qmp.ts";

const columns = 80;
const rows = 25;
/** Where VGA text mode keeps its characters: two bytes a cell, the character first (IBM VGA, mode 3). */
const textMemory = "0xb8000";
const firstPrintable = 0x20;
const lastPrintable = 0x7e;
/** Below this share of blank or printable cells the memory is no text: the guest shows graphics. */
const readableShareMin = 0.95;

/** Trimmed lines of the screen; undefined when it shows graphics or nothing. Reading does not disturb the guest. */
export async function readScreenText(qmp: Qmp): Promise<string | undefined> {
  const command = { "command-line": `xp /${columns * rows}hx ${textMemory}` };
  return parseScreen(z.string().parse(await qmp.execute("human-monitor-command", command)));
}

/** From QEMU's memory dump ("00000000000b8000: 0x0753 0x0765 …") to text. */
export function parseScreen(dump: string): string | undefined {
  const cells = [...dump.matchAll(/\b0x([0-9a-f]{4})\b/g)].map(([, cell = "0"]) => Number.parseInt(cell, 16) & 0xff);
  if (cells.length !== columns * rows) return undefined;
  const isReadable = (cell: number): boolean => cell === 0 || (cell >= firstPrintable && cell <= lastPrintable);
  if (cells.filter((cell) => isReadable(cell)).length < cells.length * readableShareMin) return undefined;
  const text = cells.map((cell) => (isReadable(cell) && cell !== 0 ? String.fromCodePoint(cell) : " ")).join("");
  const lines = Array.from({ length: rows }, (_, row) => text.slice(row * columns, (row + 1) * columns).trimEnd());
  const shown = lines.join("\n").trim();
  return shown === "" ? undefined : shown;
}
