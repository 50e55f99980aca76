// A real FAT filesystem inside an image gets the fallback path from the guest's own loader, once.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { runCommand } from "../../base/run-command.ts";
import { planEfiFallback } from "./efi-fallback.ts";
import { FatFiles } from "./fat-files.ts";

const skip = spawnSync("sh", ["-c", "command -v mformat mcopy"]).status === 0 ? false : "mtools is not installed";
const base = mkdtempSync(join(tmpdir(), "efi-"));
after(() => rmSync(base, { recursive: true }));

const offset = 2 ** 20;

/** An image with a FAT filesystem behind its first MiB. */
async function makeEfi(files: Readonly<Record<string, string>>): Promise<FatFiles> {
  const folder = mkdtempSync(join(base, "disk-"));
  const imagePath = join(folder, "disk.raw");
  writeFileSync(imagePath, "");
  truncateSync(imagePath, offset + 8 * 2 ** 20);
  await runCommand("mformat", ["-i", `${imagePath}@@${offset}`, "-T", String(8 * 2048), "-h", "16", "-s", "32", "::"]);
  const fat = new FatFiles({ imagePath, offset, scratchFolder: folder });
  const folders = new Set(
    Object.keys(files).flatMap((path) =>
      path
        .split("/")
        .slice(1, -1)
        .map((_, depth, words) => `/${words.slice(0, depth + 1).join("/")}`),
    ),
  );
  await fat.change([...folders].map((path) => ({ kind: "makeFolder", path }) as const));
  await fat.change(
    Object.entries(files).map(([path, text]) => ({ kind: "write", path, content: Buffer.from(text), mode: 0o644 }) as const),
  );
  return fat;
}

describe("planEfiFallback", { skip }, () => {
  it("takes the loader with what it starts, beside it, and nothing the second time", async () => {
    const fat = await makeEfi({ "/EFI/debian/shimx64.efi": "shim", "/EFI/debian/grubx64.efi": "grub", "/EFI/debian/grub.cfg": "search" });
    const { efiChanges = [], changes } = await planEfiFallback(fat);
    assert.deepEqual(changes, ["EFI/BOOT/BOOTX64.EFI: made from EFI/debian/shimx64.efi"]);
    await fat.change(efiChanges);
    const found = await fat.read(["/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/grubx64.efi", "/EFI/debian/shimx64.efi", "/EFI/none"]);
    assert.deepEqual(
      [...found].map(([path, bytes]) => `${path} ${bytes.toString()}`),
      ["/EFI/BOOT/BOOTX64.EFI shim", "/EFI/BOOT/grubx64.efi grub", "/EFI/debian/shimx64.efi shim"],
    );
    assert.deepEqual(await planEfiFallback(fat), { changes: [] });
  });

  it("keeps a fallback that is there, in any case of letters, and says when there is nothing to start", async () => {
    assert.deepEqual(await planEfiFallback(await makeEfi({ "/EFI/Boot/bootx64.efi": "own", "/EFI/x/grubx64.efi": "grub" })), {
      changes: [],
    });
    assert.match((await planEfiFallback(await makeEfi({ "/EFI/debian/readme": "" }))).changes.join(), /^! .*no loader/);
    assert.match((await planEfiFallback(await makeEfi({ "/other": "" }))).changes.join(), /^! .*no folder EFI/);
  });
});
