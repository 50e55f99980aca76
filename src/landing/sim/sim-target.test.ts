// The simulated target keeps the promises of Target.

import { systemClock } from "../../base/clock.ts";
import { parseDiskId } from "../../contract/ids.ts";
import { MemoryDisk } from "../../disk/memory-disk.ts";
import { runTargetSuite } from "../target-suite.ts";
import { simGuestMark, SimTarget, SimWorld } from "./sim-target.ts";

const content = Buffer.alloc(3 * 2 ** 20);
content.write(`${simGuestMark}hello`);

runTargetSuite({
  kind: "sim",
  open: async () => {
    const world = new SimWorld();
    let target = new SimTarget({ world, clock: systemClock });
    return {
      target,
      restart: async () => {
        await target[Symbol.asyncDispose]();
        target = new SimTarget({ world, clock: systemClock });
        return target;
      },
      killMachine: async (name) => world.killMachine(name),
      leftovers: async () => [...world.machines.keys()],
      close: async () => await target[Symbol.asyncDispose](),
    };
  },
  disks: () => [{ diskId: parseDiskId("boot"), isBoot: true, content: new MemoryDisk(content) }],
  nic: { mac: "52:54:00:77:0a:01", guestName: "ens192" },
  probe: { port: 8080, path: "/" },
  answer: "hello",
  bootSecondsMax: 5,
});
