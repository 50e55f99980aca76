// Initramfs images in every packing that distributions use are read, early archives before them, and our archive behind them.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { cpioTypes, writeCpio } from "./cpio.ts";
import { appendArchive, packArchive, readInitrd, type Compression } from "./initrd.ts";

const scratchFolder = mkdtempSync(join(tmpdir(), "initrd-"));
after(() => rmSync(scratchFolder, { recursive: true }));

const file = (name: string) => ({ name, mode: cpioTypes.file | 0o644, content: Buffer.from(name) });
const early = writeCpio([file("kernel/x86/microcode/GenuineIntel.bin")]);
const main = writeCpio([file("usr/lib/modules/6/kernel/ext4.ko"), file("init")]);

/** As the distributions call the programs; the kernel reads lz4 in its old form and xz with CRC32 only. */
const packers: readonly { readonly compression: Compression; readonly command?: readonly string[] }[] = [
  { compression: "none" },
  { compression: "gzip" },
  { compression: "zstd" },
  { compression: "xz", command: ["xz", "--check=crc32", "-c"] },
  { compression: "lzma", command: ["xz", "--format=lzma", "-c"] },
  { compression: "lz4", command: ["lz4", "-l", "-c", "-q"] },
  { compression: "bzip2", command: ["bzip2", "-c"] },
];

function packed(compression: Compression, command: readonly string[]): Buffer | undefined {
  if (compression === "none") return main;
  if (compression === "gzip") return gzipSync(main);
  if (compression === "zstd") return zstdCompressSync(main);
  const [program = "", ...args] = command;
  const { status, stdout } = spawnSync(program, args, { input: main });
  return status === 0 ? stdout : undefined;
}

describe("readInitrd", () => {
  for (const { compression, command = [] } of packers)
    it(`reads an image packed with ${compression}, and the archive that was put behind it`, async (test) => {
      const body = packed(compression, command);
      if (body === undefined) return test.skip(`${command[0] ?? ""} is not installed`);
      const image = Buffer.concat([early, body]);
      const given = { name: "initrd", scratchFolder };
      const first = await readInitrd(image, given);
      assert.equal(first.compression, compression);
      assert.deepEqual([...first.types.keys()].sort(), [
        "init",
        "kernel/x86/microcode/GenuineIntel.bin",
        "usr/lib/modules/6/kernel/ext4.ko",
      ]);
      const longer = appendArchive(image, packArchive([file("usr/lib/modules/6/kernel/virtio_blk.ko")], first.compression));
      assert.ok(longer.subarray(0, image.length).equals(image), "the old bytes stay");
      const second = await readInitrd(longer, given);
      assert.deepEqual(
        [...second.types.keys()].filter((name) => !first.types.has(name)),
        ["usr/lib/modules/6/kernel/virtio_blk.ko"],
      );
    });
});
