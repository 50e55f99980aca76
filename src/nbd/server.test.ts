// The NBD server serves what the disk holds, refuses what it must, and stays whole whatever a client sends.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import fc from "fast-check";
import { systemClock as clock } from "../base/clock.ts";
import { silentLog as log } from "../base/log.ts";
import { Fault } from "../contract/errors.ts";
import type { Disk } from "../disk/disk.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import { commandFlags, commands, encodeRequest, errors, optionReplies, options } from "./protocol.ts";
import { openNbdServer, type NbdServer } from "./server.ts";
import { contextRequest, goRequest, TestClient, type Reply } from "./test-client.ts";
import type { NbdExport } from "./transmission.ts";

const folder = mkdtempSync(join(tmpdir(), "nbd-"));
after(() => rmSync(folder, { recursive: true }));
let serial = 0;

async function serve(...exports: readonly NbdExport[]): Promise<{ server: NbdServer; path: string }> {
  const path = join(folder, String((serial += 1)));
  return { server: await openNbdServer({ listen: { kind: "unix", path }, exports, clock, log }), path };
}

/** Data and holes in turn, so that every kind of chunk is sent. */
function stripedDisk(sizeBytes: number): MemoryDisk {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 3 * 65_536) bytes.fill(1 + ((at / 65_536) % 250), at, Math.min(sizeBytes, at + 70_000));
  return new MemoryDisk(bytes);
}

const sizeBytes = 5 * 2 ** 20 + 513;

describe("NbdServer", () => {
  for (const isStructured of [true, false]) {
    it(`reads any range as the disk holds it, structured: ${isStructured}`, async () => {
      const disk = stripedDisk(sizeBytes);
      const { server, path } = await serve({ name: "d", access: "read-only", disk });
      await using _ = server;
      await using client = await TestClient.open(path, "d", { isStructured });
      const range = fc.tuple(fc.nat(sizeBytes), fc.nat(sizeBytes), fc.boolean());
      await fc.assert(
        fc.asyncProperty(range, async ([a, b, isWhole]) => {
          const [from, to] = [Math.min(a, b), Math.max(a, b)];
          const flags = isWhole && isStructured ? commandFlags.dontFragment : 0;
          const got = await client.read(from, to - from, flags);
          assert.ok(got.equals(disk.bytes.subarray(from, to)), `range ${from}..${to}`);
        }),
        { numRuns: 60 },
      );
    });
  }

  it("keeps what is written, and writes zeros over it", async () => {
    const disk = new MemoryDisk(new Uint8Array(2 ** 20));
    const { server, path } = await serve({ name: "d", access: "read-write", disk });
    await using _ = server;
    await using client = await TestClient.open(path, "d");
    const model = Buffer.alloc(disk.sizeBytes);
    const step = fc.record({
      offset: fc.nat(2 ** 20 - 1),
      lengthBytes: fc.integer({ min: 1, max: 100_000 }),
      fill: fc.nat(255),
      command: fc.constantFrom(commands.write, commands.writeZeroes, commands.trim),
      flags: fc.constantFrom(0, commandFlags.forceUnitAccess),
    });
    await fc.assert(
      fc.asyncProperty(step, async ({ offset, lengthBytes: wanted, fill, command, flags }) => {
        const lengthBytes = Math.min(wanted, disk.sizeBytes - offset);
        const payload = command === commands.write ? Buffer.alloc(lengthBytes, fill) : undefined;
        const replies = await client.request({ command, offset: BigInt(offset), lengthBytes, flags }, payload);
        assert.deepEqual(replies.map(errorOf), [0]);
        if (command === commands.write) model.fill(fill, offset, offset + lengthBytes);
        if (command === commands.writeZeroes) model.fill(0, offset, offset + lengthBytes);
        assert.ok((await client.read(0, disk.sizeBytes)).equals(model));
      }),
      { numRuns: 40 },
    );
    assert.deepEqual((await client.request({ command: commands.flush })).map(errorOf), [0]);
  });

  it("tells holes that are zero and covers what was asked", async () => {
    const disk = stripedDisk(sizeBytes);
    const { server, path } = await serve({ name: "d", access: "read-only", disk });
    await using _ = server;
    await using client = await TestClient.open(path, "d");
    await fc.assert(
      fc.asyncProperty(fc.nat(sizeBytes - 1), fc.integer({ min: 1, max: sizeBytes }), fc.boolean(), async (offset, wanted, isOne) => {
        const lengthBytes = Math.min(wanted, sizeBytes - offset);
        const flags = isOne ? commandFlags.requestOne : 0;
        const [reply] = await client.request({ command: commands.blockStatus, offset: BigInt(offset), lengthBytes, flags });
        assert.ok(reply?.kind === "chunk" && reply.type === 5 && reply.data.readUInt32BE(0) === 1);
        let at = offset;
        for (let index = 4; index < reply.data.length; index += 8) {
          const runBytes = reply.data.readUInt32BE(index);
          assert.ok(runBytes > 0);
          if (reply.data.readUInt32BE(index + 4) === 3) assert.ok(disk.bytes.subarray(at, at + runBytes).every((byte) => byte === 0));
          at += runBytes;
        }
        if (isOne) assert.equal(reply.data.length, 12);
        else assert.equal(at, offset + lengthBytes);
      }),
      { numRuns: 40 },
    );
  });

  it("refuses with the right number and goes on", async () => {
    const disk = stripedDisk(2 ** 20);
    const { server, path } = await serve({ name: "d", access: "read-only", disk });
    await using _ = server;
    await using client = await TestClient.open(path, "d");
    const size = BigInt(disk.sizeBytes);
    const cases: readonly [Parameters<TestClient["request"]>[0], number][] = [
      [{ command: commands.read, offset: size, lengthBytes: 1 }, errors.invalid],
      [{ command: commands.read, offset: 2n ** 64n - 1n, lengthBytes: 4096 }, errors.invalid],
      [{ command: commands.read, offset: 0n, lengthBytes: 512, flags: 0x8000 }, errors.invalid],
      [{ command: commands.trim, offset: 0n, lengthBytes: 512 }, errors.notPermitted],
      [{ command: commands.writeZeroes, offset: 0n, lengthBytes: 512 }, errors.notPermitted],
      [{ command: commands.blockStatus, offset: 0n, lengthBytes: 0 }, errors.invalid],
      [{ command: 99 }, errors.invalid],
    ];
    for (const [request, expected] of cases) assert.deepEqual((await client.request(request)).map(errorOf), [expected]);
    const written = await client.request({ command: commands.write, offset: 0n, lengthBytes: 512 }, Buffer.alloc(512));
    assert.deepEqual(written.map(errorOf), [errors.notPermitted]);
    assert.ok((await client.read(0, 1000)).equals(disk.bytes.subarray(0, 1000)));
  });

  it("answers an I/O error when the disk fails, once, after whatever pieces it sent", async () => {
    const good = stripedDisk(4 * 2 ** 20);
    const disk: Disk = {
      sizeBytes: good.sizeBytes,
      read: async (offset, into, signal) => {
        if (offset >= 2 * 2 ** 20) throw new Fault("DataDamaged", "could not read a block: its digest is wrong");
        await good.read(offset, into, signal);
      },
      extents: async (offset, length) => [{ offset, length, kind: "data" }],
      [Symbol.asyncDispose]: async () => undefined,
    };
    const { server, path } = await serve({ name: "d", access: "read-only", disk });
    await using _ = server;
    await using client = await TestClient.open(path, "d");
    const replies = await client.request({ command: commands.read, offset: 0n, lengthBytes: disk.sizeBytes });
    assert.equal(errorOf(replies.at(-1)), errors.io);
    assert.equal(replies.filter((reply) => reply.kind === "chunk" && reply.isLast).length, 1);
    assert.ok((await client.read(0, 1000)).equals(good.bytes.subarray(0, 1000)));
  });

  it("serves several exports by name, lists them, and lets one go", async () => {
    const disks = [new MemoryDisk(Buffer.alloc(4096, 1)), new MemoryDisk(Buffer.alloc(8192, 2))] as const;
    const { server, path } = await serve({ name: "a", access: "read-only", disk: disks[0] });
    await using _ = server;
    server.addExport({ name: "b/ä", access: "read-only", disk: disks[1] });
    await using lister = new TestClient(path);
    await lister.greet();
    const names = (await lister.option(options.list, Buffer.alloc(0))).slice(0, -1).map(({ data }) => data.toString("utf8", 4));
    assert.deepEqual(names, ["a", "b/ä"]);
    await using a = await TestClient.open(path, "a");
    await using b = await TestClient.open(path, "b/ä");
    assert.equal(
      (await b.read(0, 8192)).every((byte) => byte === 2),
      true,
    );
    await server.removeExport("a");
    await assert.rejects(a.read(0, 1));
    assert.equal((await b.read(0, 1))[0], 2);
    assert.equal((await lister.option(options.go, goRequest("a"))).at(-1)?.kind, optionReplies.unknown);
  });

  it("answers odd options and goes on haggling", async () => {
    const { server, path } = await serve({ name: "d", access: "read-only", disk: stripedDisk(4096) });
    await using _ = server;
    await using client = new TestClient(path);
    await client.greet();
    const last = async (option: number, data: Buffer) => (await client.option(option, data)).at(-1)?.kind;
    assert.equal(await last(77, Buffer.alloc(10)), optionReplies.unsupported);
    assert.equal(await last(options.go, Buffer.alloc(3)), optionReplies.invalid);
    assert.equal(await last(options.list, Buffer.alloc(1)), optionReplies.invalid);
    assert.equal(await last(options.structuredReply, Buffer.alloc(1)), optionReplies.invalid);
    assert.equal(await last(options.setMetaContext, contextRequest("d", ["base:allocation"])), optionReplies.invalid);
    assert.equal(await last(options.info, Buffer.alloc(100_000)), optionReplies.tooBig);
    assert.equal(await last(options.structuredReply, Buffer.alloc(0)), optionReplies.ack);
    assert.equal((await client.option(options.setMetaContext, contextRequest("d", ["base:allocation", "x:y"]))).length, 2);
    assert.equal(await last(options.abort, Buffer.alloc(0)), optionReplies.ack);
    assert.equal(await client.reader.take(1), undefined);
  });

  it("stays whole for others, whatever bytes one client sends", async () => {
    const disk = stripedDisk(2 ** 20);
    const { server, path } = await serve({ name: "d", access: "read-only", disk });
    await using _ = server;
    const session = Buffer.concat([
      sessionBytes("d"),
      encodeRequest({ flags: 0, command: 0, cookie: 7n, offset: 0n, lengthBytes: 65_536 }),
    ]);
    const truncated = fc.nat(session.length).map((length) => session.subarray(0, length));
    const flipped = fc.tuple(fc.nat(session.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, mask]) => {
      const bytes = Buffer.from(session);
      bytes.writeUInt8(bytes.readUInt8(at) ^ mask, at);
      return bytes;
    });
    const random = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
    const afterGreeting = random.map((bytes) => Buffer.concat([session, bytes]));
    await fc.assert(
      fc.asyncProperty(fc.oneof(truncated, flipped, random, afterGreeting), async (bytes) => {
        await using bad = new TestClient(path);
        bad.socket.end(bytes);
        await bad.reader.skip(Number.MAX_SAFE_INTEGER).catch(() => false); // Until the server hangs up.
        await using good = await TestClient.open(path, "d");
        assert.ok((await good.read(1000, 100)).equals(disk.bytes.subarray(1000, 1100)));
      }),
      { numRuns: 300 },
    );
  });

  it("holds a bounded amount for a client that asks and does not read", async () => {
    let underWayBytes = 0;
    let mostBytes = 0;
    const disk: Disk = {
      sizeBytes: 2 ** 30,
      read: async (_offset, into) => {
        underWayBytes += into.length;
        mostBytes = Math.max(mostBytes, underWayBytes);
        await clock.sleep(0);
        underWayBytes -= into.length;
      },
      extents: async (offset, length) => [{ offset, length, kind: "data" }],
      [Symbol.asyncDispose]: async () => undefined,
    };
    const { server, path } = await serve({ name: "d", access: "read-only", disk });
    await using client = await TestClient.open(path, "d");
    const ask = encodeRequest({ flags: 0, command: 0, cookie: 1n, offset: 0n, lengthBytes: 2 ** 25 });
    for (let count = 0; count < 500; count++) client.socket.write(ask);
    for (let count = 0; count < 50; count++) await new Promise((resolve) => setImmediate(resolve));
    await server[Symbol.asyncDispose]();
    assert.ok(mostBytes <= 32 * 2 ** 20, `${mostBytes} bytes were under way`);
  });

  it("takes over the socket file of a dead server and closes twice", async () => {
    const { server, path } = await serve({ name: "d", access: "read-only", disk: stripedDisk(4096) });
    await server[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    await using again = await openNbdServer({ listen: { kind: "unix", path }, exports: [], clock, log });
    assert.equal(again.uriOf("x y"), `nbd+unix:///x%20y?socket=${encodeURIComponent(path)}`);
    await using tcp = await openNbdServer({ listen: { kind: "tcp", host: "127.0.0.1", port: 0 }, exports: [], clock, log });
    assert.match(tcp.uriOf("d"), /^nbd:\/\/127\.0\.0\.1:\d+\/d$/);
  });
});

function errorOf(reply: Reply | undefined): number | undefined {
  if (reply?.kind === "simple") return reply.error;
  return reply !== undefined && reply.type >= 0x8000 ? reply.data.readUInt32BE(0) : undefined;
}

/** A client's words from its flags to the export. */
function sessionBytes(exportName: string): Buffer {
  const option = (number: number, data: Buffer) => {
    const header = Buffer.from("49484156454f50540000000000000000", "hex");
    header.writeUInt32BE(number, 8);
    header.writeUInt32BE(data.length, 12);
    return Buffer.concat([header, data]);
  };
  const context = option(options.setMetaContext, contextRequest(exportName, ["base:allocation"]));
  const structured = option(options.structuredReply, Buffer.alloc(0));
  return Buffer.concat([Buffer.from([0, 0, 0, 3]), structured, context, option(options.go, goRequest(exportName))]);
}
