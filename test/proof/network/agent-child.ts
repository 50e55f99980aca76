// An agent in a process of its own over a simulated machine: FOLDER HOST:PORT, with passphrase and ca.pem in the folder; runs until SIGTERM.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { registerSimulatedAgent, startSimulatedAgent } from "../../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../../src/agent/sim/simulated-source.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { parseDiskId } from "../../../src/contract/ids.ts";

const [folder = "", place = ""] = process.argv.slice(2);
const [host = "", port = ""] = place.split(":");
const disk = join(folder, "disk");
await writeFile(disk, new Uint8Array(1 << 20));
const uuid = systemRandom.uuid();
const facts = {
  ...{ hostname: "guest", smbiosUuid: uuid, osMachineId: uuid.replaceAll("-", ""), bootId: systemRandom.uuid(), osName: "Debian" },
  ...{ kernelRelease: "6.1", firmware: "bios" as const, cpuCount: 1, memoryBytes: 2 ** 30, addresses: [host], nics: [] },
};
const diskFacts = { diskId: parseDiskId("serial-a"), deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
await using source = await SimulatedSource.open({
  clock: systemClock,
  random: systemRandom,
  facts,
  disks: [{ path: disk, facts: diskFacts }],
});
const parts = { source, stateFolder: join(folder, "state"), clock: systemClock, random: systemRandom };
const machineId = await registerSimulatedAgent({
  ...parts,
  appliance: { host, port: Number(port) },
  authorityPem: await readFile(join(folder, "ca.pem"), "utf8"),
  passphraseFile: join(folder, "passphrase"),
});
await using running = startSimulatedAgent({ ...parts, writeLog: (line) => void process.stderr.write(line) });
await writeFile(join(folder, "machine-id"), machineId);
await new Promise<void>((resolve) => void process.once("SIGTERM", resolve));
await running[Symbol.asyncDispose]();
