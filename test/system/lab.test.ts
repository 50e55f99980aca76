// The lab keeps its promises: views of names, ways that are open and ways that are counted, a real machine, a vCenter that moves it, no trace.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { leakPrivateName, proxyLog, setPrivateLine, setProxy, setSiteNames } from "../../lab/cut-offs.ts";
import { forbiddenPackets } from "../../lab/firewall.ts";
import { awaitLedger, labDown, type LabFacts, labStatus, labUp, leftovers } from "../../lab/lab.ts";
import { type LabMachine, machineProcess } from "../../lab/machine.ts";
import { resolveIn } from "../../lab/names.ts";
import { missingPackages } from "../../lab/packages.ts";
import { labPlace, type Zone } from "../../lab/place.ts";
import { inZone, labExec, waitUntil } from "../../lab/processes.ts";

const missing = missingPackages().map((entry) => entry.name);
const skip = process.getuid?.() !== 0 ? "needs root" : missing.length > 0 ? `needs Debian packages: ${missing.join(" ")}` : false;
const bootWaitMs = 300_000;

async function total(prefix: string): Promise<number> {
  return (await forbiddenPackets(labPlace({ prefix }))).total;
}

async function curl(prefix: string, zone: Zone, ...args: string[]): Promise<{ readonly exitCode: number; readonly stdout: string }> {
  return await labExec(labPlace({ prefix }), zone, ["curl", "-s", "--max-time", "8", ...args]);
}

/** Listens on an address of a zone and answers each connection with `answer`; disposing stops it. */
async function answering(prefix: string, zone: Zone, address: string, port: number, answer: string): Promise<AsyncDisposable> {
  const script = `require("node:net").createServer((s)=>{s.on("error",()=>{});s.end(${JSON.stringify(answer)}+s.remoteAddress)}).listen(${port},${JSON.stringify(address)},()=>console.log("ready"))`;
  const [program, ...args] = inZone(labPlace({ prefix }), zone, [process.execPath, "-e", script]);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("exit", () => reject(new Error(`no listener on ${address}:${port}`)));
  });
  return {
    [Symbol.asyncDispose]: async () => {
      child.removeAllListeners("exit");
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill();
      await ended;
    },
  };
}

/** The bytes that a plain connection from a zone gets; undefined when it is not let through. */
async function said(prefix: string, zone: Zone, address: string, port: number): Promise<string | undefined> {
  const script = `exec 3<>/dev/tcp/${address}/${port} || exit 9; timeout 2 cat <&3; exit 0`;
  const result = await labExec(labPlace({ prefix }), zone, ["timeout", "6", "bash", "-c", script]);
  return result.exitCode === 0 ? result.stdout : undefined;
}

/** A DHCP client's first call, answered by broadcast; prints the address that is offered. */
const dhcpDiscover = `
const packet = Buffer.alloc(300);
packet.set([1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 128, 0]);
packet.set([2, 0, 0, 0, 0, 9], 28);
packet.set([99, 130, 83, 99, 53, 1, 1, 255], 236);
const socket = require("node:dgram").createSocket("udp4");
socket.on("message", (answer) => { console.log(answer.subarray(16, 20).join(".")); socket.close(); });
socket.bind(68, () => { socket.setBroadcast(true); socket.send(packet, 67, "255.255.255.255"); });
`;

describe("lab network", { skip, timeout: 300_000 }, () => {
  const prefix = "wtrt1";
  let facts: LabFacts;
  before(async () => {
    facts = await labUp({ prefix, machines: [] });
  });
  after(async () => {
    await labDown({ prefix });
    assert.deepEqual(await leftovers({ prefix }), []);
  });

  test("each zone has its own view of the same names", async () => {
    const place = labPlace({ prefix });
    for (const name of ["management", "login", "download"]) {
      assert.deepEqual(await resolveIn(place, "internet", `${name}.watari.test`), ["198.51.100.10"]);
      assert.deepEqual(await resolveIn(place, "dmz", `${name}.watari.test`), ["198.51.100.10"]);
      assert.deepEqual(await resolveIn(place, "onprem", `${name}.watari.test`), []);
    }
    for (const name of ["store1.blob.watari.test", "a-id1.eu.privatelink.siterecovery.watari.test"]) {
      assert.deepEqual(await resolveIn(place, "internet", name), ["198.51.100.11"]);
    }
    assert.deepEqual(await resolveIn(place, "onprem", "vcenter.corp.watari.test"), ["10.10.0.20"]);
  });

  test("the site asks the hub's resolver for private zones, over the private line", async () => {
    const place = labPlace({ prefix });
    const dns = [
      "dnsmasq",
      "--keep-in-foreground",
      "--no-resolv",
      "--no-hosts",
      "--bind-interfaces",
      "--conf-file=/dev/null",
      "--pid-file=",
    ];
    const records = ["--listen-address=10.200.0.53", "--host-record=store1.blob.watari.test,10.200.0.4"];
    const [program, ...args] = inZone(place, "landing", [...dns, ...records]);
    const child = spawn(program, args, { stdio: "ignore" });
    const name = "store1.blob.watari.test";
    try {
      await waitUntil(name, 5_000, async () => (await resolveIn(place, "onprem", name)).includes("10.200.0.4"));
      await leakPrivateName(name, { prefix });
      assert.deepEqual(await resolveIn(place, "onprem", name), ["198.51.100.11"]);
      await setSiteNames({}, { prefix });
      await waitUntil(`${name} as before`, 5_000, async () => (await resolveIn(place, "onprem", name)).includes("10.200.0.4"));
    } finally {
      child.kill();
    }
    assert.equal(await total(prefix), 0);
  });

  test("the proxy lets the hub's public names through and nothing else", async () => {
    await using _hub = await answering(prefix, "landing", "198.51.100.10", 443, "hub ");
    const { url, withPasswordUrl, user, passwordFile } = facts.proxy;
    const code = async (...args: string[]): Promise<string> =>
      (await curl(prefix, "onprem", "-o", "/dev/null", "-w", "%{http_connect}", ...args)).stdout;
    assert.equal(await code("-x", url, "https://management.watari.test/"), "200");
    assert.equal(await code("-x", url, "https://store1.blob.watari.test/"), "403");
    assert.equal(await code("-x", url, "https://198.51.100.10/"), "403");
    assert.equal(await code("-x", withPasswordUrl, "https://login.watari.test/"), "407");
    const password = await readFile(passwordFile, "utf8");
    assert.equal(await code("-x", withPasswordUrl, "--proxy-user", `${user}:${password}`, "https://login.watari.test/"), "200");
    assert.equal(await code("-x", withPasswordUrl, "--proxy-user", `${user}:wrong`, "https://login.watari.test/"), "407");
    assert.ok((await proxyLog({ prefix })).some((row) => row.includes("CONNECT management.watari.test:443")));
    assert.equal(await total(prefix), 0, "the proxy's own ways are open ways");
  });

  test("a dropped proxy answers nothing until it is back", async () => {
    await setProxy("down", { prefix });
    assert.equal((await labStatus({ prefix })).isProxyUp, false);
    assert.equal(await said(prefix, "onprem", "10.10.0.1", 3128), undefined);
    await setProxy("up", { prefix });
    assert.equal((await labStatus({ prefix })).isProxyUp, true);
    assert.notEqual(await said(prefix, "onprem", "10.10.0.1", 3128), undefined);
  });

  test("the private line carries private addresses to endpoints, and can be pulled out", async () => {
    await runCommand("ip", ["-n", `${prefix}-landing`, "addr", "add", "10.200.0.4/24", "dev", "br-land"]);
    await using _endpoint = await answering(prefix, "landing", "10.200.0.4", 443, "endpoint ");
    assert.equal(await said(prefix, "onprem", "10.200.0.4", 443), "endpoint 10.10.0.10");
    await setPrivateLine("down", { prefix });
    assert.equal(await said(prefix, "onprem", "10.200.0.4", 443), undefined);
    await setPrivateLine("up", { prefix });
    assert.equal(await said(prefix, "onprem", "10.200.0.4", 443), "endpoint 10.10.0.10");
    assert.equal(await total(prefix), 0, "a line that is out is no reason to try another way");
  });

  test("a landed machine gets an address, and no way to the site", async () => {
    const probe = `${prefix}-probe`;
    await runCommand("ip", ["netns", "add", probe]);
    await runCommand("ip", ["link", "add", "p0", "netns", probe, "type", "veth", "peer", "name", "tap9", "netns", `${prefix}-landing`]);
    await runCommand("ip", ["-n", `${prefix}-landing`, "link", "set", "tap9", "master", "br-land", "up"]);
    const configure = ["link set lo up", "link set p0 up", "addr add 169.254.9.9/16 dev p0", "route add default dev p0"];
    await runCommand("ip", ["-n", probe, "-batch", "-"], { stdin: configure.join("\n") });
    const nsenter = [`--net=/run/netns/${probe}`, "--"];
    const offered = await runCommand("nsenter", [...nsenter, process.execPath, "-e", dhcpDiscover], { timeoutMs: 15_000 });
    assert.match(offered.stdout.trim(), /^10\.200\.0\.1\d\d$/);
    assert.equal(await total(prefix), 0);
    await runCommand("ip", ["-n", probe, "addr", "add", `${offered.stdout.trim()}/24`, "dev", "p0"]);
    await runCommand("ip", ["-n", probe, "route", "replace", "default", "via", "10.200.0.1"]);
    const tried = await tryCommand("nsenter", [...nsenter, "timeout", "3", "bash", "-c", "</dev/tcp/10.10.0.10/443"]);
    assert.notEqual(tried.exitCode, 0);
    assert.ok(((await forbiddenPackets(labPlace({ prefix }))).byRule["landing/machines-to-site"] ?? 0) > 0);
  });

  const forbidden: readonly {
    readonly name: string;
    readonly zone: Zone;
    readonly to: string;
    readonly port: number;
    readonly rule: string;
  }[] = [
    { name: "site to the public door without the proxy", zone: "onprem", to: "198.51.100.10", port: 443, rule: "onprem/output" },
    { name: "site to an endpoint by another port", zone: "onprem", to: "10.200.0.4", port: 22, rule: "onprem/out-on-line" },
    { name: "landing zone to the site", zone: "landing", to: "10.10.0.101", port: 22, rule: "landing/out-on-line" },
    { name: "landing zone to the public", zone: "landing", to: "203.0.113.2", port: 443, rule: "landing/output" },
    { name: "dmz to the site", zone: "dmz", to: "10.10.0.10", port: 443, rule: "dmz/output" },
    { name: "public to another port of the hub", zone: "internet", to: "198.51.100.10", port: 22, rule: "internet/output" },
  ];
  for (const { name, zone, to, port, rule } of forbidden) {
    test(`is refused and counted: ${name}`, async () => {
      const place = labPlace({ prefix });
      const count = (await forbiddenPackets(place)).byRule[rule] ?? 0;
      assert.equal(await said(prefix, zone, to, port), undefined);
      const now = await forbiddenPackets(place);
      assert.ok((now.byRule[rule] ?? 0) > count, `${rule} did not count`);
      assert.ok(now.flows.some((flow) => flow.zone === zone && flow.to === to && flow.port === port));
    });
  }

  test("a public address on the private line is refused and counted", async () => {
    const place = labPlace({ prefix });
    await runCommand("ip", ["-n", `${prefix}-onprem`, "route", "add", "198.51.100.11/32", "via", "10.99.0.2"]);
    assert.equal(await said(prefix, "onprem", "198.51.100.11", 443), undefined);
    assert.ok(((await forbiddenPackets(place)).byRule["onprem/out-public-on-line"] ?? 0) > 0);
    await runCommand("ip", ["-n", `${prefix}-onprem`, "route", "del", "198.51.100.11/32"]);
  });
});

/** One SOAP call to the lab's vCenter from the operator's desk. */
async function soap(facts: LabFacts, cookies: string, body: string): Promise<string> {
  const envelope = `<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>${body}</Body></Envelope>`;
  const args = [
    "curl",
    "-s",
    "--max-time",
    "60",
    "--cacert",
    facts.caFile,
    "-b",
    cookies,
    "-c",
    cookies,
    "--data-binary",
    "@-",
    facts.vcenter.url,
  ];
  return (await labExec(labPlace(facts), "onprem", ["curl", ...args.slice(1)], { stdin: envelope })).stdout;
}

const vim = 'xmlns="urn:vim25"';
function login(user: string, password: string): string {
  return `<Login ${vim}><_this type="SessionManager">SessionManager</_this><userName>${user}</userName><password>${password}</password></Login>`;
}
function power(task: "PowerOffVM_Task" | "PowerOnVM_Task", vm: string): string {
  return `<${task} ${vim}><_this type="VirtualMachine">${vm}</_this></${task}>`;
}
function properties(vm: string, ...paths: string[]): string {
  const set = `<propSet><type>VirtualMachine</type>${paths.map((path) => `<pathSet>${path}</pathSet>`).join("")}</propSet>`;
  const object = `<objectSet><obj type="VirtualMachine">${vm}</obj></objectSet>`;
  return `<RetrievePropertiesEx ${vim}><_this type="PropertyCollector">propertyCollector</_this><specSet>${set}${object}</specSet><options/></RetrievePropertiesEx>`;
}
function find(uuid: string): string {
  return `<FindByUuid ${vim}><_this type="SearchIndex">SearchIndex</_this><uuid>${uuid}</uuid><vmSearch>true</vmSearch></FindByUuid>`;
}

describe("lab with machines", { skip, timeout: 1_800_000 }, () => {
  const prefix = "wtrt2";
  const place = labPlace({ prefix });
  let facts: LabFacts;
  let machine: LabMachine;
  let clone: LabMachine;
  let folder: string;

  async function ssh(target: LabMachine, command: string): Promise<string> {
    const known = join(folder, `known-${target.name}`);
    const options = [
      "-o",
      "StrictHostKeyChecking=accept-new",
      "-o",
      `UserKnownHostsFile=${known}`,
      "-o",
      "BatchMode=yes",
      "-o",
      "ConnectTimeout=20",
    ];
    const argv = ["ssh", "-i", facts.guest.rootKeyFile, ...options, `root@${target.address}`, command] as const;
    const result = await labExec(place, "onprem", ["ssh", ...argv.slice(1)]);
    assert.equal(result.exitCode, 0, result.stderr);
    return result.stdout.trim();
  }
  interface Ledger {
    readonly last: { readonly sequence: number };
    readonly bootId: string;
  }
  interface Verification {
    readonly last: number;
    readonly missing: number;
    readonly damaged: number;
    readonly boots: readonly { readonly bootId: string; readonly first: number; readonly last: number }[];
  }
  async function ask<Answer>(target: LabMachine, path: string): Promise<Answer> {
    return JSON.parse((await curl(prefix, "onprem", `${target.ledgerUrl}${path}`)).stdout) as Answer;
  }

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "lab-test-"));
    const progress = (text: string): void => void process.stderr.write(`${text}\n`);
    facts = await labUp({ prefix, machines: [{ name: "ledger-01" }, { name: "ledger-02", cloneOf: "ledger-01" }], progress });
    const [first, second] = facts.machines;
    assert.ok(first !== undefined && second !== undefined);
    machine = first;
    clone = second;
  });
  after(async () => {
    await labDown({ prefix });
    await rm(folder, { recursive: true, force: true });
    assert.deepEqual(await leftovers({ prefix }), []);
  });

  test("the guest is what VMware would run, with modules for more", async () => {
    assert.match(await ssh(machine, "lspci 2>/dev/null; ls /sys/bus/pci/drivers"), /vmw_pvscsi[\s\S]*vmxnet3|vmxnet3[\s\S]*vmw_pvscsi/);
    assert.equal(await ssh(machine, "cat /sys/class/dmi/id/product_uuid"), machine.smbiosUuid);
    const serials = (await ssh(machine, "lsblk -dno SERIAL | grep -v '^$' | sort")).split("\n");
    assert.deepEqual(serials, machine.disks.map((disk) => disk.serial).toSorted());
    assert.equal(
      await ssh(machine, "findmnt -no FSTYPE /; findmnt -no FSTYPE,SOURCE /srv/ledger; swapon --noheadings --show=TYPE"),
      "ext4\nxfs    /dev/mapper/data-ledger\npartition",
    );
    assert.match(
      await ssh(machine, "lsinitramfs /boot/initrd.img-* | grep -o 'vmw_pvscsi.ko\\|virtio_blk.ko\\|virtio_pci.ko' | sort -u"),
      /^vmw_pvscsi\.ko$/,
    );
    assert.match(await ssh(machine, "find /lib/modules -name virtio_blk.ko"), /virtio_blk\.ko/);
  });

  test("the ledger goes on without loss when the plug is pulled through the vCenter", async () => {
    const cookies = join(folder, "cookies");
    const password = await readFile(facts.vcenter.passwordFile, "utf8");
    assert.match(await soap(facts, join(folder, "none"), login(facts.vcenter.user, "wrong")), /InvalidLogin/);
    assert.match(await soap(facts, cookies, login(facts.vcenter.user, password)), /LoginResponse/);
    const vm = />(vm-\d+)</.exec(await soap(facts, cookies, find(machine.smbiosUuid)))?.[1];
    assert.ok(vm !== undefined);
    const described = await soap(
      facts,
      cookies,
      properties(vm, "name", "guest.ipAddress", "guest.net", "config.guestFullName", "config.hardware", "runtime.powerState"),
    );
    for (const part of [
      machine.address,
      machine.mac,
      "Debian GNU/Linux 12",
      "ParaVirtualSCSIController",
      "VirtualVmxnet3",
      machine.disks[0]?.uuid ?? "-",
      "poweredOn",
    ]) {
      assert.ok(described.includes(part), `the inventory does not say ${part}`);
    }
    const earlier = await ask<Ledger>(machine, "/");
    assert.match(await soap(facts, cookies, power("PowerOffVM_Task", vm)), /PowerOffVM_TaskResponse/);
    assert.equal(await machineProcess(place, machine), undefined, "the task ended before the machine did");
    assert.match(await soap(facts, cookies, properties(vm, "runtime.powerState")), /poweredOff/);
    assert.match(await soap(facts, cookies, power("PowerOnVM_Task", vm)), /PowerOnVM_TaskResponse/);
    assert.match(await soap(facts, cookies, properties(vm, "runtime.powerState")), /poweredOn/);
    const startMs = systemClock.monotonicMs();
    await awaitLedger(place, machine, bootWaitMs);
    console.error(`boot to ledger: ${Math.round((systemClock.monotonicMs() - startMs) / 100) / 10} s`);
    const later = await ask<Ledger>(machine, "/");
    assert.notEqual(later.bootId, earlier.bootId);
    const verified = await ask<Verification>(machine, "/verify");
    assert.deepEqual({ missing: verified.missing, damaged: verified.damaged }, { missing: 0, damaged: 0 });
    assert.ok(verified.last >= earlier.last.sequence);
    const boots = verified.boots.map((boot) => boot.bootId);
    assert.deepEqual(boots.slice(-2), [earlier.bootId, later.bootId]);
    assert.equal((verified.boots.at(-2)?.last ?? 0) + 1, verified.boots.at(-1)?.first, "a number was skipped or used twice");
  });

  test("a clone has the same machine-id and another SMBIOS UUID, MAC and address", async () => {
    assert.equal(await ssh(clone, "cat /etc/machine-id"), await ssh(machine, "cat /etc/machine-id"));
    assert.equal(await ssh(clone, "cat /sys/class/dmi/id/product_uuid"), clone.smbiosUuid);
    assert.notEqual(clone.smbiosUuid, machine.smbiosUuid);
    assert.notEqual(clone.mac, machine.mac);
    assert.equal((await ask<Verification>(clone, "/verify")).damaged, 0);
  });

  test("machines on their own send no forbidden packet; a tried one is counted", async () => {
    assert.deepEqual((await forbiddenPackets(place)).byRule["onprem/between-ports"], 0);
    assert.equal(await total(prefix), 0);
    await ssh(machine, "timeout 3 bash -c '</dev/tcp/10.10.0.20/443' || true");
    assert.ok(((await forbiddenPackets(place)).byRule["onprem/input"] ?? 0) > 0, "source to vCenter");
    await ssh(machine, "timeout 3 bash -c '</dev/tcp/198.51.100.10/443' || true");
    assert.ok(((await forbiddenPackets(place)).byRule["onprem/between-ports"] ?? 0) > 0, "source past the site");
  });

  test("the image cannot boot on virtio as it is", { timeout: 600_000 }, async () => {
    const { image, accelerator } = facts;
    assert.ok(image !== undefined);
    const accel = accelerator === "kvm" ? ["-accel", "kvm", "-cpu", "host"] : ["-accel", "tcg,thread=multi", "-cpu", "max"];
    const serial = join(folder, "virtio.log");
    const overlay = join(folder, "virtio.qcow2");
    await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.rootDisk, overlay]);
    const hardware = [
      "-m",
      "1024",
      "-smp",
      "2",
      "-nodefaults",
      "-vga",
      "none",
      "-display",
      "none",
      "-drive",
      `file=${overlay},if=virtio,format=qcow2`,
    ];
    const child = spawn("qemu-system-x86_64", [...accel, ...hardware, "-serial", `file:${serial}`], { stdio: "ignore" });
    try {
      const log = async (): Promise<string> => await readFile(serial, "utf8").catch(() => "");
      await waitUntil("the guest's verdict", 400_000, async () => /Gave up waiting for root|login:/.test(await log()));
      assert.match(await log(), /Gave up waiting for root/);
    } finally {
      child.kill("SIGKILL");
    }
  });
});

describe("lab after a crash", { skip, timeout: 300_000 }, () => {
  const prefix = "wtrt3";
  after(async () => await labDown({ prefix }));

  test("kill -9 in the middle of up leaves nothing that down or the next up cannot remove", async () => {
    const script = `import { labUp } from ${JSON.stringify(join(import.meta.dirname, "../../lab/lab.ts"))}; await labUp({ prefix: "${prefix}", machines: [], progress: (text) => console.log(text) });`;
    for (const seen of ["zones", "names", "up after"]) {
      const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.stdout.on("data", (text: Buffer) => {
        if (text.toString().includes(seen)) child.kill("SIGKILL");
      });
      await ended;
    }
    assert.notDeepEqual(await leftovers({ prefix }), []);
    await labUp({ prefix, machines: [] });
    assert.equal((await labStatus({ prefix })).state, "up");
    await labDown({ prefix });
    assert.deepEqual(await leftovers({ prefix }), []);
    assert.equal((await labStatus({ prefix })).state, "down");
    await labDown({ prefix });
    const names = (await tryCommand("ip", ["netns", "list"])).stdout;
    assert.ok(!names.includes(`${prefix}-`));
  });
});
