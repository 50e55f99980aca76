// A guest of one boot sector, for tests of disks: it writes itself by the BIOS to places at equal distances, says so on the console, and halts.

import { blockBytes } from "../../disk/geometry.ts";

const sectorBytes = 512;
const loadedAt = 0x7c00;

export interface WritingGuest {
  readonly firstOffset: number;
  readonly strideBytes: number;
  /** At most 65535. */
  readonly writeCount: number;
}

/** Its last word on the serial console, after the last write. */
export const writingGuestDone = "D";

/** Intel's manual and the BIOS's extended write (int 13h, ah 43h) give the bytes; each line is one instruction. */
export function writingGuestSector({ firstOffset, strideBytes, writeCount }: WritingGuest): Buffer {
  const packet = 0x60;
  const count = 0x58;
  const word = (value: number): readonly number[] => [value & 0xff, (value >> 8) & 0xff];
  const code = Buffer.from([
    ...[0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, ...word(loadedAt), 0xfb], // cli; ds = es = ss = 0; sp; sti
    ...[0xbe, ...word(loadedAt + packet)], // again: mov si, packet
    ...[0xb8, ...word(0x4300)], // mov ax, 4300h
    ...[0xcd, 0x13], // int 13h; dl is the drive
    ...[0x81, 0x06, ...word(loadedAt + packet + 8), ...word(strideBytes / sectorBytes)], // add word [lba], stride
    ...[0x83, 0x16, ...word(loadedAt + packet + 10), 0x00], // adc word [lba + 2], 0
    ...[0xff, 0x0e, ...word(loadedAt + count)], // dec word [count]
    ...[0x75, 0xe7], // jnz again
    ...[0xba, ...word(0x3f8), 0xb0, writingGuestDone.charCodeAt(0), 0xee], // mov dx, 3f8h; mov al, 'D'; out dx, al
    ...[0xf4, 0xeb, 0xfd], // hlt; jmp hlt
  ]);
  const sector = Buffer.alloc(sectorBytes);
  sector.set(code);
  sector.writeUInt16LE(writeCount, count);
  sector.set([0x10, 0, 1, 0, ...word(loadedAt), 0, 0], packet);
  sector.writeBigUInt64LE(BigInt(firstOffset / sectorBytes), packet + 8);
  sector.set([0x55, 0xaa], sectorBytes - 2);
  return sector;
}

/** Blocks that it writes, in order. */
export function writtenBlocks({ firstOffset, strideBytes, writeCount }: WritingGuest): readonly number[] {
  return [...new Set(Array.from({ length: writeCount }, (_, index) => Math.floor((firstOffset + index * strideBytes) / blockBytes)))];
}
