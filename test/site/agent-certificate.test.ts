// An agent's certificate renews by itself: with replication going on, through a kill at every write, and an appliance that forgot.

import assert from "node:assert/strict";
import { randomBytes, randomUUID, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { AgentCertificate } from "../../src/agent/identity/agent-certificate.ts";
import { postJson } from "../../src/agent/identity/appliance-client.ts";
import { registerSimulatedAgent, startSimulatedAgent } from "../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../src/agent/sim/simulated-source.ts";
import { findEndingCertificates } from "../../src/appliance/identity/site-certificates.ts";
import { createFacts, poll, registerAgent, tryRegister } from "../../src/appliance/testing/scripted-agent.ts";
import { startTestSite, type TestSite } from "../../src/appliance/testing/test-site.ts";
import { writeFileAtomic } from "../../src/base/atomic-file.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { agentProtocolVersion, agentRoutes, pollResponseShape, renewResponseShape } from "../../src/contract/agent-control.ts";
import { Fault } from "../../src/contract/errors.ts";
import { parseDiskId, parseOrderId, type MachineId } from "../../src/contract/ids.ts";
import { faultReportShape } from "../../src/contract/shapes.ts";

const dayMs = 86_400_000;
/** Behind two thirds of a certificate's life and the twelfth by which agents differ. */
const dueDays = 830;

class Killed extends Error {}

async function openFolder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "watari-certificate-"));
  return { path, [Symbol.asyncDispose]: async () => await rm(path, { recursive: true, force: true }) };
}

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = systemClock.monotonicMs() + 15_000;
  while (!(await isSo())) {
    assert.ok(systemClock.monotonicMs() < endMs, what);
    await systemClock.sleep(5);
  }
}

/** A registered machine whose agent lives as often as a test likes. */
class Machine {
  readonly facts = createFacts();
  readonly site: TestSite;
  readonly folder: string;
  #registered = { keyPem: "", certificatePem: "", machineId: "" };

  constructor(site: TestSite, folder: string) {
    this.site = site;
    this.folder = folder;
  }

  get id(): MachineId {
    return this.site.registry.list()[0]?.machineId ?? assert.fail("no machine");
  }

  async register(): Promise<void> {
    const { machineId, keyPem, certPem } = await registerAgent(this.#ports(), this.facts, this.site.authority.passphrase);
    this.#registered = { machineId, keyPem, certificatePem: certPem };
  }

  #ports(): Parameters<typeof poll>[0] {
    return { controlPort: this.site.controlPort, dataPort: this.site.dataPort, caPem: this.site.authority.caPem };
  }

  async open(write: (path: string, text: string) => Promise<void> = writeFileAtomic): Promise<AgentCertificate> {
    return await AgentCertificate.open({ stateFolder: this.folder, registered: this.#registered, write });
  }

  async post<T>(certificate: AgentCertificate, path: string, body: object, shape: Parameters<typeof postJson<T>>[0]["shape"]): Promise<T> {
    return await postJson({
      endpoint: { host: "127.0.0.1", port: this.site.controlPort },
      trust: { authorityPem: this.site.authority.caPem, client: certificate.client },
      ...{
        path,
        body: { protocolVersion: agentProtocolVersion, machineId: this.#registered.machineId, ...body },
        shape,
        timeoutMs: 10_000,
      },
    });
  }

  /** One poll, as a loop of the agent would make it; `after` stands between the appliance's answer and what the agent does with it. */
  async poll(certificate: AgentCertificate, after: () => void = () => undefined): Promise<"due" | "fine"> {
    const state = { phase: "idle", disks: [], readBytes: 0, sentBytes: 0, residentBytes: 0, cpuSeconds: 0, pointCount: 0 };
    const body = { agentVersion: "1", facts: this.facts, state: { ...state, features: ["renewCertificate"] }, results: [], waitSeconds: 0 };
    const used = certificate.client;
    try {
      const { isRenewalDue } = await this.post(certificate, agentRoutes.poll, body, pollResponseShape);
      after();
      await certificate.accepted(used);
      return isRenewalDue === true ? "due" : "fine";
    } catch (error) {
      if (error instanceof Fault && error.code === "AgentNotRegistered" && (await certificate.refused(used)) === "gone back") return "due";
      throw error;
    }
  }

  async renew(certificate: AgentCertificate, after: () => void = () => undefined): Promise<void> {
    await certificate.renew({
      name: "agent",
      ask: async (csrPem) => {
        const { certificatePem } = await this.post(certificate, agentRoutes.renew, { csrPem }, renewResponseShape);
        after();
        return certificatePem;
      },
    });
  }
}

const strokes = ["while the request is kept", "after the request was kept", "the answer is lost", "before the answer is kept"] as const;
const lateStrokes = ["after the answer was kept", "the first use is not heard of", "while the one before is dropped"] as const;

for (const stroke of [...strokes, ...lateStrokes])
  test(`a kill leaves an agent that its appliance knows: ${stroke}`, async () => {
    await using site = await startTestSite();
    await using folder = await openFolder();
    const machine = new Machine(site, folder.path);
    await machine.register();
    site.clock.advance(dueDays * dayMs);
    let writes = 0;
    let isStruck = false;
    const kill = (at: string): void => {
      if (isStruck || stroke !== at) return;
      isStruck = true;
      throw new Killed(at);
    };
    const write = async (path: string, text: string): Promise<void> => {
      writes += 1;
      kill(["", "while the request is kept", "before the answer is kept", "while the one before is dropped"][writes] ?? "");
      await writeFileAtomic(path, text);
      kill(["", "after the request was kept", "after the answer was kept"][writes] ?? "");
    };
    const live = async (): Promise<void> => {
      const certificate = await machine.open(write);
      while ((await machine.poll(certificate, () => writes === 2 && kill("the first use is not heard of"))) === "due")
        await machine.renew(certificate, () => kill("the answer is lost"));
    };
    const first = machine.site.registry.get(machine.id).certificateDigest;
    await assert.rejects(live, Killed);
    await live();
    const renewed = await machine.open();
    assert.equal(await machine.poll(renewed), "fine");
    const { certificateDigest, certificateEndsAtMs } = site.registry.get(machine.id);
    assert.notEqual(certificateDigest, first);
    assert.ok((certificateEndsAtMs ?? 0) - site.clock.nowMs() > 1000 * dayMs, "a whole life is before it");
    assert.equal(site.registry.list().length, 1);
  });

test("the certificate before is good until the next was used, and from then on no more", async () => {
  await using site = await startTestSite();
  await using folder = await openFolder();
  const machine = new Machine(site, folder.path);
  await machine.register();
  site.clock.advance(dueDays * dayMs);
  await using elsewhere = await openFolder();
  const [mine, old] = [
    await machine.open(),
    await AgentCertificate.open({ stateFolder: elsewhere.path, registered: (await machine.open()).client }),
  ];
  await machine.renew(mine);
  assert.equal(await machine.poll(old), "due", "issued, and not used yet");
  assert.equal(await machine.poll(mine), "fine");
  await assert.rejects(machine.poll(old), { code: "AgentNotRegistered" });
});

test("an appliance that forgot the next certificate gets the one before again, and another is asked for", async () => {
  await using site = await startTestSite();
  await using folder = await openFolder();
  const machine = new Machine(site, folder.path);
  await machine.register();
  site.clock.advance(dueDays * dayMs);
  const certificate = await machine.open();
  await machine.renew(certificate);
  site.registry.offer(machine.id, "0".repeat(64)); // As after a backup of the appliance's state was restored.
  assert.equal(await machine.poll(certificate), "due");
  await machine.renew(certificate);
  assert.equal(await machine.poll(certificate), "fine");
});

test("nobody renews in the name of another, without a certificate, or with one that was replaced", async () => {
  await using site = await startTestSite();
  await using folder = await openFolder();
  const machine = new Machine(site, folder.path);
  await machine.register();
  const certificate = await machine.open();
  const csrPem = "-";
  await assert.rejects(machine.post(certificate, agentRoutes.renew, { csrPem, machineId: randomUUID() }, renewResponseShape), {
    code: "Forbidden",
  });
  await assert.rejects(machine.post(certificate, agentRoutes.renew, { csrPem }, renewResponseShape), { code: "InputInvalid" });
  await machine.register();
  await assert.rejects(machine.post(certificate, agentRoutes.renew, { csrPem }, renewResponseShape), { code: "AgentNotRegistered" });
});

test("agents are told when two thirds of the life are over, spread by a twelfth of it; a clock set ahead and back locks nobody out", async () => {
  await using site = await startTestSite();
  await using folder = await openFolder();
  const machine = new Machine(site, folder.path);
  await machine.register();
  const certificate = await machine.open();
  site.clock.advance(700 * dayMs);
  assert.equal(await machine.poll(certificate), "fine");
  site.clock.advance(5000 * dayMs);
  // Beyond the end of the authority: nothing that could be issued would last longer.
  assert.equal(await machine.poll(certificate), "due");
  await machine.renew(certificate);
  const { validFromDate, validToDate } = new X509Certificate(certificate.client.certificatePem);
  assert.ok(validFromDate.getTime() < systemClock.nowMs(), "it is valid when the clock is set right");
  assert.equal(validToDate.getTime(), new X509Certificate(site.authority.caPem).validToDate.getTime());
  assert.equal(await machine.poll(certificate), "fine");
  site.clock.advance(-5700 * dayMs);
  assert.equal(await machine.poll(certificate), "fine");
});

test("what did not renew is told to the operator sixty days before, and when it has ended", async () => {
  await using site = await startTestSite();
  const facts = createFacts();
  const ports = { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem };
  await registerAgent(ports, facts, site.authority.passphrase);
  const judge = (): Fault | undefined =>
    findEndingCertificates({ nowMs: site.clock.nowMs(), authorityEndsAtMs: site.authority.endsAtMs, machines: site.registry.list() });
  site.clock.advance(1000 * dayMs);
  assert.equal(judge(), undefined);
  site.clock.advance(60 * dayMs);
  assert.match(judge()?.message ?? "", new RegExp(`agent on ${facts.hostname} ends in 3[45] days`));
  site.clock.advance(60 * dayMs);
  assert.match(judge()?.message ?? "", /has ended/);
  site.clock.advance(2500 * dayMs);
  assert.match(judge()?.message ?? "", /certificate authority ends/);
});

test("a certificate that has ended is told as such, and registering again keeps the machine's id", async () => {
  await using site = await startTestSite();
  const ports = { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem };
  const facts = createFacts();
  site.clock.advance(-2000 * dayMs); // Issued long ago.
  const ended = await registerAgent(ports, facts, site.authority.passphrase);
  site.clock.advance(2000 * dayMs);
  const answer = await poll(ports, ended, facts);
  assert.equal(faultReportShape.parse(answer.body).id, "AgentCertificateEnded");
  assert.equal((await tryRegister(ports, facts, site.authority.passphrase)).answer.status, 200);
  assert.equal(site.registry.list()[0]?.machineId, ended.machineId);
});

test("the certificate of the agents' ports renews while the appliance runs", async () => {
  await using site = await startTestSite();
  const seen = async (port: number): Promise<string> => {
    const socket = connect({ host: "127.0.0.1", port, ca: site.authority.caPem, servername: "appliance.watari.internal" });
    await new Promise<void>((resolve, reject) => void socket.once("secureConnect", resolve).once("error", reject));
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  };
  const before = await seen(site.controlPort);
  assert.equal(await seen(site.controlPort), before);
  assert.equal(await seen(site.dataPort), before);
  site.clock.advance(500 * dayMs);
  const after = await seen(site.controlPort);
  assert.notEqual(after, before);
  assert.equal(await seen(site.dataPort), after);
});

test("a running agent renews between two points, over one data connection, and after a restart goes on with the new one", async () => {
  await using site = await startTestSite();
  await using folder = await openFolder();
  const disk = join(folder.path, "disk");
  await writeFile(disk, randomBytes(3 * 2 ** 20));
  const { disks: _disks, ...facts } = createFacts();
  const diskFacts = { diskId: parseDiskId("serial-a"), deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  await using source = await SimulatedSource.open({
    clock: systemClock,
    random: systemRandom,
    facts,
    disks: [{ path: disk, facts: diskFacts }],
  });
  const stateFolder = join(folder.path, "state");
  const passphraseFile = join(folder.path, "passphrase");
  await writeFile(passphraseFile, site.authority.passphrase, { mode: 0o600 });
  const parts = { source, stateFolder, clock: systemClock, random: systemRandom };
  const appliance = { host: "127.0.0.1", port: site.controlPort };
  const machineId = await registerSimulatedAgent({ ...parts, appliance, authorityPem: site.authority.caPem, passphraseFile });
  site.protect(machineId);
  const order = async (kind: "replicate" | "point"): Promise<void> => {
    const orderId = parseOrderId(randomUUID());
    const policy = { pointIntervalSeconds: 3600, freezeMsMax: 2000 };
    site.orders.give(machineId, kind === "replicate" ? { kind, orderId, policy } : { kind, orderId });
    const result = await site.orders.waitResult(orderId);
    assert.equal(result.outcome, "done", JSON.stringify(result));
  };
  const first = site.registry.get(machineId).certificateDigest;
  {
    await using _agent = startSimulatedAgent(parts);
    await order("replicate");
    await order("point");
    site.clock.advance(dueDays * dayMs);
    await order("point");
    // An order ends the poll that waits, and the answer says that the renewal is due.
    await until("the new certificate was used", async () => {
      await order("point");
      return site.registry.get(machineId).certificateDigest !== first;
    });
    await order("point");
    await until("the one before was dropped", async () => !(await readFile(join(stateFolder, "renewal.json"), "utf8")).includes("before"));
  }
  const { certificateDigest: second, seenAtMs } = site.registry.get(machineId);
  await using _again = startSimulatedAgent(parts);
  await until("it polls again", () => site.registry.get(machineId).seenAtMs > seenAtMs);
  await order("point");
  assert.equal(site.registry.get(machineId).certificateDigest, second);
  assert.deepEqual(
    site.outcomes.filter((fault) => fault !== undefined),
    [],
    "no data connection was refused",
  );
});
