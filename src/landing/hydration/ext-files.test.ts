// Files of an ext filesystem: links lead inside the guest only, what is no file is left out, and a change is seen at once.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { runCommand } from "../../base/run-command.ts";
import { ExtFiles } from "./ext-files.ts";

const skip = spawnSync("sh", ["-c", "command -v mke2fs debugfs"]).status === 0 ? false : "e2fsprogs is not installed";
const base = mkdtempSync(join(tmpdir(), "ext-files-"));
after(() => rmSync(base, { recursive: true }));

const partitionAt = 2 ** 20;
const big = Buffer.alloc(300_000).map((_, index) => (index * 2_654_435_761) >>> 24);

async function makeFiles(features: string): Promise<ExtFiles> {
  const folder = mkdtempSync(join(base, "one-"));
  const [tree, image, scratchFolder] = [join(folder, "tree"), join(folder, "image"), join(folder, "scratch")];
  for (const path of ["usr/lib/modules", "etc/alternatives", "empty"]) mkdirSync(join(tree, path), { recursive: true });
  mkdirSync(scratchFolder);
  writeFileSync(join(tree, "usr/lib/modules/one"), big);
  writeFileSync(join(tree, "etc/fstab"), "first");
  for (const [to, path] of [
    ["usr/lib", "lib"],
    ["/usr/../../usr/./lib", "etc/alternatives/up"],
    ["../etc/alternatives/up", "empty/far"],
    ["round", "round"],
    ["/etc/fstab", "etc/table"],
    ["/nowhere", "lost"],
  ] as const)
    symlinkSync(to, join(tree, path));
  writeFileSync(image, "");
  truncateSync(image, partitionAt + 4 * 2 ** 20);
  await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", "-O", features, "-E", `offset=${partitionAt}`, "-d", tree, image, "4096"]);
  return new ExtFiles({ imagePath: image, offset: partitionAt, scratchFolder });
}

describe("ExtFiles", { skip }, () => {
  for (const features of ["none,filetype,sparse_super", "extents,64bit,metadata_csum,inline_data,has_journal"])
    it(`follows links on the way and none at the end (${features})`, async () => {
      const files = await makeFiles(features);
      for (const folder of ["/usr/lib/modules", "/lib/modules", "/etc/alternatives/up/modules", "/empty/far/modules", "/lib/modules/"])
        assert.deepEqual(
          (await files.list(folder))?.map(({ name, kind, sizeBytes }) => ({ name, kind, sizeBytes })),
          [{ name: "one", kind: "file", sizeBytes: big.length }],
          folder,
        );
      for (const none of ["/lib", "/etc/fstab", "/lost/x", "/round/x", "/no", "/etc/fstab/x"])
        assert.equal(await files.list(none), undefined, none);
      assert.deepEqual(await files.list("/empty/far/../empty"), undefined);
      const wanted = ["/empty/far/modules/one", "/etc/fstab", "/etc/table", "/etc", "/lost", "/round/x", "/no"];
      const found = await files.read(wanted);
      assert.deepEqual([...found.keys()], ["/empty/far/modules/one", "/etc/fstab"]);
      assert.ok(found.get("/empty/far/modules/one")?.equals(big));
      assert.equal((await files.list("/etc"))?.find(({ name }) => name === "table")?.kind, "link");
    });

  it("shows a change at once", async () => {
    const files = await makeFiles("extents,has_journal");
    assert.equal((await files.read(["/etc/fstab"])).get("/etc/fstab")?.toString(), "first");
    await files.change([
      { kind: "rename", from: "/etc/fstab", to: "/etc/fstab.old" },
      { kind: "write", path: "/etc/fstab", content: Buffer.from("second"), mode: 0o640 },
      { kind: "link", path: "/empty/link", to: "/dev/null" },
    ]);
    const found = await files.read(["/etc/fstab", "/etc/fstab.old"]);
    assert.deepEqual(
      [...found.values()].map((bytes) => bytes.toString()),
      ["second", "first"],
    );
    assert.equal((await files.list("/etc"))?.find(({ name }) => name === "fstab")?.mode, 0o640);
    assert.deepEqual((await files.list("/empty"))?.map(({ name, kind }) => `${name} ${kind}`).sort(), ["far link", "link link"]);
  });
});
