// A program that lands a simulated machine through the Azure target and kills itself as its n-th request begins; its order comes in on stdin.

import { subscribe } from "node:diagnostics_channel";
import { text } from "node:stream/consumers";
import { parseDiskId } from "../../src/contract/ids.ts";
import { MemoryDisk } from "../../src/disk/memory-disk.ts";
import { openAzureFront } from "../conformance/azure-target-rig.ts";
import { boot, openSimTarget } from "../conformance/azure-target-sim.ts";
import type { AzureKill } from "./azure-kill.test.ts";

const { facts, stateFolder, owner, at } = JSON.parse(await text(process.stdin)) as AzureKill; // The test that starts it wrote it.
const front = await openAzureFront(facts, { name: "tests", cidr: "10.77.0.0/24" });
let count = 0;
subscribe("http.client.request.start", () => {
  count += 1;
  if (count === at) process.kill(process.pid, "SIGKILL");
});
const target = await openSimTarget({ ...front, place: { ...front.place, owner } }, stateFolder);
await target.under({ kind: "job", fence: 1 }).launch({
  ...{ name: "web", cpuCount: 1, memoryBytes: 512 * 2 ** 20, firmware: "bios", network: { kind: "isolated" } },
  disks: [{ diskId: parseDiskId("boot"), isBoot: true, content: new MemoryDisk(boot) }],
  nics: [{ mac: "52:54:00:77:0a:01", guestName: "ens192", address: "10.77.0.20/24" }],
});
await front[Symbol.asyncDispose]();
process.stdout.write(String(count));
