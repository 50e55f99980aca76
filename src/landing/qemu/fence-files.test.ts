// Fencing numbers of the QEMU target are on disk and outlive machines and programs.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { MemoryDisk } from "../../disk/memory-disk.ts";
import { QemuTarget } from "./qemu-target.ts";

test("a QEMU target refuses an older hub after a newer one removed the machine, in another process too", async () => {
  const stateFolder = await mkdtemp(join(tmpdir(), "wf-"));
  try {
    await mkdir(join(stateFolder, "machines"));
    const open = (): QemuTarget =>
      new QemuTarget(
        {
          stateFolder,
          cacheFolder: stateFolder,
          networks: {},
          clock: systemClock,
          log: silentLog,
          exportDisk: () => assert.fail("nothing is served"),
        },
        "tcg",
      );
    await open().under({ kind: "job", fence: 7 }).remove("web");
    const disks = [{ diskId: parseDiskId("boot"), isBoot: true, content: new MemoryDisk(new Uint8Array(4096)) }];
    const shape = { name: "web", cpuCount: 1, memoryBytes: 2 ** 28, firmware: "bios", network: { kind: "isolated" } } as const;
    const spec = { ...shape, disks, nics: [] };
    const isStale = (error: unknown): boolean => error instanceof Fault && error.code === "StaleOrder";
    await assert.rejects(open().under({ kind: "job", fence: 6 }).launch(spec), isStale);
    await assert.rejects(open().under({ kind: "person", fence: 6 }).start("web"), isStale);
    await open().under({ kind: "job", fence: 8 }).remove("web");
    await assert.rejects(open().under({ kind: "job", fence: 7 }).remove("web"), isStale);
  } finally {
    await rm(stateFolder, { recursive: true, force: true });
  }
});
