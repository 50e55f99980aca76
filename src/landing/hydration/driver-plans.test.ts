// A kept plan is used only for the bytes that it was made of, found again whole, and pushed out when there are too many.

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { systemClock as clock } from "../../base/clock.ts";
import { cpioTypes, writeCpio } from "./cpio.ts";
import { openDriverPlans, type DriverPlan } from "./driver-plans.ts";
import { planInjection } from "./inject-drivers.ts";
import type { GuestFile, VolumeFiles } from "./volume-files.ts";

const base = mkdtempSync(join(tmpdir(), "driver-plans-"));
after(() => rmSync(base, { recursive: true }));
const freshFolder = (): string => mkdtempSync(join(base, "plans-"));

const release = "6.1.0-9";
const modules = `/lib/modules/${release}`;
const initrdPath = `/boot/initrd.img-${release}`;
const present = { name: `${modules.slice(1)}/kernel/virtio.ko`, mode: cpioTypes.file, content: Buffer.from("virtio") };

const guestFiles: Readonly<Record<string, Buffer>> = {
  [initrdPath]: gzipSync(writeCpio([present])),
  [`${modules}/modules.dep`]: Buffer.from("kernel/virtio.ko:\nkernel/blk.ko: kernel/virtio.ko\nkernel/pci.ko: kernel/virtio.ko\n"),
  [`${modules}/modules.builtin`]: Buffer.from("kernel/ext4.ko\n"),
  [`${modules}/modules.dep.bin`]: Buffer.from("index"),
  [`${modules}/kernel/blk.ko`]: Buffer.from("blk"),
  [`${modules}/kernel/pci.ko`]: Buffer.from("pci"),
};

function volumeOf(files: Readonly<Record<string, Buffer>>): VolumeFiles {
  return {
    list: async (path) => {
      const names = new Map<string, GuestFile>();
      const under = path.endsWith("/") ? path : `${path}/`;
      for (const [each, { length }] of Object.entries(files)) {
        if (!each.startsWith(under)) continue;
        const [name = "", ...rest] = each.slice(under.length).split("/");
        names.set(name, { name, kind: rest.length === 0 ? "file" : "folder", mode: 0o644, uid: 0, gid: 0, sizeBytes: length });
      }
      return names.size === 0 ? undefined : [...names.values()];
    },
    read: async (paths) => new Map(paths.flatMap((path) => (files[path] === undefined ? [] : [[path, files[path]] as const]))),
    change: async () => undefined,
  };
}

async function plan(files: Readonly<Record<string, Buffer>>, folder?: string, required: readonly string[] = ["blk", "pci"]) {
  const volume = volumeOf(files);
  const guest = {
    ...{ rootFiles: volume, moduleFiles: volume, bootFiles: volume, bootFreeBytes: 2 ** 30, bootPrefix: "/boot" as const },
    efiFiles: undefined,
  };
  const plans = folder === undefined ? undefined : openDriverPlans(folder, clock);
  return await planInjection({ guest, needs: { required, wished: [] }, scratchFolder: base, plans });
}

describe("a kept plan", () => {
  it("gives what planning anew gives, whatever file has changed, came or went since", async () => {
    const folder = freshFolder();
    await plan(guestFiles, folder);
    const paths = [...Object.keys(guestFiles), `${modules}/modules.alias.bin`];
    const change = fc.record({ path: fc.constantFrom(...paths), how: fc.constantFrom("longer", "bit", "gone") });
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 2 }),
        fc.constantFrom(["blk"], ["blk", "pci"], ["pci", "ext4"]),
        async (changes, needs) => {
          const files = { ...guestFiles };
          for (const { path, how } of changes) {
            const old = files[path] ?? Buffer.from("x");
            if (how === "gone" && path !== initrdPath) delete files[path];
            else if (path === initrdPath) files[path] = gzipSync(writeCpio([present, { ...present, name: `${how}-${old.length}` }]));
            else
              files[path] =
                how === "bit" ? Buffer.from(old.map((byte, index) => (index === 0 ? byte ^ 1 : byte))) : Buffer.concat([old, old]);
          }
          const outcome = async (from?: string) => await plan(files, from, needs).catch((error: unknown) => String(error));
          assert.deepEqual(await outcome(folder), await outcome());
          assert.deepEqual(await outcome(folder), await outcome(), "and when it is asked again");
        },
      ),
      { numRuns: 60 },
    );
  });

  it("is used: nothing is kept anew for the same bytes, and the initramfs is not looked into", async () => {
    const folder = freshFolder();
    const first = await plan(guestFiles, folder);
    const [name = ""] = readdirSync(folder);
    const kept = openDriverPlans(folder, clock);
    const spied: string[] = [];
    const volume = volumeOf(guestFiles);
    const again = await planInjection({
      guest: {
        ...{ rootFiles: volume, moduleFiles: volume, bootFiles: volume, bootFreeBytes: 2 ** 30 },
        bootPrefix: "/boot",
        efiFiles: undefined,
      },
      ...{ needs: { required: ["blk", "pci"], wished: [] }, scratchFolder: base },
      plans: { find: kept.find, keep: async () => void spied.push("kept") },
    });
    assert.deepEqual(again, first);
    assert.deepEqual(spied, []);
    assert.deepEqual(readdirSync(folder), [name]);
  });

  it("is none when any byte of its file is another, or it is cut", async () => {
    const folder = freshFolder();
    const plans = openDriverPlans(folder, clock);
    const made: DriverPlan = { names: ["blk"], files: [{ path: "/x", digest: null }], tail: Buffer.from([1, 2, 3]) };
    await plans.keep(["a"], made);
    const whole = await plans.find(["a"]);
    assert.deepEqual({ ...whole, tail: Buffer.from(whole?.tail ?? []) }, made);
    assert.equal(await plans.find(["b"]), undefined);
    const path = join(folder, readdirSync(folder)[0] ?? "");
    const bytes = readFileSync(path);
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(at) ^ 1, at);
      writeFileSync(path, flipped);
      assert.equal(await plans.find(["a"]), undefined, `byte ${at}`);
      writeFileSync(path, bytes.subarray(0, at));
      assert.equal(await plans.find(["a"]), undefined, `cut at ${at}`);
    }
  });

  it("is pushed out when there are too many, the one that was used last stays", async () => {
    const folder = freshFolder();
    let nowMs = 0;
    const plans = openDriverPlans(folder, { ...clock, nowMs: () => (nowMs += 10_000) });
    const empty: DriverPlan = { names: [], files: [], tail: Buffer.alloc(0) };
    for (let index = 0; index < 64; index++) {
      await plans.keep([String(index)], empty);
      await plans.find([String(index)]); // Its time is now the clock's.
    }
    assert.notEqual(await plans.find(["0"]), undefined);
    await plans.keep(["new"], empty);
    assert.equal(readdirSync(folder).length, 64);
    assert.notEqual(await plans.find(["0"]), undefined);
    assert.equal(await plans.find(["1"]), undefined);
  });
});
