// Archives of the cpio writer are read back whole, and damaged ones are refused, never guessed.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { Fault } from "../../contract/errors.ts";
import { cpioTypes, readCpio, writeCpio, type CpioEntry } from "./cpio.ts";
import { appendArchive, packArchive, readInitrd } from "./initrd.ts";

const entryArbitrary: fc.Arbitrary<CpioEntry> = fc.record({
  name: fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,11}(\/[a-zA-Z0-9_-]{1,12}){0,3}$/),
  mode: fc.constantFrom(cpioTypes.file | 0o644, cpioTypes.folder | 0o755, cpioTypes.link | 0o777),
  content: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
});
const entriesArbitrary = fc.array(entryArbitrary, { maxLength: 12 });
const given = { name: "initrd.img", scratchFolder: "/nonexistent" };

describe("cpio", () => {
  it("reads back what it wrote, padded to 512 bytes", () => {
    fc.assert(
      fc.property(entriesArbitrary, (entries) => {
        const archive = writeCpio(entries);
        assert.equal(archive.length % 512, 0);
        const reading = readCpio(archive);
        assert.ok(reading.kind === "read");
        const plain = (each: readonly CpioEntry[]) =>
          each.map(({ name, mode, content }) => [name, mode, Buffer.from(content).toString("hex")]);
        assert.deepEqual(plain(reading.entries), plain(entries));
      }),
    );
  });

  it("refuses every truncation before the trailer", () => {
    const archive = writeCpio([{ name: "a/b", mode: cpioTypes.file, content: Buffer.alloc(100, 7) }]);
    const trailerEnd = archive.indexOf("TRAILER!!!") + 11;
    for (let length = 0; length < trailerEnd; length++) assert.equal(readCpio(archive.subarray(0, length)).kind, "broken");
    assert.equal(readCpio(archive.subarray(0, trailerEnd)).kind, "read");
  });

  it("never throws on random bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => void readCpio(Buffer.from(bytes))));
    const archive = writeCpio([{ name: "a", mode: cpioTypes.file, content: Buffer.alloc(10) }]);
    fc.assert(
      fc.property(fc.nat(archive.length - 1), fc.nat(255), (at, value) => {
        const bytes = Buffer.from(archive);
        bytes[at] = value;
        readCpio(bytes);
      }),
    );
  });
});

describe("initramfs images", () => {
  const packers = {
    none: (bytes: Buffer) => bytes,
    gzip: (bytes: Buffer) => gzipSync(bytes),
    zstd: (bytes: Buffer) => zstdCompressSync(bytes),
  };
  for (const [compression, pack] of Object.entries(packers)) {
    it(`shows an early, a ${compression} main and an appended archive; the old bytes stay`, async () => {
      await fc.assert(
        fc.asyncProperty(entriesArbitrary, entriesArbitrary, entriesArbitrary, async (early, main, added) => {
          const image = Buffer.concat([writeCpio(early), pack(writeCpio(main))]);
          const content = await readInitrd(image, given);
          assert.equal(content.compression, compression);
          const longer = appendArchive(image, packArchive(added, content.compression));
          assert.ok(longer.subarray(0, image.length).equals(image));
          const { types } = await readInitrd(longer, given);
          const expected = new Map([...early, ...main, ...added].map(({ name, mode }) => [name, mode & cpioTypes.mask]));
          assert.deepEqual(types, expected);
        }),
        { numRuns: 50 },
      );
    });
  }

  it("refuses what is no initramfs with a Fault", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 300 }), async (bytes) => {
        if (bytes.every((byte) => byte === 0)) return;
        // Formats of outside tools need their scratch folder, which is not there: a Fault as well.
        await assert.rejects(readInitrd(Buffer.from(bytes), given), Fault);
      }),
      { numRuns: 300 },
    );
  });
});
