// The index beside a plain model: whatever is added, merged, killed or damaged, it never gives a wrong place and never loses one silently.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { cp, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { Fault } from "../contract/errors.ts";
import { parseAreaId, parseMachineId, parsePackId } from "../contract/ids.ts";
import { idOf } from "../disk/digest.ts";
import { EntryIndex, type OpenedIndex } from "./entry-index.ts";
import type { KeptPack } from "./index-manifest.ts";
import type { IndexEntry } from "./index-row.ts";

const areaId = parseAreaId(randomUUID());
const ownerId = parseMachineId(randomUUID());
const digests = Array.from({ length: 40 }, (_, index) => idOf(Buffer.from(`content ${index}`)));
const digestAt = (choice: number): Uint8Array => digests[choice % digests.length] ?? assert.fail("a digest");

interface ModelPack extends KeptPack {
  lastTable: number;
  readonly entries: { readonly choice: number; readonly entry: IndexEntry }[];
}

/** What Entries does around the index, over packs that exist here alone. */
class Model {
  readonly packs = new Map<number, ModelPack>();
  nextPackNumber = 0;

  readonly options = {
    isAlive: (packNumber: number) => this.packs.has(packNumber),
    keptPacks: (table: number) => ({
      nextPackNumber: this.nextPackNumber,
      packs: [...this.packs.values()].filter((pack) => pack.lastTable <= table),
    }),
  };

  addPack(index: EntryIndex, choices: readonly number[], place = choices): void {
    const facts = { packId: parsePackId(randomUUID()), areaId, ownerId, writtenAtMs: 5, sizeBytes: 100, entryBytes: 80, digestBytes: 10 };
    const sealHead = { generation: 1, salt: new Uint8Array(32) };
    const number = this.nextPackNumber++;
    const pack: ModelPack = { ...facts, sealHead, number, entryCount: choices.length, lastTable: 0, entries: [] };
    this.packs.set(number, pack);
    for (const [ordinal, choice] of choices.entries()) {
      const isPatch = choice % 3 === 0;
      const form = isPatch ? ("patch" as const) : ("full" as const);
      const shape = { kind: choice % 2 === 0 ? ("block" as const) : ("page" as const), method: "zstd" as const, form };
      const basis = { depth: isPatch ? 1 : 0, baseId: isPatch ? Buffer.from(digestAt(choice + 1)) : undefined };
      const entry = { packNumber: number, ordinal, offset: (place[ordinal] ?? 0) * 100, length: 77, ...shape, ...basis };
      index.add(digestAt(choice), entry);
      pack.entries.push({ choice, entry });
      pack.lastTable = index.tableNumber;
    }
  }

  async check(index: EntryIndex): Promise<void> {
    await index.prefetch(digests);
    for (const [choice, id] of digests.entries())
      for (const kind of ["block", "page"] as const) {
        const expected = [...this.packs.values()].flatMap(({ entries }) =>
          entries.filter((each) => each.choice % digests.length === choice && each.entry.kind === kind).map(({ entry }) => entry),
        );
        const found = index.all(kind, id).filter(({ packNumber }) => this.packs.has(packNumber));
        assert.deepEqual(found, expected);
      }
  }

  /** As after a start of the program: what the index did not keep is told again, by packs of other numbers. */
  resume({ index, packs, nextPackNumber }: OpenedIndex): void {
    assert.ok(nextPackNumber <= this.nextPackNumber);
    const kept = new Set(packs.map(({ number }) => number));
    const lost = [...this.packs.values()].filter(({ number }) => !kept.has(number));
    for (const pack of this.packs.values()) pack.lastTable = 0;
    this.nextPackNumber = nextPackNumber;
    for (const { number } of lost) this.packs.delete(number);
    for (const { entries } of lost)
      this.addPack(
        index,
        entries.map(({ choice }) => choice),
      );
  }
}

async function inFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "watari-index-"));
  try {
    await test(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function openModelled(model: Model, folder: string): Promise<OpenedIndex> {
  return await EntryIndex.open({ folder, tableEntriesMax: 16, ...model.options });
}

const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant("add" as const), choices: fc.array(fc.nat(119), { maxLength: 12 }) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("drop" as const), choice: fc.nat(20) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("check" as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("reopen" as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("kill" as const), turns: fc.nat(60) }) },
  ),
  { minLength: 10, maxLength: 60 },
);

describe("EntryIndex", () => {
  it("gives what a plain map gives, over merges, closings and kills at any moment", async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (list) => {
        await inFolder(async (root) => {
          const model = new Model();
          let folder = join(root, "0");
          let opened = await openModelled(model, folder);
          for (const [at, step] of list.entries())
            switch (step.kind) {
              case "add":
                await opened.index.settle();
                model.addPack(opened.index, step.choices);
                break;
              case "drop":
                model.packs.delete([...model.packs.keys()][step.choice] ?? -1);
                break;
              case "check":
                await model.check(opened.index);
                break;
              case "reopen":
                await opened.index[Symbol.asyncDispose]();
                opened = await openModelled(model, folder);
                assert.equal(opened.packs.length, model.packs.size, "a closed index knows all");
                model.resume(opened);
                break;
              case "kill": {
                // What a kill leaves is what stands in the folder at that moment, with a run or a merge half written.
                for (let turn = 0; turn < step.turns; turn++) await new Promise((resolve) => setImmediate(resolve));
                const copy = join(root, String(at + 1));
                await copyFolder(folder, copy);
                await opened.index[Symbol.asyncDispose]();
                folder = copy;
                opened = await openModelled(model, folder);
                model.resume(opened);
                break;
              }
            }
          await model.check(opened.index);
          await opened.index[Symbol.asyncDispose]();
        });
      }),
      { numRuns: 60 },
    );
  });

  it("with a flipped bit or a cut anywhere gives what was added, or says that it is damaged and starts anew", async () => {
    await inFolder(async (root) => {
      const model = new Model();
      const folder = join(root, "whole");
      const { index } = await openModelled(model, folder);
      for (let count = 0; count < 30; count++) {
        model.addPack(
          index,
          Array.from({ length: 9 }, (_, each) => (count * 7 + each * 5) % 120),
        );
        await index.settle();
      }
      await index[Symbol.asyncDispose]();
      let damagedCount = 0;
      for (const name of await readdir(folder))
        for (let part = 0; part < 24; part++) {
          const copy = join(root, "harmed");
          await cp(folder, copy, { recursive: true });
          await harm(join(copy, name), part);
          const opened = await openModelled(model, copy);
          try {
            // An index that starts anew knows no pack: Entries then reads them from the store.
            if (opened.packs.length > 0) await model.check(opened.index);
            else assert.equal(opened.nextPackNumber, 0);
          } catch (error) {
            assert.ok(error instanceof Fault && error.code === "DataDamaged", String(error));
            damagedCount += 1;
            assert.throws(() => opened.index.all("block", digestAt(0)), Fault);
            await opened.index[Symbol.asyncDispose]();
            const again = await openModelled(model, copy);
            assert.equal(again.packs.length, 0);
            await again.index[Symbol.asyncDispose]();
          }
          await opened.index[Symbol.asyncDispose]();
          await rm(copy, { recursive: true });
        }
      assert.ok(damagedCount > 0);
    });
  });
});

/** As cp, of a folder whose files come and go. */
async function copyFolder(from: string, to: string): Promise<void> {
  await cp(from, to, { recursive: true, filter: (source) => source === from }); // The folder itself.
  // The list first: files that it does not name are of no use, and those that it names are removed only after a newer list.
  for (let attempt = 0; ; attempt++) {
    try {
      for (const name of (await readdir(from)).sort()) await cp(join(from, name), join(to, name));
      return;
    } catch (error) {
      if (attempt > 100 || !(error instanceof Error) || !("code" in error) || error.code !== "ENOENT") throw error;
      for (const name of await readdir(to)) await rm(join(to, name));
    }
  }
}

async function harm(path: string, part: number): Promise<void> {
  await using file = await open(path, "r+");
  const { size } = await file.stat();
  const at = Math.min(size - 1, Math.floor((size * (part >> 1)) / 12) + part);
  if (part % 2 === 1) return await file.truncate(at);
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ (1 << (part % 8));
  await file.write(byte, 0, 1, at);
}
