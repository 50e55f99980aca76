// What people get wrong, in the real lab by the real commands: a clear fault, nothing half-done, and the same command works after the repair.

import assert from "node:assert/strict";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { z } from "zod";
import { leakPrivateName, setPrivateLine, setSiteNames } from "../../lab/cut-offs.ts";
import { readLedger, verifyLedger } from "../../lab/demo/ledger.ts";
import { startAppliance, stopProgram } from "../../lab/demo/stage.ts";
import { labStatus, leftovers, takeClone } from "../../lab/lab.ts";
import { missingPackages } from "../../lab/packages.ts";
import { resolveIn } from "../../lab/names.ts";
import { waitUntil } from "../../lab/processes.ts";
import { fromTimestamp, systemClock } from "../../src/base/clock.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { registrationKeyShape, type RegistrationKey } from "../../src/contract/appliance-protocol.ts";
import { assertTold, type Desk } from "../support/desk.ts";
import { policy, Trial, vault, waitMsMax } from "../support/trial.ts";

const prefix = "wtrb";
const original = "ledger-01";
const copy = "ledger-02";
const missing = missingPackages().map((entry) => entry.name);
const skip = process.getuid?.() !== 0 ? "needs root" : missing.length > 0 ? `needs Debian packages: ${missing.join(" ")}` : false;

/** Whether the agent is on a machine: its files, its unit, its keys, its pinned maps. */
const lookForAgent =
  "ls -d /opt/watari-agent /opt/.watari-agent.fresh /var/lib/watari-agent /etc/systemd/system/watari-agent.service /sys/fs/bpf/watari 2>/dev/null || true";

const checksShape = z.object({
  checks: z.array(z.looseObject({ name: z.string(), verdict: z.string(), answer: z.string(), repair: z.string() })),
});
const itemsShape = z.looseObject({
  replicating: z.array(z.looseObject({ properties: z.looseObject({ friendlyName: z.string(), protectionState: z.string() }) })),
});

describe("bad input in the closed network", { skip, timeout: 25 * 60_000 }, () => {
  let trial: Trial;
  let desk: Desk;
  let keyFile: string;
  let protect: readonly string[];

  before(async () => {
    trial = await Trial.open(prefix, [{ name: original }, { name: copy, cloneOf: original, isTakenLater: true }]);
    desk = trial.desk;
    keyFile = join(trial.stage.folder, "registration-key.json");
  });
  after(async () => {
    await trial[Symbol.asyncDispose]();
    assert.deepEqual(await leftovers({ prefix }), []);
  });

  /** Makes a key into the file that the commands name. */
  async function makeKey(...options: readonly string[]): Promise<RegistrationKey> {
    await desk.run("vault", "registration-key", vault, "--out", keyFile, ...options);
    const key = registrationKeyShape.parse(JSON.parse(await readFile(keyFile, "utf8")));
    desk.keepSecret(`the secret of key ${key.keyId}`, key.secret);
    return key;
  }

  async function replicating(): Promise<readonly string[]> {
    const { replicating: items } = itemsShape.parse(await desk.run("machine", "list", "--vault", vault));
    return items.map(({ properties }) => `${properties.friendlyName}: ${properties.protectionState}`);
  }

  test("a proxy that asks for a password", async () => {
    const { proxy } = trial.facts;
    await desk.run(...trial.appliance("init", ...trial.siteSettings(), "--proxy", proxy.withPasswordUrl));
    await trial.startAppliance();
    await makeKey();
    const check = trial.appliance("check", "--key", keyFile);
    const { checks } = checksShape.parse(await desk.answersBadly(4, ...check));
    const failed = checks.filter(({ verdict }) => verdict === "fail");
    assert.ok(failed.length > 0);
    for (const { name, answer, repair } of failed) {
      assert.match(name, /\/proxy$/);
      assert.match(answer, /^ProxyAuthRequired: /);
      assert.ok(repair.length > 10);
    }
    const fault = await desk.fails("ProxyAuthRequired", 4, ...trial.appliance("register", "--key", keyFile));
    assert.match(JSON.stringify(fault.evidence), /10\.10\.0\.1:3129/);
    assert.equal((await trial.status()).registration, undefined);

    const password = (await readFile(proxy.passwordFile, "utf8")).trim();
    const credentials = await desk.secretFile("proxy-credentials", `${proxy.user}:${password}`);
    await trial.setUpAnew("--proxy", proxy.withPasswordUrl, "--proxy-credentials-file", credentials);
    const repaired = checksShape.parse(await desk.run(...check));
    assert.deepEqual([...new Set(repaired.checks.map(({ verdict }) => verdict))].toSorted(), ["pass", "skipped"]);
  });

  test("a private name that is answered with a public address", async () => {
    const key = registrationKeyShape.parse(JSON.parse(await readFile(keyFile, "utf8")));
    const name = key.services.id1;
    await leakPrivateName(name, { prefix });
    const fault = await desk.fails("PrivateNamePublic", 4, ...trial.appliance("register", "--key", keyFile));
    assert.match(JSON.stringify(fault.evidence), /198\.51\.100\.11/);
    assert.match(JSON.stringify(fault.evidence), new RegExp(name.replaceAll(".", "\\.")));
    assert.equal((await trial.status()).registration, undefined);
    await setSiteNames({}, { prefix });
    await waitUntil(`${name} as before`, 10_000, async () => {
      const [address] = await resolveIn(trial.stage.place, "onprem", name);
      return address?.startsWith("10.200.0.") === true;
    });
    await desk.run(...trial.appliance("check", "--key", keyFile));
  });

  test("a registration key whose time is over", async () => {
    const register = trial.appliance("register", "--key", keyFile);
    const key = await makeKey("--valid-seconds", "1");
    await waitUntil(
      "the end of the key's time",
      10_000,
      async () => await Promise.resolve(fromTimestamp(key.expiresAt) < systemClock.nowMs()),
    );
    const fault = await desk.fails("KeyExpired", 3, ...register);
    assert.deepEqual([fault.evidence["keyId"], fault.evidence["expiresAt"]], [key.keyId, key.expiresAt]);
    assert.equal((await trial.status()).registration, undefined);
    await makeKey();
    await desk.run(...register);
    assert.ok((await trial.status()).registration !== undefined);
  });

  test("a registration key that was used before", async () => {
    const stateFolder = join(trial.stage.folder, "appliance-2");
    const other = (...args: readonly string[]): readonly string[] => ["appliance", ...args, "--state", stateFolder];
    const ports = ["--control-port", "8443", "--data-port", "8444"];
    await desk.run(...other("init", ...trial.siteSettings(), ...ports, "--name", "appliance-2", "--proxy", trial.facts.proxy.url));
    await startAppliance(trial.stage, async () => await trial.isRunning(stateFolder), { name: "appliance-2", stateFolder });
    const usedKey = registrationKeyShape.parse(JSON.parse(await readFile(keyFile, "utf8")));
    const fault = await desk.fails("KeyUsed", 3, ...other("register", "--key", keyFile));
    assert.equal(fault.evidence["keyId"], usedKey.keyId);
    assert.equal((await trial.status(stateFolder)).registration, undefined);
    await makeKey();
    await desk.run(...other("register", "--key", keyFile));
    assert.ok((await trial.status(stateFolder)).registration !== undefined);
    await stopProgram(trial.stage, "appliance-2");
  });

  test("a wrong vCenter password", async () => {
    const { vcenter, caFile } = trial.facts;
    const account = trial.appliance("credential", "add", "--name", "vcenter", "--kind", "vcenter", "--user", vcenter.user);
    const connection = ["--address", vcenter.name, "--credential", "vcenter", "--ca", caFile];
    const add = trial.appliance("vcenter", "add", "--name", "vc", ...connection);
    await desk.run(...account, "--secret-file", await desk.secretFile("wrong-vcenter-password", "not-the-vcenter's-password"));
    const fault = await desk.fails("VcenterLoginRefused", 3, ...add);
    assert.match(JSON.stringify(fault.evidence), new RegExp(vcenter.user.replaceAll(".", "\\.")));
    assert.deepEqual((await trial.status()).vcenters, []);
    await desk.run(...account, "--secret-file", vcenter.passwordFile);
    await desk.run(...add);
    const { machines } = z
      .object({ machines: z.array(z.looseObject({ name: z.string() })) })
      .parse(await desk.run(...trial.appliance("discover")));
    assert.deepEqual(machines.map(({ name }) => name).toSorted(), [original, copy]);
  });

  test("a wrong guest password", async () => {
    const { guest } = trial.facts;
    const kind = ["--kind", "linux-password", "--user", guest.user, "--privilege", "sudo"];
    const account = trial.appliance("credential", "add", "--name", "guest", ...kind);
    await desk.run(...account, "--secret-file", await desk.secretFile("wrong-guest-password", "not-the-guest's-password"));
    protect = ["--vault", vault, "--policy", policy, "--account", await trial.accountId("guest")];
    const startMs = systemClock.monotonicMs();
    const fault = await desk.fails("GuestPasswordWrong", 3, "machine", "protect", original, ...protect);
    const tookMs = systemClock.monotonicMs() - startMs;
    assert.ok(tookMs < 60_000, `told after ${Math.round(tookMs / 1000)} s`);
    assert.deepEqual([fault.evidence["host"], fault.evidence["userName"]], [trial.machine(original).address, guest.user]);
    assert.equal(await trial.inGuest(original, lookForAgent), "");
    assert.deepEqual(await replicating(), [`${original}: EnablingFailed`]);
    await desk.run(...account, "--secret-file", guest.passwordFile);
    await desk.run("machine", "protect", original, ...protect);
    assert.deepEqual(await replicating(), [`${original}: Protected`]);
    assert.notEqual(await trial.inGuest(original, lookForAgent), "");
  });

  test("a machine that is protected already", async () => {
    const present = await trial.points(original);
    const fault = await desk.fails("AlreadyProtected", 3, "machine", "protect", original, ...protect);
    assert.equal(fault.evidence["protectionState"], "Protected");
    assert.match(String(fault.evidence["protectedItemId"]), /replicationProtectedItems/);
    assert.deepEqual(await replicating(), [`${original}: Protected`]);
    await trial.pointsAfter(original, present);
  });

  test("a full spool disk, and a private line that is cut while it is repaired", async () => {
    const spool = join(trial.stage.folder, "spool");
    const ballast = join(spool, "ballast");
    const { ledgerUrl } = trial.machine(original);
    const lastRecord = async (): Promise<number> => (await readLedger(trial.stage.place, "onprem", ledgerUrl)).last.sequence;
    await mkdir(spool);
    await runCommand("mount", ["-t", "tmpfs", "-o", "size=200m,mode=700", "watari-spool", spool]);
    await trial.setUpAnew("--proxy", trial.facts.proxy.url, "--spool", spool);
    await trial.pointsAfter(original, await trial.points(original));

    await runCommand("fallocate", ["-l", "150M", ballast]);
    const fault = await trial.healthFault("SpoolFull");
    assertTold(fault);
    assert.equal(fault.evidence["folder"], join(spool, "packs"));
    const present = await trial.points(original);
    const before = await lastRecord();
    const writtenBytes = 24 << 20;
    await trial.inGuest(original, `dd if=/dev/urandom of=/var/tmp/fill bs=64K count=${writtenBytes >> 16} conv=fsync`);
    assert.ok((await lastRecord()) > before, "the guest does not wait for us");
    assert.deepEqual(await trial.points(original), present, "replication waits");

    await setPrivateLine("down", { prefix });
    await rm(ballast);
    await trial.healthFault("NameUnresolved");
    await setPrivateLine("up", { prefix });
    await waitUntil("everything that was written in the vault", waitMsMax, async () => {
      const later = (await trial.pointsAfter(original, present)).map((point) => point.properties.providerSpecificDetails.watari);
      assert.deepEqual([...new Set(later.map(({ mode }) => mode))], ["delta"], "what was written meanwhile was tracked, not read anew");
      return later.reduce((sum, { readBytes }) => sum + readBytes, 0) >= writtenBytes;
    });
    await trial.waitHealthy();
  });

  test("a cloned machine", async () => {
    const clone = await takeClone(trial.facts, copy);
    await trial.waitLogin(copy);
    const show = "systemctl show watari-agent -p ActiveState -p ExecMainStatus --value";
    await waitUntil("the end of the copied agent", waitMsMax, async () => (await trial.inGuest(copy, show)).split("\n").includes("failed"));
    assert.match(await trial.inGuest(copy, "journalctl -u watari-agent -b -o cat --no-pager"), /AgentCloned.*registeredUuid/);
    const fault = await trial.healthFault("AgentCloned");
    assertTold(fault);
    assert.equal(fault.evidence["smbiosUuid"], clone.smbiosUuid);
    assert.ok(Array.isArray(fault.evidence["addressesOfCopy"]) && fault.evidence["addressesOfCopy"].includes(clone.address));
    const present = await trial.points(original);
    await trial.pointsAfter(original, present);
    await desk.run(...trial.appliance("discover"));
    await desk.run("machine", "protect", copy, ...protect);
    await trial.waitHealthy();
    assert.deepEqual((await replicating()).toSorted(), [`${original}: Protected`, `${copy}: Protected`]);
    for (const name of [original, copy]) await trial.pointsAfter(name, await trial.points(name));
    const ledger = await verifyLedger(trial.stage.place, "onprem", trial.machine(original).ledgerUrl);
    assert.deepEqual([ledger.missing, ledger.damaged], [0, 0]);
  });

  test("no secret was printed or logged, and no packet tried a forbidden way", async () => {
    const logs = ["hub", "appliance", "appliance-2"];
    const texts = await Promise.all(logs.map(async (name) => [`${name}.log`, await trial.log(name)] as const));
    const journal = await trial.inGuest(original, "journalctl -b -o cat --no-pager -u watari-agent");
    desk.assertNoSecret({ ...Object.fromEntries(texts), "the agent's journal": journal });
    for (const [name, text] of texts) assert.doesNotMatch(text, /[?&]sig=|PRIVATE KEY/, name);
    assert.deepEqual((await labStatus({ prefix })).forbidden?.flows, []);
  });
});
