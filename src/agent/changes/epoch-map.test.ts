// Promises of the epoch map: no change is ever lost, in any interleaving of a writer with tick, scan and acknowledge.

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { granuleBytes } from "../../disk/geometry.ts";
import { cellsOfWrite, layoutCells } from "./cell-layout.ts";
import { EpochMap } from "./epoch-map.ts";
import type { Mark } from "./tracker.ts";

const mib = 2 ** 20;

function openMap(sizeBytes: number, settle: () => void | Promise<void> = () => undefined) {
  const layout = layoutCells(sizeBytes);
  const cells = new Uint8Array(layout.topStart + layout.topCount);
  const kernel = { epoch: 1 };
  const map = new EpochMap(layout, cells, {
    readEpoch: () => kernel.epoch,
    writeEpoch: (epoch) => {
      kernel.epoch = epoch;
    },
    settle,
  });
  const write = (offset: number, length: number, epoch = kernel.epoch): void => {
    const { first, last } = cellsOfWrite(layout, offset, length);
    for (let cell = first; cell <= last; cell++) Atomics.store(cells, cell, epoch);
  };
  const granules = (span: { since?: Mark; until: Mark }): Set<number> => {
    const found = new Set<number>();
    for (const run of map.changed(span)) for (let granule = run.first; granule < run.first + run.count; granule++) found.add(granule);
    return found;
  };
  return { map, layout, kernel, write, granules };
}

const writes = fc.array(
  fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), length: fc.constantFrom(512, 4096, 70_000, 3 * mib, 1500 * mib) }),
  { maxLength: 20 },
);

test("every written granule is in the changes, whatever the disk's size and the writes' lengths", async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(granuleBytes * 3 + 512, 5 * mib, 2 ** 31 + 512, 70 * 2 ** 30), writes, async (sizeBytes, list) => {
      const { map, write, granules } = openMap(sizeBytes);
      const expected = new Set<number>();
      for (const { at, length } of list) {
        const offset = Math.floor((at * (sizeBytes - 512)) / 512) * 512;
        const end = Math.min(offset + length, sizeBytes);
        write(offset, end - offset);
        expected.add(Math.floor(offset / granuleBytes)).add(Math.floor((end - 1) / granuleBytes));
      }
      const runs = [...map.changed({ until: await map.compact() })];
      runs.forEach((run, index) => assert.ok(index === 0 || run.first > (runs[index - 1]?.first ?? 0) + (runs[index - 1]?.count ?? 0)));
      const last = runs.at(-1);
      assert.ok(last === undefined || last.first + last.count <= Math.ceil(sizeBytes / granuleBytes));
      for (const granule of expected) assert.ok(runs.some((run) => granule >= run.first && granule < run.first + run.count));
      if (sizeBytes < 2 ** 32) assert.ok(expected.isSubsetOf(granules({ until: await map.closeEpoch() })));
    }),
    { numRuns: 60 },
  );
});

/**
 * A model of the reader's duty: a granule's newest content must be read at or after its last write. Steps of writers
 * (read the epoch; later store it) are mixed with the agent's steps in any order that the grace wait allows.
 */
test("a replica made of rounds equals the disk after the last round, in every interleaving", async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("begin" as const), granule: fc.nat(7) }),
    fc.constant({ kind: "finish" as const }),
    fc.constant({ kind: "round" as const }),
    fc.constant({ kind: "acknowledge" as const }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const disk = Array.from({ length: 8 }, () => 0);
      const replica = [...disk];
      const running: { granule: number; epoch: number }[] = [];
      let serial = 0;
      // The grace wait: programs that run at its start have stored when it ends.
      const bench = openMap(8 * granuleBytes, () => finish(running.length));
      const finish = (count: number): void => {
        for (const { granule, epoch } of running.splice(0, count)) bench.write(granule * granuleBytes, granuleBytes, epoch);
      };
      let since: Mark | undefined;
      const round = async (): Promise<void> => {
        const until = await bench.map.closeEpoch();
        for (const granule of bench.granules({ until, ...(since === undefined ? {} : { since }) })) replica[granule] = disk[granule] ?? 0;
        since = until;
      };
      for (const { kind, ...more } of steps) {
        if (kind === "finish") finish(1);
        if (kind === "round") await round();
        if (kind === "acknowledge" && since !== undefined) bench.map.acknowledge(since);
        if (kind === "begin" && "granule" in more && typeof more.granule === "number") {
          serial += 1;
          disk[more.granule] = serial; // The data is on the disk before the completion's program runs.
          running.push({ granule: more.granule, epoch: bench.kernel.epoch });
        }
      }
      await round();
      assert.deepEqual(replica, disk);
    }),
    { numRuns: 500 },
  );
});

test("without the grace wait the same model loses changes: the wait is needed", async () => {
  const { map, kernel, write, granules } = openMap(8 * granuleBytes);
  const epochRead = kernel.epoch;
  const first = await map.closeEpoch();
  assert.equal(granules({ until: first }).size, 0);
  write(0, 512, epochRead); // A program that had read the old epoch stores only now.
  assert.equal(granules({ since: first, until: await map.closeEpoch() }).size, 0);
});

test("acknowledge forgets only what was not written again, over many turns of the ring", async () => {
  const { map, write, granules } = openMap(64 * granuleBytes);
  for (let turn = 0; turn < 1000; turn++) {
    write(5 * granuleBytes, 1);
    const until = await map.compact();
    assert.deepEqual([...granules({ until })], [5, ...(turn > 0 ? [9] : [])]);
    write(9 * granuleBytes, 1);
    map.acknowledge(until);
    assert.deepEqual([...granules({ until: await map.closeEpoch() })], [9]);
  }
});
