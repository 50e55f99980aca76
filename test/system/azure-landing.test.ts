// A real guest lands through the Azure target: the upload is killed, goes on, and a machine of the hub's own front boots from it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log, type Log } from "../../src/base/log.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import { freeTcpPort } from "../../src/connectivity/test-network.ts";
import { extensions } from "../../src/hub/extensions.ts";
import type { EphemeralFacts } from "../../src/hub/hub-command.ts";
import { parseHubConfig } from "../../src/hub/hub-config.ts";
import { startHub } from "../../src/hub/main.ts";
import { operatorFileShape, parseJson } from "../../src/cli/profile.ts";
import { ArmClient } from "../../src/cli/arm-client.ts";
import { openTrial, type AzureTrial } from "./azure-landing-rig.ts";
import { buildGuestImage, guest } from "./guest-image.ts";

const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const skip = process.getuid?.() === 0 ? false : "needs root for FUSE and network namespaces";
const bootSecondsMax = 900;
/** So much of the disk is acknowledged before the kill. */
const recordsBytesMin = 332 * 10;

describe("a guest with VMware's drivers", { skip }, () => {
  it("lands through the Azure code path, over a killed upload, boots there, and goes without a trace", async () => {
    await using closing = new AsyncDisposableStack();
    const folder = await mkdtemp(join(tmpdir(), "wa-"));
    await chmod(folder, 0o711); // The database's own account walks through it.
    closing.defer(async () => await rm(folder, { recursive: true, force: true }));
    const hostPort = await freeTcpPort();
    const facts = await startFront(join(folder, "hub"), hostPort, closing);
    const stateFolder = join(folder, "t");
    const trial: AzureTrial = { facts, stateFolder, image: await buildGuestImage(cacheFolder), hostPort, owner: random.uuid() };
    await killUpload(trial);
    const uploads: unknown[] = [];
    const kept: Log = { ...log, info: (message, fields) => void (message === "disk uploaded" && uploads.push(fields)) };
    const { target, spec } = closing.use(await openTrial(trial, kept));
    const job = target.under({ kind: "job", fence: 1 });
    const { hydration } = await job.launch(spec);
    assert.ok(
      hydration.changes.some((change) => change.includes("hv_storvsc")),
      hydration.changes.join("\n"),
    );
    assert.equal(uploads.length, 1);
    const outcome = await target.probe("web", { port: guest.port, path: guest.path }, bootSecondsMax);
    assert.equal(outcome.kind === "answered" ? outcome.body : JSON.stringify(outcome), `${guest.body}\n`);
    assert.ok((await target.status("web")).addresses.includes("10.77.0.20"));
    await job.remove("web");
    assert.deepEqual([await target.list(), await target.leftovers()], [[], []]);
  });
});

/** A hub whose machines are QEMU's, with a network that leads the host's port to the guest's. */
async function startFront(stateDir: string, hostPort: number, closing: AsyncDisposableStack): Promise<EphemeralFacts> {
  const port = await freeTcpPort();
  const config = parseHubConfig({
    ...{
      domain: "watari.test",
      stateDir,
      localName: "localhost",
      publicAddresses: ["127.0.0.1"],
      managementPort: port,
      endpointPort: port,
    },
    networks: [{ virtualNetwork: "landing", cidr: "127.91.7.0/24" }],
    landing: { networks: { tests: { kind: "user", forwards: [{ hostPort, guestPort: guest.port }], isSealed: true } }, cacheFolder },
  });
  const hub = closing.use(await startHub(config, { clock, random, log, extensions, databaseLives: "as this program" }));
  const operatorPath = join(stateDir, "operator.json");
  const operator = parseJson(await readFile(operatorPath, "utf8"), operatorFileShape, operatorPath);
  const caFile = join(stateDir, "ca.pem");
  await writeFile(caFile, hub.caPem);
  await using arm = new ArmClient({ profile: { ...operator, resourceGroup: "landed", location: "local" }, clock });
  await arm.change("PUT", arm.groupPath, { location: "local" });
  const { managementUrl: endpoint, loginUrl: authority, tenantId, clientId, clientSecret, subscriptionId } = operator;
  return { endpoint, authority, caFile, tenantId, clientId, clientSecret, subscriptionId, resourceGroup: "landed", vault: "" };
}

async function killUpload(trial: AzureTrial): Promise<void> {
  const program = join(import.meta.dirname, "azure-landing-child.ts");
  const child = spawn(process.execPath, [program], { stdio: ["pipe", "inherit", "inherit"] });
  const exited = once(child, "exit");
  child.stdin.end(JSON.stringify(trial));
  const journals = join(trial.stateFolder, "machines", "web", "journals");
  const isFarEnough = async (): Promise<boolean> => {
    const names = await readdir(journals).catch(() => []); // Not begun yet.
    const sizes = await Promise.all(names.map(async (name) => (await stat(join(journals, name))).size));
    return sizes.some((size) => size >= recordsBytesMin);
  };
  while (child.exitCode === null && !(await isFarEnough())) await clock.sleep(50);
  child.kill("SIGKILL");
  assert.deepEqual(await exited, [null, "SIGKILL"], "it was killed in its upload");
}
