// The Azure target against a hub's own ARM front, by Microsoft's clients: the promises of Target, and uploads that are killed.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import { Fault } from "../../src/contract/errors.ts";
import { parseDiskId } from "../../src/contract/ids.ts";
import { computeRoot } from "../../src/disk/compute-root.ts";
import type { Disk } from "../../src/disk/disk.ts";
import { MemoryDisk } from "../../src/disk/memory-disk.ts";
import { AzureMachine } from "../../src/landing/azure/azure-machine.ts";
import type { AzureTarget } from "../../src/landing/azure/azure-target.ts";
import { openPages } from "../../src/landing/azure/azure-clients.ts";
import { uploadVhd, type UploadReport } from "../../src/landing/azure/vhd-upload.ts";
import { runTargetSuite } from "../../src/landing/target-suite.ts";
import type { LaunchSpec } from "../../src/landing/target.ts";
import { startEphemeralHub } from "../../src/sim/ephemeral-hub.ts";
import type { EphemeralHub } from "../../src/hub/hub-command.ts";
import { openAzureFront, type AzureFront } from "./azure-target-rig.ts";
import { boot, openSimTarget } from "./azure-target-sim.ts";

const mebibyte = 2 ** 20;
let hub: EphemeralHub;
let front: AzureFront;

before(async () => {
  const sections = { landing: { networks: { tests: { kind: "user" } } } };
  hub = await startEphemeralHub({ machineCount: 0, paceSeconds: 0, log, sections });
  front = await openAzureFront(hub.facts, { name: "tests", cidr: "10.77.0.0/24" });
});
after(async () => {
  await front[Symbol.asyncDispose]();
  await hub[Symbol.asyncDispose]();
});

const openTarget = async (stateFolder: string): Promise<AzureTarget> => await openSimTarget(front, stateFolder);

runTargetSuite({
  kind: "azure",
  copiesFirst: true,
  open: async () => {
    const stateFolder = await mkdtemp(join(tmpdir(), "wz-"));
    let target = await openTarget(stateFolder);
    return {
      target,
      restart: async () => {
        await target[Symbol.asyncDispose]();
        target = await openTarget(stateFolder);
        return target;
      },
      killMachine: async (name) =>
        await front.azure.compute.virtualMachines.powerOff(front.place.resourceGroup, name, { skipShutdown: true }),
      leftovers: async () => await target.leftovers(),
      close: async () => await rm(stateFolder, { recursive: true, force: true }),
    };
  },
  disks: () => [{ diskId: parseDiskId("boot"), isBoot: true, content: new MemoryDisk(boot) }],
  nic: { mac: "52:54:00:77:0a:01", guestName: "ens192" },
  probe: { port: 8080, path: "/" },
  answer: "hello",
  bootSecondsMax: 5,
});

describe("an upload", () => {
  const sizeBytes = 33 * mebibyte + 512 * 3;
  const bytes = Buffer.alloc(sizeBytes);
  bytes.fill(1, 5 * mebibyte, 5 * mebibyte + 9000);
  bytes.fill(2, 16 * mebibyte, 22 * mebibyte);
  bytes.fill(3, sizeBytes - 512);
  const content = new MemoryDisk(bytes);
  const spec = (name: string): LaunchSpec => ({
    ...{ name, cpuCount: 1, memoryBytes: 512 * mebibyte, firmware: "bios", nics: [], network: { kind: "isolated" } },
    disks: [{ diskId: parseDiskId("data"), isBoot: true, content }],
  });

  async function upload(name: string, journalPath: string, point: Disk = content, root?: string): Promise<UploadReport> {
    const machine = new AzureMachine(name, front);
    await machine.makeDisk(spec(name), 0);
    const disk = { content: point, point, isChanged: () => false };
    const address = async (): Promise<string> => await machine.openDisk(0);
    return await uploadVhd({
      disk,
      journalPath,
      address,
      agent: front.azure.agent,
      clock,
      random,
      ...(root === undefined ? {} : { root }),
    });
  }

  async function withJournal(task: (path: string) => Promise<void>): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), "wj-"));
    try {
      await task(join(folder, "journal"));
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  it("sends only what is not zero, and what stands there is the recovery point, footer and all", async () => {
    await withJournal(async (journal) => {
      const root = await computeRoot(content);
      const report = await upload("sparse", journal, content, root);
      assert.deepEqual([report.pointRoot, report.sentRoot], [root, root]);
      assert.ok(report.sentBytes < 6.2 * mebibyte, `${report.sentBytes} bytes were sent`);
      const machine = new AzureMachine("sparse", front);
      const stored = await openPages(await machine.openDisk(0), front.azure.agent).downloadToBuffer();
      assert.equal(stored.length, 34 * mebibyte + 512);
      assert.ok(stored.subarray(0, sizeBytes).equals(bytes));
      await machine.closeDisk(0);
      await machine.erase();
    });
  });

  it("goes on after it was cut, and sends nothing twice that was acknowledged", async () => {
    await withJournal(async (journal) => {
      let readCount = 0;
      const failing: Disk = {
        sizeBytes,
        read: async (offset, into, signal) => {
          if (offset >= 16 * mebibyte && readCount++ === 0)
            throw new Fault("StoreUnavailable", "could not read a block", { retry: "never" });
          await content.read(offset, into, signal);
        },
        extents: async (offset, length, signal) => await content.extents(offset, length, signal),
        [Symbol.asyncDispose]: async () => undefined,
      };
      await assert.rejects(upload("cut", journal, failing), { code: "StoreUnavailable" });
      const whole = await upload("cut", journal, content, await computeRoot(content));
      assert.equal((await upload("cut", journal)).sentBytes, 0);
      assert.ok(whole.sentBytes >= 6 * mebibyte - 64 * 1024, "what was cut was sent");
      await new AzureMachine("cut", front).erase();
    });
  });

  it("refuses a disk that is not the recovery point's, and one whose pages were changed by others", async () => {
    await withJournal(async (journal) => {
      await assert.rejects(upload("other", journal, content, "0".repeat(64)), { code: "DataDamaged" });
      const machine = new AzureMachine("other", front);
      const pages = openPages(await machine.openDisk(0), front.azure.agent);
      await pages.uploadPages(Buffer.alloc(4096, 7), 30 * mebibyte, 4096);
      await assert.rejects(upload("other", journal), { code: "DataDamaged" });
      await machine.erase();
    });
  });

  it("does not take over what carries another's tags", async () => {
    await withJournal(async (journal) => {
      await upload("mine", journal);
      const stranger = new AzureMachine("mine", { ...front, place: { ...front.place, owner: "somebody else" } });
      await assert.rejects(stranger.makeDisk(spec("mine"), 0), { code: "StateConflict" });
      await stranger.erase();
      assert.equal((await front.azure.compute.disks.get(front.place.resourceGroup, "mine-disk0")).diskState, "ActiveUpload");
      await new AzureMachine("mine", front).erase();
    });
  });
});
