// Promises of replication: the replica equals the source at each point, through writes, cuts at every frame, restarts and reboots.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { blockBytes } from "../../disk/geometry.ts";
import { createAgentLog } from "../log.ts";
import { SimulatedSource } from "../sim/simulated-source.ts";
import { frameTypes } from "../../contract/agent-frames.ts";
import { rootOf, ScriptedReceiver, type Mischief } from "../testing/scripted-receiver.ts";
import { Replicator } from "./replicator.ts";

const policy = { pointIntervalSeconds: 3600, freezeMsMax: 2000 };
const excluded = [{ offset: 65_536 * 5 + 4096, length: 8192 }];
const sizes = [40 * blockBytes + 512, 9 * blockBytes];

interface Bench extends AsyncDisposable {
  readonly source: SimulatedSource;
  readonly receiver: ScriptedReceiver;
  /** A new agent process over the same machine and state. */
  start(): Promise<Replicator>;
  content(disk: number): Promise<Uint8Array>;
  write(disk: number, offset: number, bytes: Uint8Array): Promise<void>;
}

async function openBench(mischief: Mischief = {}): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), "watari-agent-"));
  const disks = await Promise.all(
    sizes.map(async (size, index) => {
      const bytes = randomBytes(size);
      bytes.fill(0, 2 * blockBytes, 4 * blockBytes);
      await writeFile(join(folder, `disk${index}`), bytes);
      const facts = {
        diskId: parseDiskId(`serial-${index}`),
        deviceName: `d${index}`,
        identifiedBy: "serial" as const,
        isBoot: index === 0,
      };
      return { path: join(folder, `disk${index}`), facts: { ...facts, excluded: index === 0 ? excluded : [] } };
    }),
  );
  const facts = { hostname: "bench", smbiosUuid: "u", osMachineId: "m", bootId: randomUUID(), osName: "o", kernelRelease: "k" };
  const machine = { ...facts, firmware: "bios" as const, cpuCount: 1, memoryBytes: 1, addresses: [], nics: [] };
  const source = await SimulatedSource.open({ clock: systemClock, random: systemRandom, facts: machine, disks });
  const receiver = new ScriptedReceiver(mischief);
  const log = createAgentLog({ clock: systemClock, write: () => undefined });
  return {
    source,
    receiver,
    start: async () => {
      const replicator = new Replicator({
        source,
        stateFolder: join(folder, "state"),
        connect: () => Promise.resolve(receiver.connect()),
        clock: systemClock,
        random: systemRandom,
        log,
        cpuSeconds: () => 0,
        residentBytes: () => 0,
      });
      await replicator.load();
      await replicator.replicate(policy);
      return replicator;
    },
    content: async (disk) => {
      const padded = new Uint8Array(Math.ceil((sizes[disk] ?? 0) / blockBytes) * blockBytes);
      padded.set(await readFile(join(folder, `disk${disk}`)));
      if (disk === 0) for (const range of excluded) padded.fill(0, range.offset, range.offset + range.length);
      return padded;
    },
    write: (disk, offset, bytes) => source.write(`serial-${disk}`, offset, bytes),
    [Symbol.asyncDispose]: async () => {
      await source[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function assertReplica(bench: Bench): Promise<void> {
  assert.deepEqual(bench.receiver.breaches, []);
  for (const index of sizes.keys()) {
    const replica = bench.receiver.newest?.disks.get(`serial-${index}`);
    assert.ok(replica !== undefined && Buffer.compare(replica, await bench.content(index)) === 0, `disk ${index} equals its source`);
  }
}

const modesOf = (bench: Bench): string[] => (bench.receiver.begins.at(-1)?.disks ?? []).map((disk) => disk.mode);

test("Replicator copies whole disks, then only what changed", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  await assertReplica(bench);
  assert.deepEqual(modesOf(bench), ["full", "full"]);
  const readBefore = agent.state().readBytes;
  await bench.write(0, 12_345, randomBytes(70_000));
  await bench.write(1, 0, new Uint8Array(blockBytes));
  await bench.write(0, 40 * blockBytes + 100, randomBytes(412));
  await bench.write(0, excluded[0]?.offset ?? 0, randomBytes(100));
  await agent.point();
  await assertReplica(bench);
  assert.deepEqual(modesOf(bench), ["delta", "delta"]);
  assert.ok(agent.state().readBytes - readBefore < 4 * blockBytes, "little more than the changes was read");
});

test("Replicator sends writes that come while the point is made", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  let frames = 0;
  bench.receiver.onFrame = async () => {
    frames += 1;
    if (frames < 30 && bench.source.freezeCount === 0)
      await bench.write(frames % 2, (frames * 13_337) % (8 * blockBytes), randomBytes(600));
  };
  await agent.point();
  await assertReplica(bench);
  assert.equal(bench.source.freezeCount, 1);
});

test("Replicator loses nothing wherever the connection is cut", async () => {
  for (let cutAtFrame = 1; cutAtFrame < 14; cutAtFrame++) {
    await using bench = await openBench();
    await using agent = await bench.start();
    await agent.point();
    bench.receiver.mischief.cutAtFrame = bench.receiver.frameCount + cutAtFrame;
    for (let round = 0; round < 3; round++) await bench.write(round % 2, round * 100_000, randomBytes(9000));
    for (let attempt = 0; attempt < 3; attempt++) {
      await agent.point().catch((error: unknown) => assert.equal(error instanceof Fault && error.code, "AgentProtocolBroken"));
      await bench.write(0, 20 * blockBytes + attempt * 5000, randomBytes(10));
    }
    delete bench.receiver.mischief.cutAtFrame;
    await agent.point();
    await assertReplica(bench);
  }
});

test("Replicator begins anew on a fresh connection after a point that failed on its own side", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  await bench.write(0, 0, randomBytes(4096));
  bench.receiver.onFrame = () => bench.source.loseEvents("serial-1");
  await assert.rejects(agent.point(), { code: "TrackingRefused" });
  bench.receiver.onFrame = () => undefined;
  await agent.point();
  await assertReplica(bench);
});

test("Replicator takes up again after a cut in the middle of the initial copy", async () => {
  await using bench = await openBench({ cutAtFrame: 3 });
  await using agent = await bench.start();
  await assert.rejects(agent.point(), { code: "AgentProtocolBroken" });
  await agent.point();
  await assertReplica(bench);
});

test("Replicator counts from the older base when the seal's answer was lost", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  const base = bench.receiver.begins.at(-1)?.pointId;
  await bench.write(0, 0, randomBytes(5000));
  bench.receiver.mischief.cutBeforeSealed = true;
  await assert.rejects(agent.point(), { code: "AgentProtocolBroken" });
  await agent.point();
  assert.equal(bench.receiver.begins.at(-1)?.disks[0]?.basePointId, base);
  await assertReplica(bench);
});

test("Replicator goes on with deltas after its own restart, and compares everything after a reboot", async () => {
  await using bench = await openBench();
  {
    await using first = await bench.start();
    await first.point();
  }
  await bench.write(1, 4096, randomBytes(4096));
  await using second = await bench.start();
  await second.point();
  assert.deepEqual(modesOf(bench), ["delta", "delta"]);
  await assertReplica(bench);
  bench.source.reboot();
  await bench.write(1, 8 * blockBytes, randomBytes(4096));
  await using third = await bench.start();
  await third.point();
  assert.deepEqual(modesOf(bench), ["checksum", "checksum"]);
  await assertReplica(bench);
});

test("Replicator compares the disk whose events were lost, and everything when its base is gone", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  bench.source.loseEvents("serial-0");
  await bench.write(1, 4096, randomBytes(9000)); // Seen by the other disk's tracker, which goes on.
  await agent.point();
  const modes = (bench.receiver.begins.at(-1)?.disks ?? []).map(({ diskId, mode }) => [diskId, mode]);
  assert.deepEqual(Object.fromEntries(modes), { "serial-0": "checksum", "serial-1": "delta" });
  await assertReplica(bench);
  const newest = bench.receiver.begins.at(-1)?.pointId ?? "";
  bench.receiver.mischief.faultAtBegin = new Fault("BasePointUnknown", "gone", { evidence: { newestPointId: newest } });
  await bench.write(0, 0, randomBytes(100));
  await agent.point();
  assert.deepEqual(modesOf(bench), ["checksum", "checksum"]);
  await assertReplica(bench);
  bench.receiver.mischief.faultAtBegin = new Fault("BasePointUnknown", "all gone");
  await agent.point();
  assert.deepEqual(modesOf(bench), ["full", "full"]);
  await assertReplica(bench);
});

test("quiesce holds writes back and gives the roots of the source; release lets them through", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  await agent.verify();
  await bench.write(0, 7 * blockBytes, randomBytes(20_000));
  await agent.point();
  await bench.write(0, 9 * blockBytes, randomBytes(20_000));
  const result = await agent.quiesce(60_000);
  assert.equal(agent.state().phase, "quiesced");
  for (const [index, root] of (result.sourceRoots ?? []).entries()) assert.equal(root.root, rootOf(await bench.content(index)));
  assert.equal(result.sourceRoots?.length, 2);
  assert.deepEqual(bench.receiver.newest?.end.sourceRoots, result.sourceRoots);
  await assertReplica(bench);
  let isWritten = false;
  const late = bench.write(0, 0, randomBytes(4096)).then(() => {
    isWritten = true;
  });
  await assert.rejects(agent.point(), { code: "StateConflict" });
  assert.equal(isWritten, false);
  await agent.release();
  await late;
  await agent.point();
  await assertReplica(bench);
});

test("verify repairs and counts what the trackers did not see", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  const unseen = bench.receiver.newest?.disks.get("serial-1");
  unseen?.fill(1, 0, 100);
  const { repairedBlockCount } = await agent.verify();
  await assertReplica(bench);
  assert.equal(typeof repairedBlockCount, "number");
});

test("a hold that ends thaws by itself and says so", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.quiesce(50);
  await bench.write(0, 0, randomBytes(4096)); // Waits until the machine is thawed.
  while (agent.state().fault === undefined) await setImmediate();
  assert.equal(agent.state().fault?.id, "QuiesceVoid");
  await agent.point();
  await assertReplica(bench);
});

test("Replicator leaves disks out and takes them in again, also after a restart, but never the boot disk", async () => {
  await using bench = await openBench();
  const disksOf = (): string[] => (bench.receiver.begins.at(-1)?.disks ?? []).map((disk) => disk.diskId);
  {
    await using agent = await bench.start();
    await agent.point();
    await agent.replicate(policy, [parseDiskId("serial-1")]);
    await agent.point();
    assert.deepEqual([disksOf(), modesOf(bench)], [["serial-0"], ["delta"]]);
    for (const wrong of ["serial-0", "serial-9"])
      await assert.rejects(
        agent.replicate(policy, [parseDiskId(wrong)]),
        (error) => error instanceof Fault && error.code === "InputInvalid",
      );
  }
  await using agent = await bench.start();
  await agent.point();
  assert.deepEqual(disksOf(), ["serial-0"]);
  assert.deepEqual(
    agent.state().disks.map((disk) => disk.diskId),
    ["serial-0"],
  );
  await agent.replicate(policy, []);
  await agent.point();
  assert.deepEqual(
    [disksOf(), modesOf(bench)],
    [
      ["serial-0", "serial-1"],
      ["delta", "full"],
    ],
  );
  await assertReplica(bench);
});

test("a disk whose writes nobody sees is read whole while frozen, so that writes of the pass before are in the point", async () => {
  await using bench = await openBench();
  bench.source.blindDiskIds.add("serial-1");
  await using agent = await bench.start();
  assert.deepEqual(
    agent.state().disks.map(({ tracking }) => tracking.rung),
    ["ebpf", "full"],
  );
  let isWritten = false;
  bench.receiver.onFrame = async ({ type }) => {
    if (type !== frameTypes.granules && (type !== frameTypes.ids || isWritten)) return;
    isWritten = true;
    await bench.write(0, 6 * blockBytes, randomBytes(600));
    await bench.write(1, 0, randomBytes(600));
    bench.receiver.onFrame = () => undefined;
  };
  await agent.point();
  await assertReplica(bench);
  assert.equal(agent.state().disks[1]?.tracking.rung, "checksum");
  await bench.write(1, 5 * blockBytes, randomBytes(5000));
  await agent.point();
  assert.deepEqual(modesOf(bench), ["delta", "checksum"]);
  await assertReplica(bench);
  const final = await agent.quiesce(60_000);
  for (const [index, root] of (final.sourceRoots ?? []).entries()) assert.equal(root.root, rootOf(await bench.content(index)));
  assert.equal(final.sourceRoots?.length, 2);
  await agent.release();
});

test("a machine is not frozen for a disk that takes longer to read than it may be frozen, and the fault says so", async () => {
  await using bench = await openBench();
  bench.source.blindDiskIds.add("serial-1");
  await using agent = await bench.start();
  await agent.replicate({ ...policy, freezeMsMax: 0.001 });
  const frozen = bench.source.freezeCount;
  await assert.rejects(agent.point(), { code: "TrackingRefused", retry: "never", message: /longer than/ });
  await assert.rejects(agent.point(), { code: "TrackingRefused" }); // One pass may have been long because all stood still.
  const frames = bench.receiver.frameCount;
  await assert.rejects(agent.point(), { code: "TrackingRefused" });
  assert.ok(bench.receiver.frameCount - frames < 4, "what was measured twice is not measured again");
  assert.equal(bench.source.freezeCount, frozen);
  assert.deepEqual(bench.receiver.breaches, []);
});

test("an agent that was started anew replicates changes from its first point on, not before", async () => {
  await using bench = await openBench();
  {
    await using agent = await bench.start();
    assert.equal(agent.state().phase, "initial");
    await agent.point();
    assert.equal(agent.state().phase, "delta");
  }
  bench.source.reboot();
  await using again = await bench.start();
  assert.equal(again.state().phase, "initial", "its disks are compared first");
  await again.point();
  assert.equal(again.state().phase, "delta");
});

test("a point whose turn comes right after a quiesce finds the machine held, and leaves it alone", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  let waiting: Promise<unknown> | undefined;
  // Asked for while the final point is made, so that it is the next to have its turn.
  bench.receiver.onFrame = () => {
    if (bench.receiver.begins.at(-1)?.consistency === "final") waiting ??= agent.point().catch((error: unknown) => error);
  };
  await agent.quiesce(60_000);
  const [frozen, begun] = [bench.source.freezeCount, bench.receiver.begins.length];
  const refused = await waiting;
  assert.ok(refused instanceof Fault && refused.code === "StateConflict", "it is refused as what comes while the machine is quiesced");
  assert.deepEqual([bench.source.freezeCount, bench.receiver.begins.length], [frozen, begun], "and has begun nothing");
  assert.equal(agent.state().phase, "quiesced");
  await agent.release();
  await agent.point();
  await assertReplica(bench);
});

test("a disk that was taken off and put on again is compared whole, though it looks the same, also when no agent saw it", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  bench.source.attachments.set("serial-1", 1);
  await agent.point();
  assert.deepEqual(modesOf(bench), ["delta", "checksum"]);
  assert.match(bench.receiver.begins.at(-1)?.disks[1]?.reason ?? "", /taken off/);
  await agent[Symbol.asyncDispose]();
  bench.source.attachments.set("serial-0", 1);
  await using next = await bench.start();
  await next.point();
  assert.deepEqual(modesOf(bench), ["checksum", "delta"]);
  await assertReplica(bench);
});

test("a copy that was broken off goes on where it was, after a cut and after a kill, and takes in what was written meanwhile", async () => {
  await using bench = await openBench({ cutAtFrame: 4 });
  const whole = sizes.reduce((sum, size) => sum + size, 0);
  {
    await using agent = await bench.start();
    await assert.rejects(agent.point(), { code: "AgentProtocolBroken" });
    bench.receiver.mischief.cutAtFrame = bench.receiver.frameCount + 4;
    const readBefore = agent.state().readBytes;
    await assert.rejects(agent.point(), { code: "AgentProtocolBroken" });
    assert.ok(agent.state().readBytes - readBefore < whole, "what an earlier attempt had read is read only where the appliance asks");
  }
  await bench.write(0, 7 * blockBytes, randomBytes(300));
  await using next = await bench.start();
  await next.point();
  assert.match(bench.receiver.begins.at(-1)?.disks[0]?.reason ?? "", /no recovery point/);
  await assertReplica(bench);
  await bench.write(0, 0, randomBytes(300));
  await next.point();
  assert.deepEqual(modesOf(bench), ["delta", "delta"]);
  await assertReplica(bench);
});

test("Replicator freezes nothing while it knows that the freeze would be too long, and says so", async () => {
  await using bench = await openBench();
  await using agent = await bench.start();
  await agent.point();
  await agent.replicate({ ...policy, freezeMsMax: 1 });
  const frozenBefore = bench.source.freezeCount;
  // However often it is written out, more comes than can be read within the freeze.
  bench.source.onWriteOut = async () => await bench.write(0, 6 * blockBytes, randomBytes(30 * blockBytes));
  await assert.rejects(agent.point(), { code: "FreezeFailed" });
  assert.equal(bench.source.freezeCount, frozenBefore);
  bench.source.onWriteOut = () => Promise.resolve();
  await agent.replicate(policy);
  await agent.point();
  await assertReplica(bench);
});
