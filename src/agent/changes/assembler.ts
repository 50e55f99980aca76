// A small assembler for eBPF: instructions as values, jumps by label. See kernel.org, BPF Instruction Set (ISA).

import { assert } from "../../base/assert.ts";

export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;

interface Instruction {
  readonly opcode: number;
  readonly target?: Register;
  readonly source?: number;
  /** A signed 16-bit offset, or the label that a jump goes to. */
  readonly offset?: number | string;
  readonly immediate?: number;
  /** Upper half of a 64-bit immediate: the instruction takes two slots. */
  readonly upper?: number;
}

export type Statement = Instruction | { readonly label: string };

export const label = (name: string): Statement => ({ label: name });
export const move = (target: Register, source: Register): Statement => ({ opcode: 0xbf, target, source });
export const set = (target: Register, immediate: number): Statement => ({ opcode: 0xb7, target, immediate });
/** Sets the lower half and clears the upper: for unsigned 32-bit values. */
export const set32 = (target: Register, immediate: number): Statement => ({ opcode: 0xb4, target, immediate });
export const set64 = (target: Register, value: bigint): Statement => ({
  opcode: 0x18,
  target,
  immediate: Number(BigInt.asIntN(32, value)),
  upper: Number(BigInt.asIntN(32, value >> 32n)),
});
/** Address of a map, by its file descriptor. */
export const setMap = (target: Register, mapFd: number): Statement => ({ opcode: 0x18, target, source: 1, immediate: mapFd, upper: 0 });
export const add = (target: Register, source: Register): Statement => ({ opcode: 0x0f, target, source });
export const addNumber = (target: Register, immediate: number): Statement => ({ opcode: 0x07, target, immediate });
export const subtract = (target: Register, source: Register): Statement => ({ opcode: 0x1f, target, source });
export const andNumber = (target: Register, immediate: number): Statement => ({ opcode: 0x57, target, immediate });
export const shiftRight = (target: Register, bits: number): Statement => ({ opcode: 0x77, target, immediate: bits });
export const load8 = (target: Register, source: Register, offset: number): Statement => ({ opcode: 0x71, target, source, offset });
export const load32 = (target: Register, source: Register, offset: number): Statement => ({ opcode: 0x61, target, source, offset });
export const load64 = (target: Register, source: Register, offset: number): Statement => ({ opcode: 0x79, target, source, offset });
export const store8 = (target: Register, offset: number, source: Register): Statement => ({ opcode: 0x73, target, source, offset });
export const store32 = (target: Register, offset: number, source: Register): Statement => ({ opcode: 0x63, target, source, offset });
export const storeNumber32 = (target: Register, offset: number, immediate: number): Statement => ({
  opcode: 0x62,
  target,
  offset,
  immediate,
});
export const atomicAdd64 = (target: Register, offset: number, source: Register): Statement => ({ opcode: 0xdb, target, source, offset });
export const jump = (to: string): Statement => ({ opcode: 0x05, offset: to });
export const jumpIfEqual = (target: Register, immediate: number, to: string): Statement => ({
  opcode: 0x15,
  target,
  immediate,
  offset: to,
});
export const jumpIfLess = (target: Register, immediate: number, to: string): Statement => ({ opcode: 0xa5, target, immediate, offset: to });
export const jumpIfDifferent = (target: Register, source: Register, to: string): Statement => ({
  opcode: 0x5d,
  target,
  source,
  offset: to,
});
/** Unsigned comparisons. */
export const jumpIfAbove = (target: Register, source: Register, to: string): Statement => ({ opcode: 0x2d, target, source, offset: to });
export const jumpIfAtLeast = (target: Register, source: Register, to: string): Statement => ({ opcode: 0x3d, target, source, offset: to });
export const call = (helper: number): Statement => ({ opcode: 0x85, immediate: helper });
export const exit = (): Statement => ({ opcode: 0x95 });

/** Bytes of the program, little-endian as on every machine that the agent runs on. */
export function assemble(statements: readonly Statement[]): Uint8Array<ArrayBuffer> {
  const places = new Map<string, number>();
  const instructions: { readonly at: number; readonly instruction: Instruction }[] = [];
  let slot = 0;
  for (const statement of statements) {
    if ("label" in statement) {
      assert(!places.has(statement.label), `the label ${statement.label} stands once`);
      places.set(statement.label, slot);
    } else {
      instructions.push({ at: slot, instruction: statement });
      slot += statement.upper === undefined ? 1 : 2;
    }
  }
  const bytes = new Uint8Array(slot * 8);
  const view = new DataView(bytes.buffer);
  for (const { at, instruction } of instructions) {
    const { opcode, target = 0, source = 0, offset = 0, immediate = 0, upper } = instruction;
    bytes[at * 8] = opcode;
    bytes[at * 8 + 1] = target | (source << 4);
    view.setInt16(at * 8 + 2, typeof offset === "number" ? offset : distance(places, offset, at), true);
    view.setInt32(at * 8 + 4, immediate | 0, true);
    if (upper !== undefined) view.setInt32(at * 8 + 12, upper, true);
  }
  return bytes;
}

function distance(places: ReadonlyMap<string, number>, name: string, from: number): number {
  const place = places.get(name);
  assert(place !== undefined, `the label ${name} stands somewhere`);
  const slots = place - from - 1;
  assert(slots >= -32_768 && slots <= 32_767, `the jump to ${name} is near enough`);
  return slots;
}
