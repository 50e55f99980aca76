// The appliance's image as a customer gets it: the archive's order and digests, its import into a vCenter, and its first boot with and without answers.

import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "node:tls";
import { spawn } from "node:child_process";
import { z } from "zod";
import { makeImage } from "../../packaging/appliance-image/make-image.ts";
import { imageProperties } from "../../packaging/appliance-image/ovf.ts";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { hostAptSettings, hostAptSources } from "../../src/landing/helper/apt-sources.ts";
import { chooseAccelerator } from "../../src/landing/qemu/accelerator.ts";

const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const skip = process.getuid?.() === 0 ? false : "needs root to make the image";
const bootMsMax = 20 * 60_000;
/** Not the one that DHCP would give. */
const address = "10.0.2.77";

const importedShape = z.object({
  ...{ name: z.string(), cpus: z.number(), memoryMiB: z.number(), devices: z.array(z.string()), diskKiB: z.number() },
  ...{ properties: z.array(z.string()), uploadedBytes: z.number() },
});

async function makeOva(work: string): Promise<string> {
  const present = process.env["WATARI_TEST_OVA"]; // Saves the making while only the rest is worked on.
  if (present !== undefined) return present;
  const place = join(work, "make");
  await mkdir(place);
  const sources = { aptSources: await hostAptSources("bookworm"), aptSettings: await hostAptSettings() };
  const wish = { version: "1.0.0", epochSeconds: 1_800_000_000, work: place, folder: work, onStep: () => undefined };
  return (await makeImage({ ...wish, ...sources })).path;
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

async function freePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const bound = server.address();
      server.close(() => resolve(typeof bound === "object" && bound !== null ? bound.port : 0));
    });
  });
}

/** The certificate's names at a port of this machine; undefined while nobody shows one. */
async function namesAt(port: number): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port, servername: "appliance.watari.internal", rejectUnauthorized: false });
    socket.setTimeout(20_000, () => socket.destroy());
    socket.once("secureConnect", () => {
      const certificate: X509Certificate | undefined = socket.getPeerX509Certificate();
      resolve(certificate?.subjectAltName);
      socket.destroy();
    });
    socket.once("error", () => resolve(undefined));
    socket.once("close", () => resolve(undefined));
  });
}

test(
  "the image is archived in order, with digests, and a vCenter takes it by its own API; its first boot does what it was told",
  { skip },
  async (t) => {
    const work = await mkdtemp(join(cacheFolder, "appliance-image-"));
    try {
      const ova = await makeOva(work);
      const members = (await runCommand("tar", ["-tf", ova])).stdout.trim().split("\n");
      assert.deepEqual(
        members.map((name) => name.replace(/.*\./, "")),
        ["ovf", "mf", "vmdk"],
      );
      const open = join(work, "open");
      await mkdir(open);
      await runCommand("tar", ["-xf", ova, "-C", open]);
      const [ovf = "", manifest = "", vmdk = ""] = members;
      const digests = [...(await readFile(join(open, manifest), "utf8")).matchAll(/^SHA256\((.*)\)= ([0-9a-f]{64})$/gm)];
      assert.deepEqual(
        digests.map(([, name]) => name),
        [ovf, vmdk],
      );
      for (const [, name = "", digest] of digests) assert.equal(await digestOf(join(open, name)), digest, name);
      await importInto(work, ova, t.diagnostic.bind(t));
      await boot(work, join(open, vmdk), t.diagnostic.bind(t));
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  },
);

async function importInto(work: string, ova: string, say: (text: string) => void): Promise<void> {
  const program = join(work, "import-ova");
  const env = { ...process.env, GO111MODULE: "off", GOPATH: "/usr/share/gocode", GOCACHE: join(cacheFolder, "go-build") };
  await runCommand("go", ["build", "-o", program, "."], { cwd: join(import.meta.dirname, "import-ova"), env, timeoutMs: bootMsMax });
  const imported = importedShape.parse(JSON.parse((await runCommand(program, [ova], { timeoutMs: bootMsMax })).stdout));
  say(`imported: ${JSON.stringify(imported)}`);
  assert.deepEqual([imported.name, imported.cpus, imported.memoryMiB], ["appliance", 4, 8192]);
  assert.equal(imported.diskKiB, 120 * 2 ** 20);
  assert.ok(
    imported.devices.includes("ParaVirtualSCSIController") && imported.devices.includes("VirtualVmxnet3"),
    imported.devices.join(" "),
  );
  assert.deepEqual(
    imported.properties,
    imageProperties.map(([key]) => key),
  );
}

/** On the hardware that the description names, so that VMware's drivers are what finds disk and network. */
async function boot(work: string, vmdk: string, say: (text: string) => void): Promise<void> {
  const [disk, environment, console] = [join(work, "disk.qcow2"), join(work, "environment.xml"), join(work, "console.log")];
  await runCommand("qemu-img", ["convert", "-f", "vmdk", "-O", "qcow2", vmdk, disk], { timeoutMs: bootMsMax });
  const given = { name: "site-a", address: `${address}/24`, gateway: "10.0.2.2", dns: "10.0.2.3", proxy: "http://10.0.2.2:3128", ntp: "" };
  await writeFile(
    environment,
    `<?xml version="1.0" encoding="UTF-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="">
<PropertySection>${Object.entries(given)
      .map(([key, value]) => `<Property oe:key="${key}" oe:value="${value}"/>`)
      .join("")}</PropertySection></Environment>\n`,
  );
  const port = await freePort();
  const accelerator = await chooseAccelerator();
  const args = [
    ...["-machine", "pc", "-accel", accelerator, "-cpu", accelerator === "kvm" ? "host" : "max", "-smp", "2", "-m", "2048"],
    ...["-nodefaults", "-display", "none", "-chardev", `file,id=serial,path=${console}`, "-serial", "chardev:serial"],
    ...[
      "-device",
      "pvscsi,id=scsi",
      "-drive",
      `file=${disk},format=qcow2,if=none,id=root,cache=unsafe`,
      "-device",
      "scsi-hd,drive=root,bus=scsi.0",
    ],
    ...["-netdev", `user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:${port}-${address}:443`, "-device", "vmxnet3,netdev=net"],
    ...["-fw_cfg", `name=opt/org.watari/ovf-environment,file=${environment}`],
  ];
  const beganMs = systemClock.monotonicMs();
  const machine = spawn("setpriv", ["--pdeathsig", "KILL", "--", "qemu-system-x86_64", ...args], { stdio: "ignore" });
  const ended = new Promise<void>((resolve) => void machine.once("close", () => resolve()));
  try {
    let names: string | undefined;
    while (names === undefined) {
      assert.equal(machine.exitCode, null, "the machine runs");
      const said = await readFile(console, "utf8").catch(() => ""); // Not begun yet.
      assert.ok(systemClock.monotonicMs() - beganMs < bootMsMax, `the appliance did not answer: ${said.slice(-3000)}`);
      await systemClock.sleep(2000);
      names = await namesAt(port);
    }
    say(`the appliance answered ${Math.round((systemClock.monotonicMs() - beganMs) / 1000)} s after power on; it names ${names}`);
    assert.match(names, /IP Address:10\.0\.2\.77/);
  } finally {
    machine.kill("SIGKILL");
    await ended;
  }
}
