// Strangers' NBD clients read the same bytes from our server as from the file itself.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { systemClock as clock } from "../base/clock.ts";
import { silentLog as log } from "../base/log.ts";
import { runCommand } from "../base/run-command.ts";
import { MemoryDisk } from "../disk/memory-disk.ts";
import { openNbdServer } from "./server.ts";

const folder = mkdtempSync(join(tmpdir(), "nbd-interop-"));
after(() => rmSync(folder, { recursive: true }));

const content = Buffer.alloc(24 * 2 ** 20);
for (let at = 0; at < content.length; at += 2 ** 21) content.fill(1 + (at >> 21), at, at + 700_000);
const raw = join(folder, "raw");
writeFileSync(raw, content);

const absent = (program: string) => (spawnSync("sh", ["-c", `command -v ${program}`]).status === 0 ? false : `${program} is not installed`);
let serial = 0;

async function serve(access: "read-only" | "read-write", disk: MemoryDisk) {
  const path = join(folder, String((serial += 1)));
  const server = await openNbdServer({ listen: { kind: "unix", path }, exports: [{ name: "d", access, disk }], clock, log });
  return { server, uri: server.uriOf("d") };
}

describe("strangers", () => {
  it("qemu-img sees the size, the same bytes, and converts", { skip: absent("qemu-img") }, async () => {
    const { server, uri } = await serve("read-only", new MemoryDisk(content));
    await using _ = server;
    const { stdout } = await runCommand("qemu-img", ["info", "--output=json", uri]);
    assert.equal(JSON.parse(stdout)["virtual-size"], content.length);
    await runCommand("qemu-img", ["compare", "-f", "raw", "-F", "raw", raw, uri]);
    await runCommand("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", uri, join(folder, "converted")]);
    await runCommand("qemu-img", ["compare", raw, join(folder, "converted")]);
  });

  it("qemu-img writes a whole image into a writable export", { skip: absent("qemu-img") }, async () => {
    const disk = new MemoryDisk(Buffer.alloc(content.length, 0xff));
    const { server, uri } = await serve("read-write", disk);
    await using _ = server;
    await runCommand("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", raw, uri]);
    assert.ok(content.equals(disk.bytes));
  });

  it("nbdinfo sees structured replies, the context and the holes", { skip: absent("nbdinfo") }, async () => {
    const { server, uri } = await serve("read-only", new MemoryDisk(content));
    await using _ = server;
    const { stdout } = await runCommand("nbdinfo", ["--json", uri]);
    const [told] = JSON.parse(stdout).exports;
    assert.equal(told["export-size"], content.length);
    assert.equal(told.is_read_only, true);
    assert.deepEqual(told.contexts, ["base:allocation"]);
    const map: readonly { offset: number; length: number; type: number }[] = JSON.parse(
      (await runCommand("nbdinfo", ["--json", "--map", uri])).stdout,
    );
    assert.equal(map.length, 24, "12 stripes of data and 12 of holes");
    for (const { offset, length, type } of map)
      if (type !== 0) assert.ok(content.subarray(offset, offset + length).every((byte) => byte === 0));
  });

  it("nbdcopy copies out and in over several connections", { skip: absent("nbdcopy") }, async () => {
    const disk = new MemoryDisk(Buffer.alloc(content.length, 0xff));
    const from = await serve("read-only", new MemoryDisk(content));
    await using _from = from.server;
    const to = await serve("read-write", disk);
    await using _to = to.server;
    await runCommand("nbdcopy", [from.uri, join(folder, "copied")]);
    assert.ok(content.equals(readFileSync(join(folder, "copied"))));
    await runCommand("nbdcopy", [raw, to.uri]);
    assert.ok(content.equals(disk.bytes));
  });
});
