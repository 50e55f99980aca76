// Promises of the push install, over a real OpenSSH server: checked first, undone when it fails, nothing secret told.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { parseOrderId } from "../../contract/ids.ts";
import { createConnector } from "../../connectivity/connector.ts";
import { parseTopology } from "../../connectivity/topology.ts";
import { createCredentialStore, type CredentialStore } from "../credentials/credential-store.ts";
import { createVcenterStore } from "../discovery/vcenter-store.ts";
import { openSecretBox } from "../state/secret-box.ts";
import { findSshServer, guestPassword, installedPaths, startSshGuest, type SshGuest } from "../testing/ssh-guest.ts";
import { startTestSite, testPolicy, type TestSite } from "../testing/test-site.ts";
import type { AgentFiles } from "./agent-archive.ts";
import { Guests } from "./guests.ts";
import { createHostKeys } from "./host-keys.ts";
import { isSameUuid, judgePrerequisites } from "./prerequisites.ts";

const server = await findSshServer();
const hasSudo = (await tryCommand("sh", ["-c", "command -v sudo"])).exitCode === 0;
const connector = createConnector({ topology: parseTopology({ siteRanges: ["127.0.0.0/8"] }), clock: systemClock, log: silentLog });

async function bundleAgent(folder: string): Promise<AgentFiles> {
  const bundlePath = join(folder, "agent.mjs");
  const entry = fileURLToPath(import.meta.resolve("../testing/guest-agent.ts"));
  const banner = { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" };
  await build({ entryPoints: [entry], bundle: true, platform: "node", format: "esm", outfile: bundlePath, logLevel: "silent", banner });
  const unitText = "[Service]\nExecStart=/opt/watari-agent/bin/node /opt/watari-agent/agent.mjs run --state /var/lib/watari-agent\n";
  // The guest sees this machine's files, so a word that starts Node does for its 150 MB.
  const nodePath = join(folder, "node");
  await writeFile(nodePath, `#!/bin/sh\nexec ${process.execPath} "$@"\n`, { mode: 0o755 });
  return { nodePath, bundlePath, unitText };
}

interface Bench extends AsyncDisposable {
  readonly guests: Guests;
  readonly site: TestSite;
  readonly credentials: CredentialStore;
  addCredential(over?: { readonly password?: string; readonly userName?: string; readonly privilege?: "root" | "sudo" }): string;
}

describe("push install", { skip: "missing" in server ? server.missing : false }, () => {
  let guest: SshGuest;
  let folder: string;
  let files: AgentFiles;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "watari-push-"));
    files = await bundleAgent(folder);
    guest = await startSshGuest("path" in server ? server.path : "");
  });
  after(async () => {
    await guest[Symbol.asyncDispose]();
    await connector[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function openBench(
    over: {
      readonly agentFiles?: AgentFiles;
      readonly dataPort?: number;
      readonly controlPort?: number;
      readonly site?: TestSite;
      readonly credentials?: CredentialStore;
    } = {},
  ): Promise<Bench> {
    const site = over.site ?? (await startTestSite());
    const { database, clock, registry, authority } = site;
    const box = await openSecretBox(join(site.folder, "state.key"), systemRandom);
    const credentials = over.credentials ?? createCredentialStore({ database, box, random: systemRandom });
    const vcenters = createVcenterStore({ database, clock, random: systemRandom });
    const guests = new Guests({
      registry,
      vcenters,
      credentials,
      authority,
      hostKeys: createHostKeys(database),
      connector: () => connector,
      agentFiles: async () => await Promise.resolve(over.agentFiles ?? files),
      // One cache for all tests of this file: packing Node takes seconds.
      stateFolder: folder,
      sshPort: guest.port,
      appliance: () => ({
        address: "127.0.0.1",
        controlPort: over.controlPort ?? site.controlPort,
        dataPort: over.dataPort ?? site.dataPort,
      }),
      discover: async () => await Promise.resolve(),
      clock,
      random: systemRandom,
      log: silentLog,
    });
    return {
      guests,
      site,
      credentials,
      addCredential: ({ password = guestPassword, userName = "root", privilege = "root" } = {}) =>
        credentials.put({ name: "guests", kind: "linux-password", userName, privilege }, { kind: "password", password }).credentialId,
      [Symbol.asyncDispose]: async () => {
        await guests[Symbol.asyncDispose]();
        if (over.site === undefined) await site[Symbol.asyncDispose]();
      },
    };
  }

  async function protect(bench: Bench, credentialId: string, infrastructureId: string): ReturnType<Guests["install"]> {
    const order = {
      kind: "protect" as const,
      orderId: parseOrderId(randomUUID()),
      infrastructureId,
      runAsAccountId: credentialId,
      policy: testPolicy,
    };
    return await bench.guests.install(order, () => undefined, new AbortController().signal);
  }

  const faultOf = async (task: Promise<unknown>): Promise<Fault> => {
    const error: unknown = await task.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof Fault, String(error));
    assert.ok(!JSON.stringify(toReport(error)).includes(guestPassword));
    return error;
  };

  test("a wrong password ends within seconds and leaves nothing on the guest", async () => {
    await using bench = await openBench();
    const startedMs = systemClock.monotonicMs();
    const fault = await faultOf(bench.guests.addByHand("127.0.0.1", bench.addCredential({ password: "wrong" })));
    assert.equal(fault.code, "GuestPasswordWrong");
    assert.ok(systemClock.monotonicMs() - startedMs < 10_000);
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("as root: installed, registered, polling; then removed without a trace", async () => {
    await using bench = await openBench();
    const credentialId = bench.addCredential();
    const shown = await bench.guests.addByHand("127.0.0.1", credentialId);
    assert.equal(shown.addresses[0], "127.0.0.1");
    const { machineId } = await protect(bench, credentialId, shown.infrastructureId);
    const machine = bench.site.registry.get(machineId);
    assert.equal(machine.facts.osMachineId, "0123456789abcdef0123456789abcdef");
    assert.ok(machine.state);
    assert.equal(await guest.inside("ls /var/lib/watari-agent"), "appliance-authority.pem\nidentity.json\n");
    bench.site.registry.protect(machineId, {
      infrastructureId: shown.infrastructureId,
      orderId: randomUUID(),
      policy: testPolicy,
      address: "127.0.0.1",
      credentialId,
    });
    await bench.guests.uninstall(machineId, new AbortController().signal);
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("an agent is updated in place, keeps its registration, and comes back when the new one fails", async () => {
    await using bench = await openBench();
    const { registry } = bench.site;
    const credentialId = bench.addCredential();
    const shown = await bench.guests.addByHand("127.0.0.1", credentialId);
    const { machineId } = await protect(bench, credentialId, shown.infrastructureId);
    const link = {
      infrastructureId: shown.infrastructureId,
      orderId: randomUUID(),
      policy: testPolicy,
      address: "127.0.0.1",
      credentialId,
    };
    registry.protect(machineId, link);
    const { certificateDigest } = registry.get(machineId);
    const order = { kind: "updateAgent" as const, orderId: parseOrderId(randomUUID()), machineId };
    const { signal } = new AbortController();
    const updateTo = async (bundle: string): Promise<unknown> => {
      const bundlePath = join(folder, "other.mjs");
      await writeFile(bundlePath, bundle);
      await using other = await openBench({ agentFiles: { ...files, bundlePath }, site: bench.site, credentials: bench.credentials });
      return await other.guests.updateAgent(order, () => undefined, signal);
    };
    const text = await readFile(files.bundlePath, "utf8");
    assert.deepEqual(await updateTo(text.replaceAll('"0.0.1"', '"0.0.2"')), { agentVersion: "0.0.2" });
    assert.equal(registry.get(machineId).certificateDigest, certificateDigest);
    assert.equal((await faultOf(updateTo("process.exitCode = 7;"))).code, "AgentSilent");
    const before = registry.get(machineId).seenAtMs;
    while (registry.get(machineId).seenAtMs === before) await systemClock.sleep(50);
    assert.equal(registry.get(machineId).agentVersion, "0.0.2");
    assert.equal(await guest.inside("ls -d /opt/.watari-agent.* 2>/dev/null || true"), "");
    await bench.guests.uninstall(machineId, signal);
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("an agent is taken over by another appliance with its id and its log of changes, and given back when that fails", async () => {
    await using first = await openBench();
    await using second = await openBench();
    await using third = await openBench({ controlPort: 1 });
    const { signal } = new AbortController();
    const credentialId = first.addCredential();
    const shown = await first.guests.addByHand("127.0.0.1", credentialId);
    const { machineId } = await protect(first, credentialId, shown.infrastructureId);
    await guest.inside("echo kept > /var/lib/watari-agent/replication.json");
    const adopt = async (bench: Bench): Promise<unknown> => {
      const runAsAccountId = bench.addCredential();
      const { infrastructureId } = await bench.guests.addByHand("127.0.0.1", runAsAccountId);
      const order = { kind: "adopt" as const, orderId: parseOrderId(randomUUID()), policy: testPolicy };
      return await bench.guests.adopt({ ...order, machineId, infrastructureId, runAsAccountId }, () => undefined, signal);
    };
    // Twice, as after a kill of the appliance whose answer was lost.
    for (let turn = 1; turn <= 2; turn++) {
      await adopt(second);
      assert.equal((await guest.inside("cat /var/lib/watari-agent/replication.json")).trim(), "kept");
    }
    assert.notEqual(second.site.registry.get(machineId).certificateDigest, first.site.registry.get(machineId).certificateDigest);
    const before = second.site.registry.get(machineId).seenAtMs;
    assert.equal((await faultOf(adopt(third))).code, "GuestCommandFailed");
    while (second.site.registry.get(machineId).seenAtMs === before) await systemClock.sleep(50);
    assert.equal(await guest.inside("ls -A /var/lib/watari-agent"), "appliance-authority.pem\nidentity.json\nreplication.json\n");
    second.site.registry.protect(machineId, {
      ...{ infrastructureId: shown.infrastructureId, orderId: randomUUID(), policy: testPolicy, address: "127.0.0.1" },
      credentialId: second.addCredential(),
    });
    await second.guests.uninstall(machineId, signal);
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("with sudo: the password goes by stdin, and the agent is installed as well", { skip: hasSudo ? false : "needs sudo" }, async () => {
    await using bench = await openBench();
    const credentialId = bench.addCredential({ userName: "guest", privilege: "sudo" });
    const shown = await bench.guests.addByHand("127.0.0.1", credentialId);
    const { machineId } = await protect(bench, credentialId, shown.infrastructureId);
    assert.ok(bench.site.registry.get(machineId).state);
    await guest.inside(
      "systemctl disable --now watari-agent; rm -rf /opt/watari-agent /var/lib/watari-agent /etc/systemd/system/watari-agent.service",
    );
  });

  test("an account that cannot become root is told so", async () => {
    await using bench = await openBench();
    const fault = await faultOf(bench.guests.addByHand("127.0.0.1", bench.addCredential({ userName: "guest", privilege: "root" })));
    assert.equal(fault.code, "GuestPrivilegeMissing");
  });

  test("a closed way back is found before anything is copied", async () => {
    await using bench = await openBench({ dataPort: 1 });
    const credentialId = bench.addCredential();
    const shown = await bench.guests.addByHand("127.0.0.1", credentialId);
    const fault = await faultOf(protect(bench, credentialId, shown.infrastructureId));
    assert.equal(fault.code, "PrerequisitesMissing");
    assert.match(JSON.stringify(fault.evidence), /way back, port 1: found closed/);
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("an agent that fails to register is undone, and the same order works after the repair", async () => {
    const broken = join(folder, "broken.mjs");
    await writeFile(broken, "process.stderr.write('no luck'); process.exitCode = 7;");
    const credentialIdOf = (bench: Bench): string => bench.addCredential();
    await using bench = await openBench({ agentFiles: { ...files, bundlePath: broken } });
    const credentialId = credentialIdOf(bench);
    const shown = await bench.guests.addByHand("127.0.0.1", credentialId);
    const fault = await faultOf(protect(bench, credentialId, shown.infrastructureId));
    assert.equal(fault.code, "GuestCommandFailed");
    assert.match(String(fault.evidence["output"]), /no luck/);
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("another machine at the address is refused before anything is copied", async () => {
    await using bench = await openBench();
    const credentialId = bench.addCredential();
    const shown = await bench.guests.addByHand("127.0.0.1", credentialId);
    if (shown.smbiosUuid === "") return;
    const { database, clock } = bench.site;
    createVcenterStore({ database, clock, random: systemRandom }).putByHand({ ...shown, smbiosUuid: randomUUID() });
    assert.equal((await faultOf(protect(bench, credentialId, shown.infrastructureId))).code, "GuestMismatch");
    assert.equal(await guest.inside(installedPaths), "");
  });

  test("a changed host key is refused, and trusted again once forgotten", async () => {
    await using bench = await openBench();
    const credentialId = bench.addCredential();
    await bench.guests.addByHand("127.0.0.1", credentialId);
    await guest.changeHostKey();
    const fault = await faultOf(bench.guests.addByHand("127.0.0.1", credentialId));
    assert.equal(fault.code, "HostKeyChanged");
    assert.equal(createHostKeys(bench.site.database).forget(`127.0.0.1:${guest.port}`), true);
    await bench.guests.addByHand("127.0.0.1", credentialId);
  });
});

describe("prerequisites", () => {
  test("each missing thing is a failed finding with its repair", () => {
    const values = new Map([
      ["system", "Linux"],
      ["architecture", "aarch64"],
      ["kernel", "3.10.0"],
      ["glibc", "2.17"],
      ["clock", "0"],
    ]);
    const { findings } = judgePrerequisites(values, { back: { address: "192.0.2.1", ports: [443] }, nowMs: 1e12 });
    const failed = findings.filter((finding) => finding.verdict === "fail");
    assert.deepEqual(
      failed.map((finding) => finding.name),
      ["system", "kernel", "glibc", "systemd", "archiver", "space in /opt", "space in /var", "clock"],
    );
    assert.ok(failed.every((finding) => (finding.repair ?? "").length > 10));
  });

  test("a UUID in either byte order is the same machine", () => {
    assert.ok(isSameUuid("00112233-4455-6677-8899-aabbccddeeff", "33221100-5544-7766-8899-AABBCCDDEEFF"));
    assert.ok(!isSameUuid("00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefe"));
  });
});
