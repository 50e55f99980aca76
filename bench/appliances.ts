// One hub on its embedded database with 1,000 appliances over the real protocol: what keeping in touch costs, and how fast orders go.
// Run: node bench/appliances.ts [--appliances 1000] [--protect 100] [--seconds 60] [--json FILE] [--log-file FILE]

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { z } from "zod";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { forEachParallel } from "../src/base/semaphore.ts";
import { ArmClient } from "../src/cli/arm-client.ts";
import { registrationKeyShape } from "../src/contract/appliance-protocol.ts";
import { openSimulatedSite } from "../src/sim/simulated-site.ts";
import { startRig } from "../test/conformance/rig.ts";

const { values } = parseArgs({
  options: {
    appliances: { type: "string", default: "1000" },
    protect: { type: "string", default: "100" },
    seconds: { type: "string", default: "60" },
    json: { type: "string" },
    "log-file": { type: "string" },
  },
});
const applianceCount = Number(values.appliances);
const protectCount = Math.min(Number(values.protect), applianceCount);
const quietSeconds = Number(values.seconds);
const registrationsAtOnce = 8;
const operatorsAtOnce = 4;
const ticksPerSecond = 100;

const namesShape = z.object({ value: z.array(z.object({ name: z.string(), address: z.string() })) });
const fabricShape = z.object({ name: z.string(), properties: z.object({ friendlyName: z.string() }) });
const itemsShape = z.array(z.object({ id: z.string() }));

await using rig = await startRig(values["log-file"] === undefined ? {} : { logFile: values["log-file"] });
const { facts } = rig;
const profile = {
  ...facts,
  managementUrl: facts.endpoint,
  loginUrl: facts.authority,
  caPem: await readFile(facts.caFile, "utf8"),
  location: "local",
};
await using arm = new ArmClient({ profile, clock: systemClock });
const vaultId = `${arm.groupPath}/providers/Microsoft.RecoveryServices/vaults/${facts.vault}`;
await using sites = new AsyncDisposableStack();

const registerSeconds = await time(async () => await registerAll());
const fabrics = z.array(fabricShape).parse(await arm.list(`${vaultId}/replicationFabrics`));
assert.equal(fabrics.length, applianceCount + 1);
const before = await hubUsage();
await systemClock.sleep(quietSeconds * 1000);
const after = await hubUsage();
const protectMs: number[] = [];
const protectSeconds = await time(async () => await protectSome());
const sorted = protectMs.toSorted((left, right) => left - right);
const result = {
  applianceCount,
  registerSeconds,
  hubProcessors: (after.cpuSeconds - before.cpuSeconds) / quietSeconds,
  hubResidentMib: after.residentMib,
  sitesResidentMib: process.memoryUsage.rss() / 2 ** 20,
  protectCount,
  protectSeconds,
  protectP50Ms: sorted[Math.floor(sorted.length / 2)] ?? 0,
  protectP99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? 0,
};
console.log(
  `${applianceCount} appliances: registered in ${registerSeconds.toFixed(1)} s; in touch, the hub takes ${result.hubProcessors.toFixed(2)} of a ` +
    `processor and ${result.hubResidentMib.toFixed(0)} MiB; ${protectCount} machines protected in ${protectSeconds.toFixed(1)} s, ` +
    `p50 ${result.protectP50Ms.toFixed(0)} ms, p99 ${result.protectP99Ms.toFixed(0)} ms; all sites together ${result.sitesResidentMib.toFixed(0)} MiB`,
);
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result)}\n`);

async function registerAll(): Promise<void> {
  const { value: names } = namesShape.parse(await arm.change("POST", `${vaultId}/dnsSettings`, {}));
  const hosts = names.map(({ name, address }) => ({ name, addresses: [address] }));
  const numbers = Array.from({ length: applianceCount }, (_, index) => index + 1);
  await forEachParallel(numbers, registrationsAtOnce, async (siteNumber) => {
    const key = registrationKeyShape.parse(await arm.change("POST", `${vaultId}/registrationKeys`, {}));
    const hubPort = Number(new URL(facts.endpoint).port);
    const place = { key, hosts, hubPort, name: `site-${siteNumber}`, siteNumber, machineCount: 1, paceSeconds: 0 };
    sites.use(await openSimulatedSite({ ...place, clock: systemClock, random: systemRandom, log: silentLog }));
  });
}

async function protectSome(): Promise<void> {
  const chosen = fabrics.filter(({ properties }) => properties.friendlyName.startsWith("site-")).slice(0, protectCount);
  await forEachParallel(chosen, operatorsAtOnce, async ({ name }) => {
    const container = `${vaultId}/replicationFabrics/${name}/replicationProtectionContainers/cloud_${name}`;
    const [machine] = itemsShape.parse(await arm.list(`${container}/replicationProtectableItems`));
    const startedMs = systemClock.monotonicMs();
    await arm.change("PUT", `${container}/replicationProtectedItems/machine`, {
      properties: {
        protectableItemId: machine?.id,
        providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "root" },
      },
    });
    protectMs.push(systemClock.monotonicMs() - startedMs);
  });
}

/** Of the hub's own process; its database works in others. */
async function hubUsage(): Promise<{ readonly cpuSeconds: number; readonly residentMib: number }> {
  const id = rig.child?.pid ?? 0;
  const fields = (await readFile(`/proc/${id}/stat`, "utf8")).replace(/^.*\) /s, "").split(" ");
  const status = await readFile(`/proc/${id}/status`, "utf8");
  const residentKib = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0);
  return { cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond, residentMib: residentKib / 1024 };
}

async function time(task: () => Promise<void>): Promise<number> {
  const startedMs = systemClock.monotonicMs();
  await task();
  return (systemClock.monotonicMs() - startedMs) / 1000;
}
