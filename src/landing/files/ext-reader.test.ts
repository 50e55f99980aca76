// Promises of reading guests' files: the same as the filesystem's own tools say, after a journal too, and no nonsense from damage.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { copyFile, link, mkdir, mkdtemp, open, readFile, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { runCommand, tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import { openExtFiles } from "./ext-reader.ts";
import type { GuestFiles, GuestNode } from "./guest-files.ts";
import { findNode, findVolumes, openVolume } from "./guest-volumes.ts";
import { writeTar } from "./tar.ts";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "we-"));
  await makeTree(join(folder, "tree"));
});
after(async () => await rm(folder, { recursive: true, force: true }));

const aged = 1_600_000_000;
const long = "n".repeat(200);

/** Small, large and sparse files, links of both kinds, names that are not plain, a folder of many. */
async function makeTree(tree: string): Promise<void> {
  await mkdir(join(tree, "etc", "deep", "er"), { recursive: true });
  await writeFile(join(tree, "etc", "hostname"), "ledger1\n", { mode: 0o640 });
  await utimes(join(tree, "etc", "hostname"), aged, aged);
  await writeFile(join(tree, "etc", "deep", "er", "empty"), "");
  await writeFile(join(tree, "with space & ünïcode"), "odd name");
  await writeFile(join(tree, "etc", long), randomBytes(5000));
  await writeFile(join(tree, "large"), randomBytes(3_300_001));
  await writeFile(join(tree, "sparse"), "begin");
  await truncate(join(tree, "sparse"), 9_000_000);
  await using file = await open(join(tree, "sparse"), "r+");
  await file.write(Buffer.from("end"), 0, 3, 8_999_000);
  await symlink("etc/hostname", join(tree, "short-link"));
  await symlink(`/${"far/".repeat(40)}away`, join(tree, "long-link"));
  await link(join(tree, "large"), join(tree, "etc", "large-too"));
  await mkdir(join(tree, "many"));
  for (let index = 0; index < 700; index++) await writeFile(join(tree, "many", `file-${index}-${"x".repeat(40)}`), `content ${index}`);
}

async function makeImage(name: string, args: readonly string[], sizeMiB = 64): Promise<string> {
  const path = join(folder, name);
  await runCommand("mke2fs", ["-q", "-F", ...args, "-d", join(folder, "tree"), path, `${sizeMiB}M`]);
  return path;
}

async function openImage(path: string): Promise<{ readonly files: GuestFiles } & AsyncDisposable> {
  const file = await open(path, "r");
  const files = await openExtFiles(async (offset, into) => {
    const { bytesRead } = await file.read(into, 0, into.length, offset);
    assert.equal(bytesRead, into.length);
  });
  return { files, [Symbol.asyncDispose]: async () => await file.close() };
}

/** Every path with what can be told of it. */
async function tellAll(files: GuestFiles, at: GuestNode = files.root, path = ""): Promise<Map<string, string>> {
  const told = new Map<string, string>();
  for await (const { name, node } of files.list(at)) {
    const own = `${path}/${name.toString("utf8")}`;
    const digest = createHash("sha256");
    if (node.kind === "file") for await (const piece of files.read(node)) digest.update(piece);
    if (node.kind === "link") digest.update(await files.readLink(node));
    // e2fsck packs folders anew.
    const size = node.kind === "folder" ? "" : node.sizeBytes;
    told.set(own, `${node.kind} ${node.mode.toString(8)} ${size} ${digest.digest("hex")}`);
    if (node.kind === "folder") for (const [below, text] of await tellAll(files, node, own)) told.set(below, text);
  }
  return told;
}

async function contentOf(files: GuestFiles, path: string, offset?: number): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(files.read(await findNode(files, path), offset)));
}

const shapes: Readonly<Record<string, readonly string[]>> = {
  ext4: ["-t", "ext4"],
  "ext4 with blocks of 1 KiB": ["-t", "ext4", "-b", "1024"],
  "ext4 with content in inodes": ["-t", "ext4", "-O", "inline_data", "-I", "512"],
  "ext4 with descriptors by group": ["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
  ext3: ["-t", "ext3", "-b", "1024"],
  "ext2 of the first revision": ["-t", "ext2", "-r", "0", "-b", "1024"],
};

describe("Files of a guest", () => {
  for (const [shape, args] of Object.entries(shapes))
    it(`are what was written, on ${shape}`, async () => {
      await using image = await openImage(await makeImage(`${shape.replaceAll(" ", "-")}.img`, args));
      const { files } = image;
      const tree = join(folder, "tree");
      // mke2fs ends a sparse file with its last block where content may stand in inodes.
      const sparse = shape.includes("in inodes") ? [] : ["sparse"];
      for (const path of ["large", ...sparse, "etc/hostname", "with space & ünïcode", `etc/${long}`, `many/file-699-${"x".repeat(40)}`])
        assert.ok((await contentOf(files, `/${path}`)).equals(await readFile(join(tree, path))), path);
      const hostname = await findNode(files, "/etc/hostname");
      assert.deepEqual([hostname.mode, hostname.sizeBytes, hostname.modifiedAt], [0o640, 8, aged]);
      assert.equal((await findNode(files, "/large")).serial, (await findNode(files, "/etc/large-too")).serial);
      assert.equal((await files.readLink(await findNode(files, "/long-link"))).toString(), `/${"far/".repeat(40)}away`);
      assert.equal((await files.readLink(await findNode(files, "/short-link"))).toString(), "etc/hostname");
      assert.equal((await Array.fromAsync(files.list(await findNode(files, "/many")))).length, 700);
      if (sparse.length === 0) return;
      const tail = await readFile(join(tree, "sparse"));
      assert.ok((await contentOf(files, "/sparse", 8_998_999)).equals(tail.subarray(8_998_999)));
    });

  it("are found in folders that are hashed", async () => {
    const path = await makeImage("hashed.img", ["-t", "ext4", "-b", "1024"]);
    assert.ok((await tryCommand("e2fsck", ["-fyD", path], { timeoutMs: 60_000 })).exitCode !== 8);
    await using image = await openImage(path);
    assert.equal((await Array.fromAsync(image.files.list(await findNode(image.files, "/many")))).length, 700);
  });

  for (const [name, checksum] of [
    ["without", []],
    ["with", ["-c"]],
  ] as const)
    it(`are those that a mount would show, where the journal ${name} checksums was not put in place`, async () => {
      const path = await makeImage(`journal-${name}.img`, [
        "-t",
        "ext4",
        "-b",
        "4096",
        ...(checksum.length > 0 ? [] : ["-O", "^metadata_csum"]),
      ]);
      const blocks = (await debug(path, ["-R", "blocks /large"])).trim().split(/\s+/).map(Number);
      const blockOf = (index: number): number => blocks[index] ?? assert.fail("the file has blocks");
      // One block that begins as the journal's own do, one plain, one that is written and then revoked.
      const escaped = Buffer.concat([Buffer.from([0xc0, 0x3b, 0x39, 0x98]), randomBytes(4092)]);
      const contents = { escaped, plain: randomBytes(4096), revoked: randomBytes(4096) };
      for (const [file, bytes] of Object.entries(contents)) await writeFile(join(folder, file), bytes);
      const script = join(folder, "script");
      const commands = [
        `jo ${checksum.join(" ")}`,
        `jw -b ${blockOf(0)} ${join(folder, "escaped")}`,
        `jw -b ${blockOf(3)} ${join(folder, "revoked")}`,
        `jw -r ${blockOf(3)}`,
        `jw -b ${blockOf(5)} ${join(folder, "plain")}`,
        "jc",
      ];
      await writeFile(script, `${commands.join("\n")}\n`);
      await debug(path, ["-w", "-f", script]);
      const replayed = `${path}.replayed`;
      await copyFile(path, replayed);
      await tryCommand("e2fsck", ["-fy", replayed], { timeoutMs: 60_000 });
      await using dirty = await openImage(path);
      await using clean = await openImage(replayed);
      const before = await readFile(join(folder, "tree", "large"));
      const content = await contentOf(dirty.files, "/large");
      assert.ok(content.subarray(0, 4096).equals(contents.escaped), "the escaped block is in place");
      assert.ok(content.subarray(3 * 4096, 4 * 4096).equals(before.subarray(3 * 4096, 4 * 4096)), "the revoked block is not");
      assert.ok(content.subarray(5 * 4096, 6 * 4096).equals(contents.plain), "the plain block is in place");
      assert.deepEqual(await tellAll(dirty.files), await tellAll(clean.files));
    });

  it("make an archive that tar unpacks to the same, whole or from any byte on", async () => {
    await using image = await openImage(await makeImage("archive.img", ["-t", "ext4"]));
    const { files } = image;
    const entries = [{ name: Buffer.alloc(0), node: files.root }];
    const whole = Buffer.concat(await Array.fromAsync(writeTar({ files, entries }, 0)));
    for (const from of [1, 511, 512, 700_001, whole.length - 1024, whole.length - 1])
      assert.ok(Buffer.concat(await Array.fromAsync(writeTar({ files, entries }, from))).equals(whole.subarray(from)), `from ${from}`);
    const [path, out] = [join(folder, "all.tar"), join(folder, "out")];
    await writeFile(path, whole);
    await mkdir(out);
    await runCommand("tar", ["-xf", path, "-C", out, "--exclude=lost+found"]);
    await rm(join(out, "lost+found"), { recursive: true, force: true });
    await runCommand("diff", ["-r", "--no-dereference", join(folder, "tree"), out]);
  });

  it("are refused by name where they are not read, and where damage would make nonsense of them", async () => {
    const path = await makeImage("damaged.img", ["-t", "ext4", "-b", "1024"]);
    const bytes = await readFile(path);
    const random = randomBytes(400);
    // Every answer to damage is a Fault or an end, never an exception of the program or an endless walk.
    for (let turn = 0; turn < 12; turn++) {
      const harmed = Buffer.from(bytes);
      for (let count = 0; count < 400; count++)
        harmed[random.readUInt32LE((count * 7 + turn) % 390) % (2 << 20)] = random[(count + turn) % 400] ?? 0;
      const readAt = async (offset: number, into: Buffer): Promise<void> => {
        if (offset < 0 || offset + into.length > harmed.length) throw new Fault("DataDamaged", "beyond the image");
        harmed.copy(into, 0, offset, offset + into.length);
      };
      try {
        const files = await openExtFiles(readAt);
        let pieces = 0;
        // A damaged length makes a sparse file of terabytes, and these are zeros as they should be.
        for await (const _ of writeTar({ files, entries: [{ name: Buffer.alloc(0), node: files.root }] }, 0)) if (++pieces > 4096) break;
      } catch (error) {
        assert.ok(error instanceof Fault, String(error instanceof Error ? error.stack : error));
      }
    }
  });

  it("stand in partitions; what is no ext filesystem is named", async () => {
    const [ext, path] = [await makeImage("part.img", ["-t", "ext4"], 32), join(folder, "disk.img")];
    await truncate(await made(path), 80 << 20);
    await using file = await open(path, "r+");
    const table = Buffer.alloc(512);
    const entry = (index: number, first: number, count: number, type: number): void => {
      table.writeUInt8(type, 446 + index * 16 + 4);
      table.writeUInt32LE(first, 446 + index * 16 + 8);
      table.writeUInt32LE(count, 446 + index * 16 + 12);
    };
    entry(0, 2048, 65_536, 0x83);
    entry(1, 2048 + 65_536, 65_536, 0x8e);
    table.writeUInt16LE(0xaa55, 510);
    await file.write(table, 0, 512, 0);
    await file.write(await readFile(ext), 0, 32 << 20, 2048 * 512);
    await file.write(Buffer.from("LABELONE"), 0, 8, (2048 + 65_536) * 512 + 512);
    await file.write(Buffer.from("LVM2 001"), 0, 8, (2048 + 65_536) * 512 + 512 + 24);
    await using disk = await openFileDisk(path, { access: "read" });
    const volumes = await findVolumes([disk]);
    assert.deepEqual(
      volumes.map(({ name, filesystem }) => [name, filesystem.kind]),
      [
        ["1.1", "ext"],
        ["1.2", "lvm"],
      ],
    );
    const [first, second] = volumes;
    const files = await openVolume([disk], first ?? assert.fail("absent"));
    assert.equal((await contentOf(files, "/etc/hostname")).toString(), "ledger1\n");
    await assert.rejects(openVolume([disk], second ?? assert.fail("absent")), { code: "OperationNotSupported", message: /LVM/ });
    await assert.rejects(findNode(files, "/etc/none"), { code: "NotFound" });
    await assert.rejects(findNode(files, "/short-link/x"), { code: "NotFound", message: /is a link/ });
    await assert.rejects(findNode(files, "/../etc"), { code: "InputInvalid" });
  });
});

async function made(path: string): Promise<string> {
  await writeFile(path, "");
  return path;
}

async function debug(path: string, args: readonly string[]): Promise<string> {
  const { stdout } = await tryCommand("debugfs", [...args, path], { timeoutMs: 60_000 });
  return stdout;
}
