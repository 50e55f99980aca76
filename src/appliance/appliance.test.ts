// Promises of the whole appliance: registration that keeps nothing half-done, orders through to agents, no point lost by a kill.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { systemClock, toTimestamp } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import type { ApplianceOrder, ApplianceOrderResult } from "../contract/appliance-protocol.ts";
import { pollResponseShape } from "../contract/agent-control.ts";
import { Fault } from "../contract/errors.ts";
import { parseDiskId, parseOrderId } from "../contract/ids.ts";
import { blockBytes } from "../disk/geometry.ts";
import { openAzureBlobStore } from "../store/azure-blob-store.ts";
import { openVaultReader } from "../vault/open-vault.ts";
import { callAppliance } from "./admin/admin-client.ts";
import { createStateFolder, parseApplianceConfig, saveConfig, type ApplianceConfigInput } from "./config/config.ts";
import { createMachineRegistry } from "./control/machine-registry.ts";
import { openStateDatabase } from "./state/database.ts";
import { startFakeHub, storeCredential, type FakeHub } from "./testing/fake-hub.ts";
import {
  createBegin,
  createFacts,
  DataLine,
  poll,
  registerAgent,
  sendGranules,
  sendWholeDisk,
  wholeDisk,
  type Ports,
} from "./testing/scripted-agent.ts";
import { testPolicy } from "./testing/test-site.ts";

const childProgram = join(import.meta.dirname, "testing/appliance-child.ts");
const isFault = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

interface Running extends AsyncDisposable {
  readonly folder: string;
  readonly child: ChildProcess;
  kill(): Promise<void>;
  restart(): Promise<void>;
  ports(): Promise<Ports>;
}

async function startChild(folder: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", childProgram, folder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", () => resolve());
    child.once("exit", (code) => reject(new Error(`the appliance ended with ${code}`)));
  });
  return child;
}

async function startAppliance(hub: FakeHub, over: Partial<ApplianceConfigInput> = {}): Promise<Running> {
  const folder = await mkdtemp(join(tmpdir(), "watari-appliance-"));
  await createStateFolder(folder);
  const input = {
    listenAddresses: ["127.0.0.1"],
    controlPort: 0,
    dataPort: 0,
    hubPort: hub.port,
    hosts: [...hub.hosts],
    siteRanges: ["127.0.0.0/8"],
    ...over,
  };
  await saveConfig(folder, parseApplianceConfig(input));
  let child = await startChild(folder);
  const end = async (signal: "SIGKILL" | "SIGTERM"): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill(signal);
    await ended;
  };
  return {
    folder,
    get child() {
      return child;
    },
    kill: async () => await end("SIGKILL"),
    restart: async () => {
      child = await startChild(folder);
    },
    ports: async () => {
      const { authorityPem } = await callAppliance(folder, "passphrase", {});
      for (;;) {
        const { controlPort, dataPort } = await callAppliance(folder, "status", {});
        if (dataPort > 0) return { controlPort, dataPort, caPem: authorityPem };
        await systemClock.sleep(20);
      }
    },
    [Symbol.asyncDispose]: async () => {
      await end("SIGTERM");
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function until(claim: string, isTrue: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = systemClock.monotonicMs() + 20_000;
  while (!(await isTrue())) {
    assert.ok(systemClock.monotonicMs() < endMs, `in time: ${claim}`);
    await systemClock.sleep(20);
  }
}

describe("the appliance", () => {
  let hub: FakeHub;
  before(async () => {
    hub = await startFakeHub();
  });
  after(async () => await hub[Symbol.asyncDispose]());

  test("a private name with a public answer stops the registration; the same command works after the repair", async () => {
    await using appliance = await startAppliance(hub);
    const key = hub.createKey();
    const wrong = JSON.stringify({ ...key, privateRanges: ["10.200.0.0/24"] });
    await assert.rejects(callAppliance(appliance.folder, "register", { registrationKey: wrong }), isFault("PrivateNamePublic"));
    assert.equal((await callAppliance(appliance.folder, "status", {})).registration, undefined);
    const { checks } = await callAppliance(appliance.folder, "check", { registrationKey: wrong });
    const failed = checks.filter((check) => check.verdict === "fail");
    assert.ok(failed.length > 0 && failed.every((check) => check.to !== "" && check.repair !== ""));
    const answer = await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(key) });
    assert.ok(answer.checks.length > 0 && answer.checks.every((check) => check.verdict !== "fail"));
    assert.equal((await stat(join(appliance.folder, "state.key"))).mode & 0o777, 0o600);
  });

  test("a key that was used or has expired is refused with the hub's words, and nothing is kept", async () => {
    await using first = await startAppliance(hub);
    await using second = await startAppliance(hub);
    const key = JSON.stringify(hub.createKey());
    await callAppliance(first.folder, "register", { registrationKey: key });
    await assert.rejects(callAppliance(second.folder, "register", { registrationKey: key }), isFault("KeyUsed"));
    const old = hub.createKey({ expiresAt: toTimestamp(systemClock.nowMs() - 1) });
    await assert.rejects(callAppliance(second.folder, "register", { registrationKey: JSON.stringify(old) }), isFault("KeyExpired"));
    assert.equal((await callAppliance(second.folder, "status", {})).registration, undefined);
    await callAppliance(second.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
  });

  test("a proxy that asks for a password stops the registration with its name", async () => {
    const proxy = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () =>
        socket.end("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n"),
      );
    });
    await new Promise<void>((resolve) => void proxy.listen(0, "127.0.0.1", resolve));
    const { port } = proxy.address() as AddressInfo;
    await using appliance = await startAppliance(hub, { proxyUrl: `http://127.0.0.1:${port}` });
    const key = hub.createKey({ publicNames: ["management.watari.test"] });
    await assert.rejects(
      callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(key) }),
      isFault("ProxyAuthRequired"),
    );
    proxy.close();
  });

  test("credentials reach the hub as names only", async () => {
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    const name = `guests-${randomUUID().slice(0, 8)}`;
    await callAppliance(appliance.folder, "addCredential", {
      name,
      kind: "linux-password",
      userName: "root",
      privilege: "root",
      secret: "s3cret-word",
    });
    await until("the hub knows the account", () =>
      hub.inventories.some((each) => each.runAsAccounts.some((account) => account.name === name)),
    );
    assert.ok(!JSON.stringify(hub.inventories).includes("s3cret-word"));
    assert.ok(!JSON.stringify(await callAppliance(appliance.folder, "listCredentials", {})).includes("s3cret-word"));
  });

  test("an order of a newer hub is answered with a clear fault, and the orders beside it are carried out", async () => {
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    const unknown = { kind: "teleport", orderId: parseOrderId(randomUUID()) } as never; // Of a kind that this version does not have.
    const [refused, discovered] = await Promise.all([
      hub.give(unknown),
      hub.give({ kind: "discover", orderId: parseOrderId(randomUUID()) }),
    ]);
    assert.equal(refused.outcome === "failed" ? refused.fault.id : "", "ProtocolVersionUnsupported");
    assert.equal(discovered.outcome, "done");
  });

  test("an order goes through to the agent and its result back; a machine that is protected is refused", async () => {
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    const { agent, facts, infrastructureId } = await enrol(appliance);
    const again = {
      kind: "protect" as const,
      orderId: parseOrderId(randomUUID()),
      infrastructureId,
      runAsAccountId: "x",
      policy: testPolicy,
    };
    const refused = await hub.give(again);
    assert.equal(refused.outcome === "failed" ? refused.fault.id : "", "AlreadyProtected");
    const orderId = parseOrderId(randomUUID());
    const result = hub.give({ kind: "point", orderId, machineId: agent.machineId });
    const ports = await appliance.ports();
    await until("the agent gets the order", async () => {
      const { orders } = pollResponseShape.parse((await poll(ports, agent, facts)).body);
      return orders.some((order) => order.orderId === orderId);
    });
    await appliance.kill();
    await appliance.restart();
    await poll(await appliance.ports(), agent, facts, { results: [{ outcome: "done", orderId }] });
    assert.deepEqual(await result, { outcome: "done", orderId, machineId: agent.machineId });
  });

  test("killed between frames: sealed points stay and are told, the point under way is gone, the next builds upon the sealed one", async () => {
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    const { agent, facts } = await enrol(appliance);
    const content = new Uint8Array(randomBytes(40 * blockBytes));
    const disk = wholeDisk(content.length);
    const first = createBegin({ bootId: facts.bootId, disks: [disk] });
    const lost = createBegin({ bootId: facts.bootId, disks: [{ ...disk, mode: "delta", basePointId: first.pointId }] });
    {
      await using line = await DataLine.open(await appliance.ports(), agent);
      line.begin(first);
      await sendWholeDisk(line, 0, content);
      await line.end(first.pointId);
      line.begin(lost);
      await sendGranules(line, 0, new Uint8Array(content.length), [3, 40]);
      await appliance.kill();
    }
    await appliance.restart();
    const changed = content.slice();
    changed.fill(7, 5 * 4096, 6 * 4096);
    const next = createBegin({ bootId: facts.bootId, disks: [{ ...disk, mode: "delta", basePointId: first.pointId }] });
    await using line = await DataLine.open(await appliance.ports(), agent);
    line.begin(next);
    await sendGranules(line, 0, changed, [5]);
    const sealed = await line.end(next.pointId);
    await until("the hub knows both points", () => hub.points.has(first.pointId) && hub.points.has(next.pointId));
    assert.ok(!hub.points.has(lost.pointId));
    assert.equal(hub.points.get(next.pointId)?.disks[0]?.root, sealed.roots[0]?.root);

    const verified = await callAppliance(appliance.folder, "verifyPoints", { machineId: agent.machineId });
    assert.deepEqual([verified.pointCount, verified.damagedCount], [2, 0]);
    assert.deepEqual(await callAppliance(appliance.folder, "listLostPoints", {}), { points: [], isComplete: true });
    const { removedPackCount, pointCount } = await callAppliance(appliance.folder, "collectGarbage", { isDryRun: true });
    assert.deepEqual([removedPackCount, pointCount], [0, 2]);

    await using store = openAzureBlobStore({
      accountUrl: hub.accountUrl,
      container: hub.container,
      credential: storeCredential,
      connection: { ca: hub.caPem },
    });
    await using reader = await openVaultReader({ store, vaultId: hub.vaultId, key: hub.vaultKey });
    const held = new Set<string>();
    for await (const point of reader.listPoints(agent.machineId)) held.add(point.pointId);
    assert.deepEqual(held, new Set([first.pointId, next.pointId]));
    await using replica = await reader.openDisk(next.pointId, parseDiskId("disk-1"));
    const bytes = new Uint8Array(content.length);
    await replica.read(0, bytes);
    assert.deepEqual(bytes, changed);
  });
});

describe("the vault's keys on the appliance", () => {
  test("are taken by order, outlive a kill, seal what is written from then on, and go only when nothing is sealed with them", async () => {
    await using hub = await startFakeHub();
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    const take = async (): Promise<ApplianceOrderResult> => await hub.give({ kind: "takeVaultKeys", orderId: parseOrderId(randomUUID()) });
    const { agent, facts } = await enrol(appliance);
    const sealPoint = async (): Promise<string> => {
      const content = new Uint8Array(randomBytes(3 * blockBytes));
      const begin = createBegin({ bootId: facts.bootId, disks: [wholeDisk(content.length)] });
      await using line = await DataLine.open(await appliance.ports(), agent);
      line.begin(begin);
      await sendWholeDisk(line, 0, content);
      await line.end(begin.pointId);
      return begin.pointId;
    };
    await sealPoint();
    const first = hub.keys.sent.keys[0] ?? assert.fail("there is a key");
    const second = { generation: 2, key: randomBytes(32).toString("base64") };
    hub.keys.sent = { current: 2, keys: [first, second] };
    const taken = await take();
    assert.deepEqual(taken.outcome === "done" && taken.vaultKeys, { current: 2, generations: [1, 2] });
    await appliance.kill();
    await appliance.restart();
    await sealPoint();
    await using store = openAzureBlobStore({
      accountUrl: hub.accountUrl,
      container: hub.container,
      credential: storeCredential,
      connection: { ca: hub.caPem },
    });
    const keys = new Map([first, second].map(({ generation, key }) => [generation, Buffer.from(key, "base64")]));
    await using reader = await openVaultReader({ store, vaultId: hub.vaultId, key: { current: 2, keys } });
    const { counts } = await reader.countSeals();
    assert.deepEqual(
      counts.map(({ generation, pointCount }) => [generation, pointCount]),
      [
        [1, 1],
        [2, 1],
      ],
    );
    hub.keys.sent = { current: 2, keys: [second] };
    const refused = await take();
    assert.equal(refused.outcome === "failed" && refused.fault.id, "StateConflict");
    await callAppliance(appliance.folder, "collectGarbage", { isDryRun: false });
    const gone = await take();
    assert.deepEqual(gone.outcome === "done" && gone.vaultKeys, { current: 2, generations: [2] });
  });
});

describe("the appliance's lines by order", () => {
  test("are limited as its own operator would, and checked with the rights on the storage account; what fails is named with its repair", async () => {
    await using hub = await startFakeHub();
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    const orderId = (): ReturnType<typeof parseOrderId> => parseOrderId(randomUUID());
    const change = { remove: [], set: [{ scope: "storage" as const, bytesPerSecond: 9_000_000 }] };
    const changed = await hub.give({ kind: "changeLimits", orderId: orderId(), change });
    assert.deepEqual(changed.outcome === "done" && changed.limits?.limits, change.set);
    assert.deepEqual((await callAppliance(appliance.folder, "showLimits", {})).limits, change.set);
    const zone = await hub.give({ kind: "changeLimits", orderId: orderId(), change: { remove: [], set: [], timeZone: "Moon/Sea" } });
    assert.equal(zone.outcome === "failed" && zone.fault.id, "InputInvalid");
    const checked = await hub.give({ kind: "checkNetwork", orderId: orderId() });
    const checks = (checked.outcome === "done" ? checked.checks : undefined) ?? assert.fail("the ways were checked");
    const verdictOf = (id: string): string | undefined => checks.find((check) => check.id === id)?.verdict;
    for (const right of ["write", "read", "list", "remove"]) assert.equal(verdictOf(`storage rights/${right}`), "pass", right);
    assert.equal(verdictOf("rcm1/tls"), "pass");
    const { agent } = await enrol(appliance);
    const old = await hub.give({ kind: "checkNetwork", orderId: orderId(), machineId: agent.machineId });
    assert.equal(old.outcome === "failed" && old.fault.id, "ProtocolVersionUnsupported");
    const profiled = await hub.give({ kind: "profileMachine", orderId: orderId(), machine: "nobody", seconds: 10 });
    assert.equal(profiled.outcome === "failed" && profiled.fault.id, "NotFound");
  });
});

describe("the appliance's certificate", () => {
  let hub: FakeHub;
  before(async () => {
    hub = await startFakeHub();
  });
  after(async () => await hub[Symbol.asyncDispose]());
  const renewal = (): ApplianceOrder => ({ kind: "renewCertificate", orderId: parseOrderId(randomUUID()) });

  for (const [moment, isStruckAt] of [
    ["while the hub signs", (route: string): boolean => route === "certificate"],
    ["at the first use of the new one", (_route: string, isFirstUse: boolean): boolean => isFirstUse],
  ] as const)
    test(`is renewed by order, and a kill ${moment} leaves one that works`, async () => {
      await using appliance = await startAppliance(hub);
      await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
      let restarted: Promise<void> | undefined;
      hub.onCall = async (route, isFirstUse) => {
        if (restarted !== undefined || !isStruckAt(route, isFirstUse)) return;
        restarted = appliance.kill().then(async () => await appliance.restart());
        await appliance.kill();
      };
      const result = await hub.give(renewal());
      assert.ok(restarted !== undefined, "it was struck");
      await restarted;
      assert.equal(result.outcome, "done");
      await until("the hub is reached", async () => (await callAppliance(appliance.folder, "status", {})).isHubReached);
      assert.equal((await hub.give(renewal())).outcome, "done");
      hub.onCall = async () => undefined;
    });

  test("that the hub does not know any more gives way to the one before", async () => {
    await using appliance = await startAppliance(hub);
    await callAppliance(appliance.folder, "register", { registrationKey: JSON.stringify(hub.createKey()) });
    hub.keepsOffers = false;
    const refused = await hub.give(renewal());
    assert.ok(refused.outcome === "failed" && refused.fault.id === "Forbidden");
    hub.keepsOffers = true;
    assert.equal((await hub.give(renewal())).outcome, "done");
  });
});

interface Enrolled {
  readonly agent: Awaited<ReturnType<typeof registerAgent>>;
  readonly facts: ReturnType<typeof createFacts>;
  readonly infrastructureId: string;
}

/** Registers an agent and ties it to a machine as a protect order does, without the push. */
async function enrol(appliance: Running): Promise<Enrolled> {
  const { passphrase } = await callAppliance(appliance.folder, "passphrase", {});
  const facts = createFacts();
  const agent = await registerAgent(await appliance.ports(), facts, passphrase);
  const infrastructureId = randomUUID();
  using database = openStateDatabase(join(appliance.folder, "state.sqlite"));
  createMachineRegistry({ database, clock: systemClock, random: systemRandom, log: silentLog }).protect(agent.machineId, {
    infrastructureId,
    orderId: randomUUID(),
    policy: testPolicy,
    address: "127.0.0.1",
    credentialId: "none",
  });
  return { agent, facts, infrastructureId };
}
