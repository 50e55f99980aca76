// A real emulator after its host was started again: the hub starts what shall run, once, and nothing when it only started itself again. And the definition of its machine.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { echoMachineMissing } from "../landing/qemu/echo-machine.ts";
import { openEchoHub, type EchoHub } from "./test-echo-hub.ts";

const viewShape = z.object({ statuses: z.array(z.object({ code: z.string() })) });

async function isRunning(hub: EchoHub): Promise<boolean> {
  const view = viewShape.parse((await hub.arm("GET", `${hub.machine}/instanceView`)).body);
  return view.statuses.some(({ code }) => code === "PowerState/running");
}

it(
  "a machine set to start by itself runs again after its host's start, not after the hub's",
  { skip: echoMachineMissing() ?? false },
  async () => {
    const stateDir = await mkdtemp(join(tmpdir(), "whs-"));
    const hostStart = join(stateDir, "landing", "host-start");
    let hub = await openEchoHub(stateDir);
    const reopen = async (): Promise<void> => {
      await hub.hub[Symbol.asyncDispose]();
      hub = await openEchoHub(stateDir);
    };
    try {
      await hub.power("start");
      assert.equal((await hub.arm("POST", `${hub.machine}/setAutostart`, { isOn: true })).status, 200);
      const defined = await hub.arm("POST", `${hub.machine}/exportDefinition`, { format: "libvirt" });
      const { definition } = z.object({ fileName: z.literal("domain.xml"), definition: z.string() }).parse(defined.body);
      const disk = /<source file="([^"]+)"\/>/.exec(definition)?.[1] ?? "";
      assert.equal(
        (await readFile(disk)).subarray(0, 4).toString("latin1"),
        "QFI\xfb",
        "the definition names the qcow2 file that it runs on",
      );
      const pid = Number(await readFile(join(stateDir, "landing", "machines", "echo", "qemu.pid"), "utf8"));
      process.kill(pid, "SIGKILL"); // As power that is lost.
      while (await isRunning(hub)) await systemClock.sleep(20);
      const bootId = await readFile(hostStart, "utf8");
      await reopen();
      assert.equal(await isRunning(hub), false, "the hub alone was started again");
      await hub.hub[Symbol.asyncDispose]();
      await writeFile(hostStart, "an earlier start\n");
      hub = await openEchoHub(stateDir);
      while (!(await isRunning(hub))) await systemClock.sleep(20);
      while ((await readFile(hostStart, "utf8")) !== bootId) await systemClock.sleep(20);
    } finally {
      await hub.power("powerOff?skipShutdown=true");
      await hub.hub[Symbol.asyncDispose]();
      await rm(stateDir, { recursive: true, force: true });
    }
  },
);
