// Promises of the console set-up: what it writes is what systemd takes, each failure names its repair, and nothing goes on after one.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { lstat, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { tryCommand } from "../../base/run-command.ts";
import { machineAddresses } from "../setup/setup-checks.ts";
import { parseAnswersFile, parseConsoleAnswers, type ConsoleAnswers } from "./console-answers.ts";
import { checkProxy } from "./console-checks.ts";
import { keepSettings, settleAll, startService, type ConsoleParts } from "./console-setup.ts";
import { changesFor, networkChanges } from "./machine-changes.ts";

const own = machineAddresses()[0] ?? { device: "lo", address: "127.0.0.1" };

let folder = "";
before(async () => void (folder = await mkdtemp(join(tmpdir(), "watari-console-"))));
after(async () => await rm(folder, { recursive: true, force: true }));

interface Recorded extends ConsoleParts {
  readonly calls: string[];
}

/** A machine whose files lie in a folder and whose tools say yes, but for those named. */
async function createMachine(refused: readonly string[] = []): Promise<Recorded> {
  const root = await mkdtemp(join(folder, "machine-"));
  const calls: string[] = [];
  const run = async (program: string, args: readonly string[]): Promise<{ exitCode: number; stdout: string; stderr: string }> => {
    const call = [program, ...args].join(" ");
    calls.push(call);
    if (program === "ip") return { exitCode: 0, stdout: `192.0.2.1 lladdr 02:00:00:00:00:01 REACHABLE`, stderr: "" };
    const isRefused = refused.some((each) => call.startsWith(each));
    return await Promise.resolve({ exitCode: isRefused ? 1 : 0, stdout: "", stderr: isRefused ? "Access denied" : "" });
  };
  return { calls, stateFolder: join(root, "state"), system: { root, run }, clock: systemClock, log: silentLog };
}

const answers = (over: object = {}): ConsoleAnswers =>
  parseConsoleAnswers({
    name: "site-osaka",
    network: { device: own.device, address: `${own.address}/24`, gateway: "192.0.2.1", dnsServers: ["192.0.2.53"] },
    timeServers: ["ntp.site.example"],
    ...over,
  });

async function startProxy(answer: string): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end(`HTTP/1.1 ${answer}\r\n\r\n`));
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => await new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}

describe("the console set-up", () => {
  test("changes the machine by systemd's own files and tools, in an order in which each can be done twice", async () => {
    const machine = await createMachine();
    const checks = await settleAll(answers(), machine);
    assert.deepEqual(
      checks.filter(({ verdict }) => verdict === "fail"),
      [],
    );
    const written = async (path: string): Promise<string> =>
      (await readFile(join(machine.system.root, path), "utf8")).replace(/^#.*\n/, "");
    assert.equal(
      await written("etc/systemd/network/05-watari.network"),
      `[Match]\nName=${own.device}\n\n[Network]\nAddress=${own.address}/24\nGateway=192.0.2.1\nDNS=192.0.2.53\nLLMNR=no\nMulticastDNS=no\n`,
    );
    assert.equal(await written("etc/resolv.conf"), "nameserver 192.0.2.53\n");
    assert.equal(await written("etc/systemd/timesyncd.conf.d/watari.conf"), "[Time]\nNTP=ntp.site.example\nFallbackNTP=\n");
    assert.deepEqual(machine.calls.slice(0, 3), [
      ...["hostnamectl set-hostname site-osaka", "timedatectl set-ntp true", "systemctl restart systemd-timesyncd.service"],
    ]);
    assert.ok(checks.some(({ id, answer }) => id === "gateway 192.0.2.1/link" && answer.includes("02:00:00:00:00:01")));
    const before = machine.calls.length;
    await settleAll(answers(), machine);
    assert.equal(machine.calls.length, 2 * before);
  });

  test("stops at the first thing that fails, with what to do, and has changed nothing after it", async () => {
    const machine = await createMachine(["timedatectl"]);
    const checks = await settleAll(answers(), machine);
    const failed = checks.at(-1);
    assert.deepEqual([failed?.verdict, failed?.tried], ["fail", "timedatectl set-ntp true"]);
    assert.match(failed?.repair ?? "", /as root run: timedatectl set-ntp true/);
    assert.equal(existsSync(join(machine.system.root, "etc/systemd/network")), false);
    const told = await settleAll(answers(), machine, "go on");
    assert.equal(told.filter(({ verdict }) => verdict === "fail").length, 1);
    assert.ok(existsSync(join(machine.system.root, "etc/systemd/network")), "a first boot goes on: what failed is for the set-up page");
  });

  test("leaves the resolvers to systemd-resolved where it keeps them", async () => {
    const machine = await createMachine();
    await mkdir(join(machine.system.root, "etc"), { recursive: true });
    await symlink("../run/systemd/resolve/stub-resolv.conf", join(machine.system.root, "etc/resolv.conf"));
    await settleAll(answers(), machine);
    assert.equal((await lstat(join(machine.system.root, "etc/resolv.conf"))).isSymbolicLink(), true);
  });

  test("does not fight over an interface with ifupdown", async () => {
    const machine = await createMachine();
    await mkdir(join(machine.system.root, "etc/network"), { recursive: true });
    await writeFile(join(machine.system.root, "etc/network/interfaces"), `auto lo ${own.device}\niface ${own.device} inet dhcp\n`);
    const failed = (await settleAll(answers(), machine)).at(-1);
    assert.deepEqual([failed?.id, failed?.verdict], [`${own.device}/keeper`, "fail"]);
    assert.match(failed?.repair ?? "", /ifdown/);
    assert.equal(existsSync(join(machine.system.root, "etc/systemd/network")), false);
  });

  test("tells a proxy that asks for a password from one that refuses a name, and one that is not there", async () => {
    const verdicts: string[] = [];
    for (const answer of ["407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x", "403 Forbidden"]) {
      await using proxy = await startProxy(answer);
      for (const tryName of [{}, { tryName: "public.example" }]) {
        const checks = await checkProxy({ url: proxy.url, ...tryName }, { dnsServers: [], password: undefined }, await createMachine());
        verdicts.push(checks.find(({ verdict }) => verdict === "fail")?.fault?.id ?? "pass");
      }
    }
    assert.deepEqual(verdicts, ["ProxyAuthRequired", "ProxyAuthRequired", "pass", "ProxyRefused"]);
    const [silent] = await checkProxy({ url: "http://127.0.0.1:1" }, { dnsServers: [], password: undefined }, await createMachine());
    assert.deepEqual([silent?.fault?.id, silent?.hop], ["ProxyUnreachable", "proxy"]);
  });

  test("keeps the appliance's settings over those of before, and a proxy's password in a file of its own", async () => {
    const { stateFolder, system, clock, calls } = await createMachine(["systemctl cat"]);
    const proxy = { url: "http://proxy.site.example:3128", userName: "ann" };
    const first = await keepSettings(answers({ proxy }), stateFolder, "pr0xy-word");
    assert.deepEqual(
      [first.name, first.listenAddresses, first.dnsServers, first.setupPort],
      ["site-osaka", [own.address], ["192.0.2.53"], 44_315],
    );
    assert.ok(!(await readFile(join(stateFolder, "config.json"), "utf8")).includes("pr0xy-word"));
    const file = first.proxyCredentialsFile ?? "";
    assert.deepEqual([await readFile(file, "utf8"), (await stat(file)).mode & 0o777], ["ann:pr0xy-word\n", 0o600]);
    const second = await keepSettings(parseConsoleAnswers({ name: "site-kobe" }), stateFolder);
    assert.deepEqual({ ...second, name: "site-osaka" }, first);
    await keepSettings(parseConsoleAnswers({ name: "site-kobe", listenAddresses: ["192.0.2.77"] }), stateFolder);
    const moved = await keepSettings(parseConsoleAnswers({ name: "site-kobe" }), stateFolder).catch((error: unknown) => error);
    assert.ok(!JSON.stringify(moved).includes("192.0.2.77"), "an address that is gone is not kept");
    assert.equal(await startService(stateFolder, system, clock), undefined, "no package, no service");
    assert.deepEqual(calls, ["systemctl cat watari-appliance.service"]);
  });

  test("refuses answers that are not right, naming each", () => {
    const wrong: readonly (readonly [string, RegExp])[] = [
      ["name: -a", /name/],
      ["name: a\nnetwork: { device: eth0, address: 10.1.0.5 }", /network.address/],
      ["name: a\nnetwork: { device: eth0, address: 10.1.0.5/33 }", /network.address/],
      ["name: a\nnetwork: { device: 'eth0\\nDHCP=yes' }", /network.device/],
      ["name: a\ntimeServers: ['a b']", /timeServers/],
      ["name: a\nproxy: { url: 'ftp://x' }", /proxy.url/],
      ["name: a\nmore: 1", /more/],
      ["name: [", /not YAML/],
    ];
    for (const [text, told] of wrong) {
      assert.throws(
        () => parseAnswersFile(text),
        (error: unknown) => error instanceof Error && told.test(`${error.message} ${JSON.stringify(error)}`),
        text,
      );
    }
    assert.deepEqual(changesFor(parseAnswersFile("name: a")), [
      { kind: "run", program: "hostnamectl", args: ["set-hostname", "a"], why: "the machine's name" },
    ]);
  });
});

const networkd = "/lib/systemd/systemd-networkd";
const canIsolate =
  existsSync(networkd) &&
  process.getuid?.() === 0 &&
  (await tryCommand("unshare", ["-n", "-m", "true"]).catch(() => undefined))?.exitCode === 0;

/** In a network of its own with systemd's files out of sight, on a link whose far end is the gateway, in another network. */
const script = `set -e
mount -t tmpfs tmpfs /etc/systemd/network
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network:systemd-network /run/systemd/netif
mount --bind -o ro /sys /sys && mount -o remount,bind,ro /sys
cat > /etc/systemd/network/05-watari.network
unshare -n sleep 30 & gateway=$!
until [ "$(readlink /proc/$gateway/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add eth7 type veth peer name far netns $gateway
nsenter -t $gateway -n ip addr add 192.0.2.1/24 dev far
nsenter -t $gateway -n ip link set far up
${networkd} & pid=$!
for turn in $(seq 1 100); do ip route show default | grep -q 192.0.2.1 && break; sleep 0.1; done
ip -4 -br addr show eth7; ip route show default
bash -c 'echo > "/dev/udp/$0/9"' 192.0.2.1
for turn in $(seq 1 50); do ip neigh show 192.0.2.1 dev eth7 | grep lladdr && break; sleep 0.1; done
kill $pid $gateway`;

test(
  "systemd-networkd itself gives a link the address and gateway of the answers",
  { skip: canIsolate ? false : "needs root, namespaces and systemd-networkd" },
  async () => {
    const { network } = parseConsoleAnswers({ name: "a", network: { device: "eth7", address: "192.0.2.10/24", gateway: "192.0.2.1" } });
    assert.ok(network !== undefined);
    const file = networkChanges(network).find((change) => change.kind === "file");
    const { stdout, stderr } = await tryCommand("unshare", ["-n", "-m", "--propagation", "private", "sh", "-c", script], {
      stdin: file?.text ?? "",
      timeoutMs: 30_000,
    });
    assert.match(stdout, /192\.0\.2\.10\/24/, stderr);
    assert.match(stdout, /default via 192\.0\.2\.1 dev eth7/, stderr);
    assert.match(stdout, /lladdr [0-9a-f:]{17}/, "the datagram makes the kernel ask for the gateway");
  },
);
