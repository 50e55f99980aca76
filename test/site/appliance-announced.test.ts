// An appliance that moves to another address tells its agents before; one that was off is told by hand. Nothing is replicated again.

import assert from "node:assert/strict";
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, type AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { promisify } from "node:util";
import { ApplianceWays } from "../../src/agent/identity/appliance-ways.ts";
import { identityShape, type Identity } from "../../src/agent/identity/state-folder.ts";
import { createAgentLog } from "../../src/agent/log.ts";
import { registerSimulatedAgent, startSimulatedAgent } from "../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../src/agent/sim/simulated-source.ts";
import { callAppliance } from "../../src/appliance/admin/admin-client.ts";
import { createStateFolder, parseApplianceConfig, saveConfig } from "../../src/appliance/config/config.ts";
import { createMachineRegistry } from "../../src/appliance/control/machine-registry.ts";
import { openStateDatabase } from "../../src/appliance/state/database.ts";
import { startFakeHub } from "../../src/appliance/testing/fake-hub.ts";
import { createFacts } from "../../src/appliance/testing/scripted-agent.ts";
import { testPolicy } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import { Fault } from "../../src/contract/errors.ts";
import { parseDiskId, parseMachineId, parseOrderId } from "../../src/contract/ids.ts";

const applianceProgram = join(import.meta.dirname, "../../src/appliance/testing/appliance-child.ts");
const agentProgram = join(import.meta.dirname, "../../src/agent/main.ts");
const diskBytes = 8 * 2 ** 20;

/** Two of an address that nothing else uses. */
async function freePorts(address: string): Promise<readonly [number, number]> {
  const servers = [createServer(), createServer()];
  for (const server of servers) await new Promise<void>((resolve) => void server.listen(0, address, resolve));
  const [control = 0, data = 0] = servers.map((server) => (server.address() as AddressInfo).port); // A TCP server has a port.
  for (const server of servers) await new Promise<void>((resolve) => void server.close(() => resolve()));
  return [control, data];
}

/** An appliance that can be killed, and started again with other settings. */
class MovingAppliance implements AsyncDisposable {
  readonly folder: string;
  readonly #settings: object;
  #child: ChildProcess | undefined;

  constructor(folder: string, settings: object) {
    this.folder = folder;
    this.#settings = settings;
  }

  async startAt(address: string, ports: { readonly controlPort: number; readonly dataPort: number }): Promise<void> {
    await saveConfig(this.folder, parseApplianceConfig({ ...this.#settings, listenAddresses: [address], ...ports }));
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", applianceProgram, this.folder], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", () => resolve());
      child.once("exit", (code) => reject(new Error(`the appliance ended with ${code}`)));
    });
  }

  async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill(signal);
    await ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill("SIGTERM");
  }
}

test("an announced move keeps every agent and its replica through kills; an agent that was off is pointed there by its own command", async () => {
  await using hub = await startFakeHub();
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-announced-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  // Addresses of the test's own: whatever port is free on one is free on all.
  const [first = 0, second = 0] = systemRandom.bytes(2);
  const [here, there, elsewhere] = [1, 2, 3].map((last) => `127.${64 + (first % 128)}.${second}.${last}`) as [string, string, string];
  const applianceFolder = join(folder, "appliance");
  await createStateFolder(applianceFolder);
  const settings = { hubPort: hub.port, hosts: [...hub.hosts], siteRanges: ["127.0.0.0/8"] };
  const appliance = cleanup.use(new MovingAppliance(applianceFolder, settings));
  const [controlPort, dataPort] = await freePorts(here);
  const ports = { controlPort, dataPort };
  await appliance.startAt(here, ports);
  await callAppliance(applianceFolder, "register", { registrationKey: JSON.stringify(hub.createKey()) });

  const path = join(folder, "disk");
  await writeFile(path, randomBytes(diskBytes));
  const { disks: _disks, ...facts } = createFacts();
  const disk = { diskId: parseDiskId("serial-a"), deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  const world = { clock: systemClock, random: systemRandom };
  const source = cleanup.use(await SimulatedSource.open({ ...world, facts, disks: [{ path, facts: disk }] }));
  const agent = { ...world, source, stateFolder: join(folder, "agent") };
  const passphraseFile = join(folder, "passphrase");
  const { passphrase, authorityPem } = await callAppliance(applianceFolder, "passphrase", {});
  await writeFile(passphraseFile, passphrase, { mode: 0o600 });
  const machineId = await registerSimulatedAgent({ ...agent, appliance: { host: here, port: controlPort }, authorityPem, passphraseFile });
  {
    using database = openStateDatabase(join(applianceFolder, "state.sqlite"));
    const link = { infrastructureId: randomUUID(), orderId: randomUUID(), policy: testPolicy, address: here, credentialId: "none" };
    createMachineRegistry({ database, ...world, log: silentLog }).protect(machineId, link);
  }
  const ways = async (): Promise<readonly string[]> => {
    const kept = identityShape.parse(JSON.parse(await readFile(join(agent.stateFolder, "identity.json"), "utf8")));
    return [kept.applianceHost, ...(kept.otherWays ?? []).map(({ host }) => host)];
  };
  const done = async (order: { kind: "point" } | { kind: "setPolicy"; policy: typeof testPolicy }): Promise<void> => {
    for (let tries = 1; ; tries++) {
      const result = await hub.give({ ...order, machineId, orderId: parseOrderId(randomUUID()) });
      if (result.outcome === "done") return;
      // An appliance that starts takes orders before it takes data in.
      assert.ok(result.fault.retry === "later" && tries < 20, JSON.stringify(result));
      await systemClock.sleep(500);
    }
  };
  const sentBytes = (): number => [...hub.points.values()].reduce((sum, point) => sum + point.sentBytes, 0);
  {
    await using _agent = startSimulatedAgent(agent);
    await done({ kind: "setPolicy", policy: { ...testPolicy, pointIntervalSeconds: 3600 } });
    await done({ kind: "point" });
    assert.ok(sentBytes() > diskBytes / 2, "the whole disk was sent once");
    const { known, unknown } = await callAppliance(applianceFolder, "announce", { addresses: [there] });
    assert.deepEqual([known.map((each) => each.machineId), unknown], [[machineId], []]);
    assert.deepEqual(await ways(), [here, there]);

    await appliance.kill(); // Announced, and not moved.
    await appliance.startAt(here, ports);
    await done({ kind: "point" });
    await appliance.kill();
    await appliance.startAt(there, ports);
    await source.write("serial-a", 65_536, randomBytes(4096));
    await done({ kind: "point" });
    assert.deepEqual(await ways(), [there, here]);
    await appliance.kill(); // Moved, and all knows it.
    await appliance.startAt(there, ports);
    await done({ kind: "point" });
  }
  // The agent is off, and nobody tells it.
  await appliance.kill();
  await appliance.startAt(elsewhere, ports);
  await source.write("serial-a", 131_072, randomBytes(4096));
  await using _back = startSimulatedAgent(agent);
  const give = async (host: string): Promise<unknown> =>
    await promisify(execFile)(process.execPath, [
      ...["--disable-warning=ExperimentalWarning", agentProgram, "way"],
      ...["--state", agent.stateFolder, "--appliance", `${host}:${controlPort}`],
    ]);
  await assert.rejects(give(here), /does not answer/);
  await give(elsewhere);
  await done({ kind: "point" });
  assert.equal((await ways())[0], elsewhere);
  assert.ok(sentBytes() < diskBytes * 1.2, `${sentBytes()} bytes were sent in all`);
  assert.equal((await callAppliance(applianceFolder, "listMachines", {})).machines.length, 1);
});

test("the ways are one write: a kill leaves those before or those after, and one that fails is made up for", async () => {
  const identity: Identity = {
    ...{ machineId: parseMachineId(randomUUID()), applianceHost: "a", controlPort: 443, dataPort: 9443, smbiosUuid: "", osMachineId: "" },
  };
  const written: string[][] = [];
  let isBroken = true;
  const make = (isFrozen: () => boolean): ApplianceWays =>
    new ApplianceWays({
      ...{ stateFolder: "/nonexistent", identity, isFrozen },
      log: createAgentLog({ clock: systemClock, write: () => undefined }),
      write: async (_path, text) => {
        if (isBroken) throw new Error("killed");
        const kept = identityShape.parse(JSON.parse(text));
        written.push([kept.applianceHost, ...(kept.otherWays ?? []).map(({ host }) => host)]);
        return await Promise.resolve();
      },
    });
  const way = (host: string) => ({ host, controlPort: 443, dataPort: 9443 });
  let isFrozen = true;
  const ways = make(() => isFrozen);
  await ways.learn([way("b"), way("a")]);
  assert.deepEqual([written, ways.toldDigest], [[], undefined], "nothing is written while frozen, and nothing is said to be kept");
  isFrozen = false;
  await ways.learn([way("b"), way("a")]);
  assert.deepEqual([written, ways.toldDigest], [[], undefined]);
  isBroken = false;
  await ways.learn([way("b"), way("a")]);
  assert.deepEqual(written, [["a", "b"]]);
  assert.match(ways.toldDigest ?? "", /^[0-9a-f]{64}$/);
  const gone = new Fault("ApplianceUnreachable", "gone");
  const tried: string[] = [];
  const dial = async ({ host }: { readonly host: string }): Promise<string> => {
    tried.push(host);
    return host === "b" ? await Promise.resolve(host) : await Promise.reject(gone);
  };
  assert.equal(await ways.use(dial), "b");
  assert.deepEqual(
    [tried, written.at(-1)],
    [
      ["a", "b"],
      ["b", "a"],
    ],
  );
  assert.equal(await ways.use(dial), "b");
  assert.deepEqual(tried, ["a", "b", "b"], "what works is used first");
  await assert.rejects(
    ways.use(async () => await Promise.reject(new Fault("AgentCloned", "refused"))),
    /refused/,
  );
  for (let more = 0; more < 20; more++) await ways.learn([way(`c${more}`)]);
  assert.equal(written.at(-1)?.length, 8, "the oldest give way");
  assert.equal(written.at(-1)?.[0], "b");
});
