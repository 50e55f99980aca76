// Promises of the data port: points whole or absent, every digest checked, breaches refused, machines kept apart.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import fc from "fast-check";
import { encodeFrame, encodeJsonFrame, frameTypes, type BeginPoint } from "../../contract/agent-frames.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDiskId, parsePointId, type PointId } from "../../contract/ids.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import { blockBytes, granuleBytes } from "../../disk/geometry.ts";
import {
  blockOf,
  blocksFrame,
  createBegin,
  createFacts,
  DataLine,
  granulesFrame,
  idOf,
  idsFrame,
  otherGranules,
  registerAgent,
  rowAt,
  sendGranules,
  sendWholeDisk,
  text,
  wholeDisk,
  type AgentIdentity,
  type Ports,
} from "../testing/scripted-agent.ts";
import { startTestSite, type TestSite } from "../testing/test-site.ts";
import { openTestVault } from "../testing/test-vault.ts";

const portsOf = (site: TestSite): Ports => ({ controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem });

interface Enrolled {
  readonly agent: AgentIdentity;
  readonly bootId: string;
}

async function enrol(site: TestSite): Promise<Enrolled> {
  const facts = createFacts();
  const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
  site.protect(agent.machineId);
  return { agent, bootId: facts.bootId };
}

async function faultOn(line: DataLine): Promise<string> {
  for (;;) {
    const frame = await line.next();
    if (frame === undefined) return "closed";
    if (frame.type === frameTypes.fault) return faultReportShape.parse(JSON.parse(text(frame))).id;
  }
}

/** A disk of some whole blocks and a short tail, with a zero block and two equal ones. */
function sampleContent(): Uint8Array {
  const bytes = new Uint8Array(20 * blockBytes + 1536);
  bytes.set(randomBytes(8 * blockBytes), 0);
  bytes.set(randomBytes(4 * blockBytes + 1536), 16 * blockBytes);
  bytes.copyWithin(3 * blockBytes, 2 * blockBytes, 3 * blockBytes);
  return bytes;
}

async function sealWhole(site: TestSite, { agent, bootId }: Enrolled, content: Uint8Array): Promise<BeginPoint> {
  await using line = await DataLine.open(portsOf(site), agent);
  const begin = createBegin({ bootId, disks: [wholeDisk(content.length)] });
  line.begin(begin);
  await sendWholeDisk(line, 0, content);
  await line.end(begin.pointId);
  return begin;
}

/** The object with some methods replaced. */
function replacing<T extends object>(object: T, replaced: Partial<T>): T {
  return new Proxy(object, {
    get: (target, key) => {
      const value: unknown = Reflect.get(replaced, key) ?? Reflect.get(target, key);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

describe("recovery points over the data port", () => {
  test("a whole copy, then a delta of granules, read back byte for byte", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    const content = sampleContent();
    const first = await sealWhole(site, enrolled, content);
    const disk = wholeDisk(content.length);
    assert.deepEqual(await site.vault.contentOf(first.pointId, disk.diskId), content);

    const changed = content.slice();
    const granules = [0, 1, 17, 40, Math.floor((content.length - 1) / 4096)];
    for (const granule of granules) changed.fill(granule + 7, granule * 4096, granule * 4096 + 1000);
    await using line = await DataLine.open(portsOf(site), enrolled.agent);
    const delta = createBegin({ bootId: enrolled.bootId, disks: [{ ...disk, mode: "delta", basePointId: first.pointId }] });
    line.begin(delta);
    await sendGranules(line, 0, changed, granules);
    const sealed = await line.end(delta.pointId);
    assert.deepEqual(await site.vault.contentOf(delta.pointId, disk.diskId), changed);
    assert.equal(sealed.pointId, delta.pointId);
    const reports = site.ledger.untold(10);
    assert.deepEqual(
      reports.map((report) => [report.pointId, report.mode]),
      [
        [first.pointId, "full"],
        [delta.pointId, "delta"],
      ],
    );
    assert.equal(reports[1]?.disks[0]?.root, sealed.roots[0]?.root);
  });

  test("checksum mode asks only for what the vault lacks, marks what differs and counts it", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    const content = sampleContent();
    const first = await sealWhole(site, enrolled, content);
    const changed = content.slice();
    changed.set(randomBytes(100), 5 * blockBytes);
    changed.fill(0, 6 * blockBytes, 7 * blockBytes);
    await using line = await DataLine.open(portsOf(site), enrolled.agent);
    const begin = createBegin({
      bootId: randomUUID(),
      disks: [{ ...wholeDisk(content.length), mode: "checksum", basePointId: first.pointId }],
    });
    site.clock.advance(60_000);
    line.begin(begin);
    const codes = await sendWholeDisk(line, 0, changed);
    assert.deepEqual(
      codes.map((code, block) => [code, block]).filter(([code]) => code !== 0),
      [
        [3, 5],
        [2, 6],
      ],
      "of block 5 only what differs comes; block 6 is known to be zeros",
    );
    await line.end(begin.pointId);
    assert.equal(site.ledger.repairedBlockCountOf(begin.pointId), 2);
    assert.deepEqual(await site.vault.contentOf(begin.pointId, parseDiskId("disk-1")), changed);
  });

  test("a machine that comes from another appliance builds on its point there by comparing, never by its changes alone", async () => {
    await using before = await startTestSite();
    const enrolled = await enrol(before);
    const content = sampleContent();
    const first = await sealWhole(before, enrolled, content);
    await using site = await startTestSite({ vault: before.vault.vault });
    const facts = createFacts({ bootId: enrolled.bootId });
    site.registry.expect(enrolled.agent.machineId, facts);
    const agent = await registerAgent(portsOf(site), facts, site.authority.passphrase);
    assert.equal(agent.machineId, enrolled.agent.machineId, "it keeps its id");
    site.protect(agent.machineId);
    const disk = { ...wholeDisk(content.length), basePointId: first.pointId };
    await using refused = await DataLine.open(portsOf(site), agent);
    refused.begin(createBegin({ bootId: enrolled.bootId, disks: [{ ...disk, mode: "delta" }] }));
    assert.equal(await faultOn(refused), "BasePointUnknown");
    assert.equal(site.outcomes.at(-1)?.evidence["newestPointId"], first.pointId, "and told which one to compare with");
    await using line = await DataLine.open(portsOf(site), agent);
    const begin = createBegin({ bootId: enrolled.bootId, disks: [{ ...disk, mode: "checksum" }] });
    line.begin(begin);
    assert.deepEqual(new Set(await sendWholeDisk(line, 0, content)), new Set([0]), "nothing is sent twice");
    await line.end(begin.pointId);
  });

  test("several machines at once each get their own points, and cannot use each other's blocks", async () => {
    await using site = await startTestSite();
    const content = sampleContent();
    const all = await Promise.all(Array.from({ length: 4 }, async () => await enrol(site)));
    const begins = await Promise.all(all.map(async (enrolled) => await sealWhole(site, enrolled, content)));
    for (const [index, begin] of begins.entries()) {
      assert.deepEqual(await site.vault.contentOf(begin.pointId, parseDiskId("disk-1")), content);
      const other = all[(index + 1) % all.length];
      assert.ok(other);
      await using line = await DataLine.open(portsOf(site), other.agent);
      line.begin(
        createBegin({ bootId: other.bootId, disks: [{ ...wholeDisk(content.length), mode: "checksum", basePointId: begin.pointId }] }),
      );
      assert.equal(await faultOn(line), "BasePointUnknown");
    }
  });

  test("a line that is cut inside a point leaves nothing, and the next point is whole", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    const content = sampleContent();
    const line = await DataLine.open(portsOf(site), enrolled.agent);
    const begin = createBegin({ bootId: enrolled.bootId, disks: [wholeDisk(content.length)] });
    line.begin(begin);
    await sendWholeDisk(line, 0, content);
    line.socket.destroy();
    await sealWhole(site, enrolled, content);
    assert.equal(await site.vault.vault.point(begin.pointId), undefined);
    assert.ok(await site.vault.isFree(enrolled.agent.machineId));
    assert.equal(site.ledger.untold(10).length, 1);
  });

  test("an answer that is ready after its line broke does not keep the machine from its next point", async () => {
    const slow = await openTestVault();
    await using _vault = slow.vault;
    const gate = Promise.withResolvers<void>();
    const vault = replacing(slow.vault, {
      beginPoint: async (options) => {
        const writer = await slow.vault.beginPoint(options);
        return replacing(writer, {
          need: async (...args) => {
            await gate.promise;
            return await writer.need(...args);
          },
        });
      },
    });
    await using site = await startTestSite({ vault });
    const enrolled = await enrol(site);
    const older = await DataLine.open(portsOf(site), enrolled.agent);
    const content = sampleContent();
    older.begin(createBegin({ bootId: enrolled.bootId, disks: [wholeDisk(content.length)] }));
    const waiting = sendWholeDisk(older, 0, content).catch(() => undefined); // Its line is cut below.
    await using newer = await DataLine.open(portsOf(site), enrolled.agent);
    await waiting;
    gate.resolve();
    const begin = createBegin({ bootId: enrolled.bootId, disks: [wholeDisk(content.length)] });
    newer.begin(begin);
    await sendWholeDisk(newer, 0, content);
    await newer.end(begin.pointId);
    assert.deepEqual(await slow.contentOf(begin.pointId, parseDiskId("disk-1")), content);
  });

  test("a newer connection of a machine takes the place of the older", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    await using older = await DataLine.open(portsOf(site), enrolled.agent);
    older.begin(createBegin({ bootId: enrolled.bootId, disks: [wholeDisk(blockBytes)] }));
    await sendWholeDisk(older, 0, new Uint8Array(blockBytes));
    await sealWhole(site, enrolled, sampleContent());
    await assert.rejects(async () => {
      if ((await older.next()) === undefined) throw new Error("closed");
    });
    assert.ok(await site.vault.isFree(enrolled.agent.machineId));
  });
});

describe("granules of a block that was compared", () => {
  const size = 4 * blockBytes;
  async function begun(): Promise<{
    site: TestSite;
    line: DataLine;
    pointId: PointId;
    content: Uint8Array;
    enrolled: Enrolled;
  }> {
    const site = await startTestSite();
    const enrolled = await enrol(site);
    const content = new Uint8Array(randomBytes(size));
    const first = await sealWhole(site, enrolled, content);
    content.fill(7, 2 * blockBytes + 5 * granuleBytes, 2 * blockBytes + 7 * granuleBytes);
    const line = await DataLine.open(portsOf(site), enrolled.agent);
    site.clock.advance(60_000);
    const begin = createBegin({ bootId: randomUUID(), disks: [{ ...wholeDisk(size), mode: "checksum", basePointId: first.pointId }] });
    line.begin(begin);
    const ids = [0, 1, 2, 3].map((block) => idOf(blockOf(content, block)));
    line.sendFrame(idsFrame(line.nextUnit(), 0, 0, ids));
    const need = (await line.next()) ?? assert.fail("closed");
    assert.deepEqual([...need.body.subarray(0, 4)], [0, 0, 3, 0]);
    assert.deepEqual(otherGranules(blockOf(content, 2), rowAt(need.body, 4, 0)), [5, 6]);
    return { site, line, pointId: begin.pointId, content, enrolled };
  }

  test("make the block what was announced", async () => {
    const { site, line, pointId, content } = await begun();
    await using open = new AsyncDisposableStack();
    open.use(site);
    open.use(line);
    await sendGranules(line, 0, content, [2 * 16 + 5, 2 * 16 + 6]);
    await line.end(pointId);
    assert.deepEqual(await site.vault.contentOf(pointId, parseDiskId("disk-1")), content);
  });

  test("that make it anything else end the connection, and leave no point", async () => {
    const { site, line, content, enrolled } = await begun();
    await using open = new AsyncDisposableStack();
    open.use(site);
    open.use(line);
    line.sendFrame(granulesFrame(line.nextUnit(), 0, [{ granule: 2 * 16 + 5, bytes: content.slice(0, granuleBytes) }]));
    assert.equal(await faultOn(line), "DataDamaged");
    await site.ingest.disconnect(enrolled.agent.machineId);
    assert.ok(await site.vault.isFree(enrolled.agent.machineId));
  });

  test("must come before the end", async () => {
    const { site, line, pointId } = await begun();
    await using open = new AsyncDisposableStack();
    open.use(site);
    open.use(line);
    line.send(encodeJsonFrame(frameTypes.end, { pointId, timeMs: 1, frozenMs: 0, readBytes: 0, sourceRoots: [] }));
    assert.equal(await faultOn(line), "AgentProtocolBroken");
  });
});

describe("breaches of the data protocol", () => {
  interface Breach {
    readonly name: string;
    readonly fault: string;
    readonly send: (line: DataLine, enrolled: Enrolled) => void | Promise<void>;
  }
  const size = 4 * blockBytes;
  const content = new Uint8Array(randomBytes(size));
  const blocks = [0, 1, 2, 3].map((block) => blockOf(content, block));
  const begun = (line: DataLine, enrolled: Enrolled): BeginPoint => {
    const begin = createBegin({ bootId: enrolled.bootId, disks: [wholeDisk(size)] });
    line.begin(begin);
    return begin;
  };
  const broken = "AgentProtocolBroken";
  const breaches: readonly Breach[] = [
    { name: "a unit outside a point", fault: broken, send: (line) => line.sendFrame(idsFrame(1, 0, 0, blocks.map(idOf))) },
    {
      name: "a block that is not the one announced",
      fault: "DataDamaged",
      send: async (line, enrolled) => {
        begun(line, enrolled);
        line.sendFrame(idsFrame(1, 0, 0, blocks.map(idOf)));
        await line.next();
        line.sendFrame(
          blocksFrame(
            1,
            0,
            blocks.map((_, block) => ({ block, bytes: blockOf(content, 3 - block) })),
          ),
        );
      },
    },
    {
      name: "an end before every block was announced",
      fault: broken,
      send: async (line, enrolled) => {
        const begin = begun(line, enrolled);
        line.sendFrame(idsFrame(1, 0, 0, [new Uint8Array(32)]));
        await line.next();
        line.send(encodeJsonFrame(frameTypes.end, { pointId: begin.pointId, timeMs: 1, frozenMs: 0, readBytes: 0, sourceRoots: [] }));
      },
    },
    {
      name: "ids beyond the end of the disk",
      fault: broken,
      send: (line, enrolled) => {
        begun(line, enrolled);
        line.sendFrame(idsFrame(1, 0, 2, blocks.map(idOf)));
      },
    },
    {
      name: "a granules frame whose digest is wrong",
      fault: "DataDamaged",
      send: (line, enrolled) => {
        begun(line, enrolled);
        const frame = granulesFrame(1, 0, [{ granule: 1, bytes: new Uint8Array(4096).fill(3) }]);
        frame.body[12] = (frame.body[12] ?? 0) ^ 1;
        line.sendFrame(frame);
      },
    },
    {
      name: "a delta upon an unknown base",
      fault: "BasePointUnknown",
      send: (line, { bootId }) =>
        line.begin(createBegin({ bootId, disks: [{ ...wholeDisk(size), mode: "delta", basePointId: parsePointId(randomUUID()) }] })),
    },
    {
      name: "a protocol version of the future",
      fault: "ProtocolVersionUnsupported",
      send: (line, { bootId }) => line.begin(createBegin({ bootId, protocolVersion: 99, disks: [wholeDisk(size)] })),
    },
    {
      name: "a final point whose roots differ",
      fault: "RootsDiffer",
      send: async (line, { bootId }) => {
        const begin = createBegin({ bootId, consistency: "final", disks: [wholeDisk(size)] });
        line.begin(begin);
        await sendWholeDisk(line, 0, content);
        const sourceRoots = [{ diskId: "disk-1", root: "ab".repeat(32) }];
        line.send(encodeJsonFrame(frameTypes.end, { pointId: begin.pointId, timeMs: 1, frozenMs: 0, readBytes: 0, sourceRoots }));
      },
    },
  ];
  for (const breach of breaches) {
    test(`${breach.name} ends the connection with ${breach.fault} and leaves no point`, async () => {
      await using site = await startTestSite();
      const enrolled = await enrol(site);
      await using line = await DataLine.open(portsOf(site), enrolled.agent);
      await breach.send(line, enrolled);
      assert.equal(await faultOn(line), breach.fault);
      await site.ingest.disconnect(enrolled.agent.machineId);
      assert.ok(await site.vault.isFree(enrolled.agent.machineId));
      assert.deepEqual(site.ledger.untold(10), []);
    });
  }

  test("a full spool refuses the next point for later, and takes it once there is room", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    site.space.fault = new Fault("SpoolFull", "the spool is full");
    await using line = await DataLine.open(portsOf(site), enrolled.agent);
    begun(line, enrolled);
    assert.equal(await faultOn(line), "SpoolFull");
    assert.equal(site.outcomes[0]?.retry, "later");
    site.space.fault = undefined;
    await sealWhole(site, enrolled, content);
    assert.equal(site.outcomes.at(-1), undefined);
  });

  test("a connection waits as long as the appliance itself does, and is closed when the agent falls silent", async () => {
    await using site = await startTestSite({ silentMsMax: 150 });
    const enrolled = await enrol(site);
    const { promise, resolve } = Promise.withResolvers<void>();
    site.space.held = promise;
    const sealing = sealWhole(site, enrolled, content);
    await site.clock.sleep(600);
    resolve();
    await sealing;
    await using line = await DataLine.open(portsOf(site), enrolled.agent);
    begun(line, enrolled);
    assert.equal(await faultOn(line), "closed");
    assert.deepEqual(site.outcomes, [undefined]);
  });

  test("a machine that is not protected, or whose certificate is not of this site, writes nothing", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    site.registry.unprotect(enrolled.agent.machineId);
    await using line = await DataLine.open(portsOf(site), enrolled.agent);
    begun(line, enrolled);
    assert.equal(await faultOn(line), "StateConflict");
    await using other = await startTestSite();
    const stranger = await enrol(other);
    await assert.rejects(async () => {
      await using refused = await DataLine.open(portsOf(site), stranger.agent);
      begun(refused, stranger);
      if ((await refused.next()) === undefined) throw new Error("closed");
    });
  });

  test("any frames in any order end with a fault or a close, never with a point or a crash", async () => {
    await using site = await startTestSite();
    const enrolled = await enrol(site);
    const frame = fc.record({
      type: fc.constantFrom(...([2, 4, 5, 7, 9, 1] as const)),
      unit: fc.nat({ max: 3 }),
      count: fc.nat({ max: 70 }),
      body: fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.constant(new Uint8Array(8 + 32))),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { minLength: 1, maxLength: 6 }), fc.uint8Array({ maxLength: 30 }), async (frames, noise) => {
        await using line = await DataLine.open(portsOf(site), enrolled.agent);
        begun(line, enrolled);
        for (const each of frames) line.send(encodeFrame({ ...each, type: each.type }));
        line.socket.end(noise);
        await faultOn(line).catch(() => "closed");
        await site.ingest.disconnect(enrolled.agent.machineId);
        assert.ok(await site.vault.isFree(enrolled.agent.machineId));
        assert.deepEqual(site.ledger.untold(1), []);
      }),
      { numRuns: 60 },
    );
  });
});
