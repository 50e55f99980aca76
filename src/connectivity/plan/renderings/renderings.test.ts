// Promises of the renderings: the real programs read them, and answer or go where the plan says.

import assert from "node:assert/strict";
import { Resolver } from "node:dns/promises";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import fc from "fast-check";
import { runCommand, tryCommand } from "../../../base/run-command.ts";
import { decide } from "../../decision.ts";
import { freeUdpPort, skipUnless, startProgram, withFreePort } from "../../test-network.ts";
import { parseTopology } from "../../topology.ts";
import { topologyOf } from "../matrix.ts";
import { planSchema } from "../plan-document.ts";
import { anyPlan, inputOf, wholePlan } from "../test-plans.ts";
import { findFormat, formats } from "./formats.ts";
import { placedNames, type RenderInput } from "./rendering.ts";

async function folderFor(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "watari-render-"));
  context.after(async () => await rm(folder, { recursive: true, force: true }));
  return folder;
}

async function write(folder: string, form: string, input: RenderInput): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true });
  const paths: string[] = [];
  for (const { name, bytes } of findFormat(form).render(input).files) {
    paths.push(join(folder, name));
    await writeFile(join(folder, name), bytes, { mode: 0o644 });
  }
  return paths;
}

function textOf(form: string, input: RenderInput): string {
  return new TextDecoder().decode(findFormat(form).render(input).files[0]?.bytes);
}

async function answersOf(port: number, names: readonly string[]): Promise<Record<string, string>> {
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  resolver.setServers([`127.0.0.1:${port}`]);
  const answers: Record<string, string> = {};
  for (const name of names)
    answers[name] = await resolver.resolve4(name).then(
      (addresses) => addresses.join(" "),
      (error: unknown) => (error instanceof Error && "code" in error ? String(error.code) : String(error)),
    );
  return answers;
}

/** Debian's own: its packages are not seen by any other Python that may come first. */
const debianPython = "/usr/bin/python3";

/** What a rendering of the proxy must say of a host. */
function goesDirectly({ plan, role }: RenderInput, host: string): boolean {
  const { kind } = decide(parseTopology(topologyOf(plan, role)), host);
  return kind === "private" || kind === "site";
}

const input = inputOf(wholePlan);
const expected = Object.fromEntries(placedNames(input.matrix.endpoints).map(({ name, address }) => [name, address]));
const absent = "4711-asr-pod01-zzz9.jpe.privatelink.siterecovery.watari.test";
const asked = [...Object.keys(expected), absent];

test("every form of every plan can be written", () => {
  fc.assert(
    fc.property(anyPlan, fc.constantFrom("records", "forward"), (document, dnsMode) => {
      for (const { render } of formats) {
        const { files } = render(inputOf(document, "agent", dnsMode));
        for (const { name } of files) assert.doesNotMatch(name, /[/\\]/);
      }
    }),
    { numRuns: 30 },
  );
});

test("BIND reads its zones and its configuration", { skip: skipUnless("named-checkzone", "named-checkconf") }, async (context) => {
  const folder = await folderFor(context);
  for (const path of await write(folder, "bind", input)) {
    const zone = /\/db\.(.*)$/.exec(path)?.[1];
    if (zone === undefined) await runCommand("named-checkconf", [path]);
    else assert.match((await runCommand("named-checkzone", ["-D", zone, path])).stdout, /IN A/);
  }
  const [forwarders = ""] = await write(folder, "bind", { ...input, dnsMode: "forward" });
  await runCommand("named-checkconf", [forwarders]);
});

test("unbound answers the private names and no other of their zones", { skip: skipUnless("unbound") }, async (context) => {
  const folder = await folderFor(context);
  const [part = ""] = await write(folder, "unbound", input);
  await using server = await withFreePort(freeUdpPort, async (port) => {
    const main = join(folder, "unbound.conf");
    const settings = [`port: ${port}`, "interface: 127.0.0.1", `username: ""`, `chroot: ""`, `directory: "${folder}"`, `pidfile: ""`];
    const lines = ["server:", ...settings, "use-syslog: no", "verbosity: 1", "do-daemonize: no", "private-address: 10.0.0.0/8"];
    await writeFile(main, `${lines.join("\n")}\ninclude: "${part}"\nremote-control:\n control-enable: no\n`);
    await runCommand("unbound-checkconf", [main]);
    return await startProgram("unbound", ["-d", "-c", main], /start of service/);
  });
  assert.deepEqual(await answersOf(server.port, asked), { ...expected, [absent]: "ENOTFOUND" });
});

test("dnsmasq answers the private names and no other of their zones", { skip: skipUnless("dnsmasq") }, async (context) => {
  const folder = await folderFor(context);
  const [part = ""] = await write(folder, "dnsmasq", input);
  await using server = await withFreePort(freeUdpPort, async (port) => {
    const fixed = ["--keep-in-foreground", `--conf-file=${part}`, "--no-resolv", "--no-hosts", "--bind-interfaces", "--log-facility=-"];
    return await startProgram("dnsmasq", [...fixed, "--listen-address=127.0.0.1", `--port=${port}`], /started, version/);
  });
  assert.deepEqual(await answersOf(server.port, asked), { ...expected, [absent]: "ENOTFOUND" });
  const [forwarders = ""] = await write(join(folder, "forward"), "dnsmasq", { ...input, dnsMode: "forward" });
  await runCommand("dnsmasq", ["--test", `--conf-file=${forwarders}`]);
});

test(
  "dnsmasq and unbound forward the private zones to the resolver that knows them",
  { skip: skipUnless("dnsmasq", "unbound") },
  async (context) => {
    const folder = await folderFor(context);
    const [known = ""] = await write(folder, "dnsmasq", input);
    await using landing = await withFreePort(freeUdpPort, async (port) => {
      const fixed = ["--keep-in-foreground", `--conf-file=${known}`, "--no-resolv", "--no-hosts", "--bind-interfaces", "--log-facility=-"];
      return await startProgram("dnsmasq", [...fixed, "--listen-address=127.0.0.1", `--port=${port}`], /started, version/);
    });
    const forward = textOf("unbound", { ...input, dnsMode: "forward" }).replaceAll("10.200.0.53", `127.0.0.1@${landing.port}`);
    await using server = await withFreePort(freeUdpPort, async (port) => {
      const main = join(folder, "forward.conf");
      const settings = [`port: ${port}`, "interface: 127.0.0.1", `username: ""`, `chroot: ""`, `directory: "${folder}"`, `pidfile: ""`];
      const lines = ["server:", ...settings, "use-syslog: no", "verbosity: 1", "do-daemonize: no", "do-not-query-localhost: no"];
      await writeFile(main, `${lines.join("\n")}\nprivate-address: 10.0.0.0/8\n${forward}\nremote-control:\n control-enable: no\n`);
      return await startProgram("unbound", ["-d", "-c", main], /start of service/);
    });
    assert.deepEqual(await answersOf(server.port, asked), { ...expected, [absent]: "ENOTFOUND" });
  },
);

test("a browser's PAC engine sends every name by the way that the plan decides", { skip: skipUnless("python3") }, async (context) => {
  const folder = await folderFor(context);
  if ((await tryCommand(debianPython, ["-c", "import pacparser"])).exitCode !== 0) {
    context.skip("not installed: python3-pacparser");
    return;
  }
  const program =
    "import json,pacparser,sys\npacparser.init()\npacparser.parse_pac_file(sys.argv[1])\n" +
    "print(json.dumps({h: pacparser.find_proxy('https://'+h+'/', h) for h in json.load(sys.stdin)}))";
  for (const [index, document] of [wholePlan, ...fc.sample(anyPlan, { numRuns: 12, seed: 4711 })].entries()) {
    const each = inputOf(document);
    const [path = ""] = await write(join(folder, String(index)), "pac", each);
    const hosts = each.matrix.cells.map(({ endpoint }) => (endpoint.name.startsWith(".") ? `any${endpoint.name}` : endpoint.name));
    const questions = [
      ...hosts.filter((host) => !host.includes(" ")),
      "elsewhere.example.test",
      "10.200.0.77",
      "203.0.113.9",
      "UPPER.watari.test",
    ];
    const { stdout } = await runCommand(debianPython, ["-c", program, path], { stdin: JSON.stringify(questions) });
    const ways = JSON.parse(stdout) as Record<string, string>;
    const hasProxy = each.plan.zones[each.role.zone]?.proxy !== undefined;
    for (const host of questions)
      assert.equal(ways[host]?.startsWith("DIRECT"), goesDirectly(each, host) || !hasProxy, `${host}: ${ways[host]}`);
  }
});

test("squid reads the allow list, which holds public names only", { skip: skipUnless("squid") }, async (context) => {
  const folder = await folderFor(context);
  for (const [index, document] of [wholePlan, ...fc.sample(anyPlan, { numRuns: 5, seed: 7 })].entries()) {
    const each = inputOf(document);
    const [part = ""] = await write(join(folder, String(index)), "squid", each);
    const main = join(folder, `${index}.conf`);
    await writeFile(main, `http_port 127.0.0.1:3128\ninclude ${part}\nhttp_access deny all\ncoredump_dir ${folder}\n`);
    const parsed = await runCommand("squid", ["-k", "parse", "-f", main]);
    assert.doesNotMatch(parsed.stderr, /WARNING|ERROR|FATAL/);
    const allowed = textOf("squid", each)
      .split("\n")
      .filter((line) => line.startsWith("acl watari_names"))
      .join(" ");
    for (const { name } of placedNames(each.matrix.endpoints)) assert.ok(!allowed.split(" ").includes(name), name);
  }
});

test("nft reads the packet filter", { skip: skipUnless("nft") }, async (context) => {
  const folder = await folderFor(context);
  for (const [index, document] of [wholePlan, ...fc.sample(anyPlan, { numRuns: 5, seed: 11 })].entries()) {
    const [path = ""] = await write(join(folder, String(index)), "nftables", inputOf(document));
    await runCommand("nft", ["-c", "-f", path]);
  }
});

test("systemd and apt read the proxy and its exceptions", { skip: skipUnless("systemd-analyze", "apt-config") }, async (context) => {
  const folder = await folderFor(context);
  const [dropIn = ""] = await write(join(folder, "watari-test.service.d"), "systemd", input);
  await writeFile(join(folder, "watari-test.service"), "[Service]\nExecStart=/bin/true\n");
  const verified = await tryCommand("systemd-analyze", ["verify", "--man=no", join(folder, "watari-test.service")], {
    env: { SYSTEMD_UNIT_PATH: `${folder}:` },
  });
  assert.doesNotMatch(verified.stderr, new RegExp(`${dropIn}.*(Unknown|Invalid|Failed)`));
  const [aptFile = ""] = await write(folder, "apt", input);
  const { stdout } = await runCommand("apt-config", ["-c", aptFile, "dump"]);
  assert.match(stdout, /Acquire::https::Proxy "http:\/\/10\.10\.0\.1:3128";/);
  assert.match(stdout, /Acquire::https::Proxy::stwatari01\.blob\.watari\.test "DIRECT";/);
});

test("the registry file is UTF-16 for Windows, and holds the proxy and every private name", () => {
  const [file] = findFormat("registry").render(input).files;
  assert.deepEqual([...(file?.bytes.subarray(0, 2) ?? [])], [0xff, 0xfe]);
  const text = new TextDecoder("utf-16le").decode(file?.bytes);
  assert.match(
    text,
    /^Windows Registry Editor Version 5\.00\r\n\r\n\[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Azure Site Recovery\\ProxySettings\]\r\n/,
  );
  const bypass = /"ProxyBypassUrls"="([^"]*)"/.exec(text)?.[1]?.split(";") ?? [];
  for (const name of Object.keys(expected)) assert.ok(bypass.includes(name), name);
});

test("the request sheet is the plan's ways, one a row, in both forms", () => {
  const rows = textOf("firewall-csv", input).trimEnd().split("\r\n");
  const crossing = input.matrix.cells.filter(({ endpoint, role }) => endpoint.kind === "public" || endpoint.zone !== role.zone);
  const doors = input.matrix.roles.filter(({ zone, role }) => role !== "agent" && input.plan.zones[zone]?.proxy !== undefined);
  assert.equal(rows.length, 1 + crossing.length + doors.length);
  assert.equal(textOf("firewall-md", input).trimEnd().split("\n").length, rows.length + 1);
  assert.match(
    rows.join("\n"),
    /"appliance","10\.10\.0\.10","stwatari01\.blob\.watari\.test","10\.200\.0\.6","TCP","443","firewall","always"/,
  );
});

test("the committed schema is the program's", async () => {
  const committed = await readFile(new URL("../../../../docs/api/network-plan.schema.json", import.meta.url), "utf8");
  assert.deepEqual(JSON.parse(committed), JSON.parse(JSON.stringify(planSchema())));
});
