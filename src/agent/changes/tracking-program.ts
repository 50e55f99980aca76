// The eBPF program that marks the cells of completed writes, and the record that it shares with the agent.

import {
  add,
  addNumber,
  andNumber,
  assemble,
  atomicAdd64,
  call,
  exit,
  jump,
  jumpIfAbove,
  jumpIfAtLeast,
  jumpIfDifferent,
  jumpIfEqual,
  jumpIfLess,
  label,
  load32,
  load64,
  load8,
  move,
  set,
  set32,
  set64,
  setMap,
  shiftRight,
  store32,
  store8,
  storeNumber32,
  subtract,
  type Register,
  type Statement,
} from "./assembler.ts";
import { cellsPerRequestMax, elementBytes, elementShift, midShift, topShift, type CellLayout } from "./cell-layout.ts";

/** Byte offsets in the control record, one per disk. The program writes the counters, the agent the rest. */
export const controlRecord = {
  /** u8: the current epoch. */
  epoch: 0,
  /** u64: completions of the disk, reads too: proves that events arrive. */
  completions: 8,
  /** u64: completed requests that could not be marked. Any value but 0 means that changes were missed. */
  lost: 16,
  /** u64: completions outside the disk, as pass-through commands have; they name no place and are not marked. */
  placeless: 24,
  /** u32: kernel device number. */
  device: 32,
  /** u32: cellLayoutVersion. */
  layoutVersion: 36,
  /** u64 */
  sizeBytes: 40,
  /** 16 bytes: the tracking session that the agent's state names. */
  session: 48,
  bytes: 64,
} as const;

/** Offsets of the fields of tracepoint block_rq_complete on the running kernel. */
export interface EventFields {
  readonly device: number;
  readonly sector: number;
  readonly sectorCount: number;
  readonly operation: number;
}

export interface ProgramOptions {
  readonly layout: CellLayout;
  /** (major << 20) | minor */
  readonly device: number;
  readonly fields: EventFields;
  readonly cellsFd: number;
  readonly controlFd: number;
}

const sectorShift = 9;
const mapLookup = 1;
const keyOffset = -4;
const letterR = 0x52;

/** Reads the kernel's description of the tracepoint; undefined when a field is missing. */
export function parseEventFormat(text: string): { readonly eventId: number; readonly fields: EventFields } | undefined {
  const eventId = /^ID: (\d+)$/m.exec(text)?.[1];
  const offsetOf = (name: string): number | undefined => {
    const found = new RegExp(`\\b${name}(?:\\[[^\\]]*\\])?;\\s*offset:(\\d+);`).exec(text)?.[1];
    return found === undefined ? undefined : Number(found);
  };
  const [device, sector, sectorCount, operation] = ["dev", "sector", "nr_sector", "rwbs"].map(offsetOf);
  if (eventId === undefined || device === undefined || sector === undefined || sectorCount === undefined || operation === undefined)
    return undefined;
  return { eventId: Number(eventId), fields: { device, sector, sectorCount, operation } };
}

/** r0 = address of the map's value whose key stands on the stack, or 0. */
function lookUp(mapFd: number): Statement[] {
  return [move(2, 10), addNumber(2, keyOffset), setMap(1, mapFd), call(mapLookup)];
}

function countControl(offset: number, base: Register): Statement[] {
  return [set(1, 1), atomicAdd64(base, offset, 1)];
}

/** Goes to `store` with r8…r9 as cells of the layer when they are few enough, or always for the last layer. */
function tryLayer(shift: number, start: number, isLast: boolean): Statement[] {
  const next = `wider-than-${shift}`;
  return [
    move(1, 8),
    shiftRight(1, shift - sectorShift),
    move(2, 9),
    shiftRight(2, shift - sectorShift),
    ...(isLast ? [] : [move(3, 2), subtract(3, 1), set(4, cellsPerRequestMax), jumpIfAtLeast(3, 4, next)]),
    set64(5, BigInt(start)),
    move(8, 1),
    add(8, 5),
    move(9, 2),
    add(9, 5),
    ...(isLast ? [] : [jump("store"), label(next)]),
  ];
}

/** Everything but a read counts as a write: "not R", because discards are D and write-zeroes N. */
export function buildTrackingProgram(options: ProgramOptions): Uint8Array<ArrayBuffer> {
  const { layout, fields } = options;
  return assemble([
    move(6, 1),
    load32(1, 6, fields.device),
    set32(2, options.device),
    jumpIfDifferent(1, 2, "end"),
    load32(9, 6, fields.sectorCount),
    load64(8, 6, fields.sector),
    load8(7, 6, fields.operation),
    storeNumber32(10, keyOffset, 0),
    ...lookUp(options.controlFd),
    jumpIfEqual(0, 0, "end"),
    ...countControl(controlRecord.completions, 0),
    jumpIfEqual(7, letterR, "end"),
    jumpIfEqual(9, 0, "end"),
    // The epoch is read before any cell is stored; the agent's grace wait covers this whole run.
    load8(7, 0, controlRecord.epoch),
    set64(2, BigInt(layout.sizeBytes) >> BigInt(sectorShift)),
    jumpIfAtLeast(8, 2, "placeless"),
    add(9, 8),
    addNumber(9, -1),
    jumpIfAtLeast(9, 2, "lost"),
    ...tryLayer(layout.fineShift, 0, false),
    ...tryLayer(midShift, layout.midStart, false),
    ...tryLayer(topShift, layout.topStart, true),
    label("store"),
    set(6, 0),
    label("next-cell"),
    jumpIfAbove(8, 9, "end"),
    move(1, 8),
    shiftRight(1, elementShift),
    store32(10, keyOffset, 1),
    ...lookUp(options.cellsFd),
    jumpIfEqual(0, 0, "lost"),
    move(1, 8),
    andNumber(1, elementBytes - 1),
    add(0, 1),
    store8(0, 0, 7),
    addNumber(8, 1),
    addNumber(6, 1),
    jumpIfLess(6, cellsPerRequestMax, "next-cell"),
    jumpIfAbove(8, 9, "end"),
    label("lost"),
    storeNumber32(10, keyOffset, 0),
    ...lookUp(options.controlFd),
    jumpIfEqual(0, 0, "end"),
    ...countControl(controlRecord.lost, 0),
    jump("end"),
    label("placeless"),
    ...countControl(controlRecord.placeless, 0),
    label("end"),
    set(0, 0),
    exit(),
  ]);
}
