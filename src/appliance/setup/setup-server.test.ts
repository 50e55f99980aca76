// Promises of the set-up page's server: only who knows the password acts, in the one order there is, and nothing is lost.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Agent, request } from "undici";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { setupRoutes, type SetupRequest, type SetupResponse, type SetupRoute, type SetupState } from "../../contract/appliance-setup.ts";
import { setupSteps } from "../../contract/setup-steps.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import { callAppliance } from "../admin/admin-client.ts";
import { startApplianceHost, type ApplianceHost } from "../appliance-host.ts";
import { createStateFolder, parseApplianceConfig, saveConfig, type ApplianceConfigInput } from "../config/config.ts";
import { startFakeHub, type FakeHub } from "../testing/fake-hub.ts";
import { findSshServer, guestPassword, startSshGuest } from "../testing/ssh-guest.ts";
import { backlogOf, processServerMeasures } from "./components.ts";
import { parseHostsText, toHostsText } from "./hosts-text.ts";

interface Page extends AsyncDisposable {
  readonly folder: string;
  readonly host: ApplianceHost;
  readonly clock: { addMs: number };
  restart(): Promise<void>;
  newPassword(): Promise<string>;
  visitor(): Visitor;
}

interface Visitor {
  readonly headers: Record<string, string>;
  raw(
    path: string,
    options?: { body?: unknown; text?: string; headers?: Record<string, string>; method?: "GET" | "POST" },
  ): Promise<Answer>;
  call<Route extends SetupRoute>(route: Route, body: SetupRequest<Route>): Promise<SetupResponse<Route>>;
  signIn(password: string): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly text: string;
}

async function openPage(hub: FakeHub, over: Partial<ApplianceConfigInput> = {}): Promise<Page> {
  const folder = await mkdtemp(join(tmpdir(), "watari-setup-"));
  await createStateFolder(folder);
  const ports = { controlPort: 0, dataPort: 0, setupPort: 0, hubPort: hub.port };
  await saveConfig(folder, parseApplianceConfig({ listenAddresses: ["127.0.0.1"], ...ports, siteRanges: ["127.0.0.0/8"], ...over }));
  const clock = { ...systemClock, addMs: 0, monotonicMs: () => systemClock.monotonicMs() + clock.addMs };
  const start = async (): Promise<ApplianceHost> =>
    await startApplianceHost({
      ...{ stateFolder: folder, log: silentLog, clock },
      setupFiles: async () => await Promise.resolve({ entry: "main-1.js", scripts: new Map([["main-1.js", Buffer.from("1")]]) }),
      agentFiles: async () => await Promise.reject(new Error("this test installs no agent")),
    });
  let host = await start();
  const visitor = (): Visitor => createVisitor(() => host);
  return {
    folder,
    clock,
    get host() {
      return host;
    },
    restart: async () => {
      await host[Symbol.asyncDispose]();
      host = await start();
    },
    newPassword: async () => (await callAppliance(folder, "setupPassword", {})).password,
    visitor,
    [Symbol.asyncDispose]: async () => {
      await host[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function createVisitor(host: () => ApplianceHost): Visitor {
  const headers: Record<string, string> = {};
  const raw: Visitor["raw"] = async (path, { body = {}, text = JSON.stringify(body), headers: over = {}, method = "POST" } = {}) => {
    const port = host().setupListening[0]?.port ?? 0;
    await using cleanup = new AsyncDisposableStack();
    const dispatcher = new Agent({ connect: { ca: host().current.authority.caPem } });
    cleanup.defer(async () => await dispatcher.destroy());
    const all = { ...(method === "POST" ? { "content-type": "application/json" } : {}), ...headers, ...over };
    const response = await request(`https://127.0.0.1:${port}${path}`, {
      method,
      dispatcher,
      headers: all,
      ...(method === "POST" ? { body: text } : {}),
    });
    return { status: response.statusCode, headers: response.headers, text: await response.body.text() };
  };
  const call: Visitor["call"] = async (route, body) => {
    const answer = await raw(`/api/${route}`, { body });
    if (answer.status !== 200) throw new Error(`${faultReportShape.parse(JSON.parse(answer.text)).id}: ${answer.text}`);
    return setupRoutes[route].response.parse(JSON.parse(answer.text)) as SetupResponse<typeof route>;
  };
  return {
    headers,
    raw,
    call,
    signIn: async (password) => {
      const answer = await raw("/api/signIn", { body: { password } });
      assert.equal(answer.status, 200, answer.text);
      headers["cookie"] = String(answer.headers["set-cookie"]).split(";")[0] ?? "";
      headers["x-watari-token"] = setupRoutes.signIn.response.parse(JSON.parse(answer.text)).token;
    },
  };
}

const codeOf = ({ text }: Answer): string => faultReportShape.parse(JSON.parse(text)).id;
const currentOf = ({ steps }: SetupState): string | undefined => steps.find(({ status }) => status === "current")?.step;
const failedOf = ({ steps }: SetupState, step: string): readonly string[] =>
  (steps.find((each) => each.step === step)?.result?.checks ?? []).flatMap(({ id, verdict, repair }) =>
    verdict === "fail" && repair !== undefined && repair !== "" ? [id] : [],
  );

describe("the set-up page's server", () => {
  let hub: FakeHub;
  before(async () => {
    hub = await startFakeHub();
  });
  after(async () => await hub[Symbol.asyncDispose]());

  test("opens to its password alone, makes who guesses wait, and ends sessions with the password", async () => {
    await using page = await openPage(hub);
    const visitor = page.visitor();
    assert.equal(codeOf(await visitor.raw("/api/signIn", { body: { password: "x" } })), "NotFound", "there is none yet");
    const first = await page.newPassword();
    await visitor.signIn(first);
    assert.equal((await visitor.call("session", {})).isSignedIn, true);
    const state = await readFile(join(page.folder, "state.sqlite"), "latin1");
    assert.ok(!state.includes(first));
    const second = await page.newPassword();
    assert.equal((await visitor.call("session", {})).isSignedIn, false, "the session of the password before");
    assert.equal(codeOf(await visitor.raw("/api/state")), "Unauthorized");
    for (let wrong = 0; wrong < 5; wrong++)
      assert.equal(codeOf(await visitor.raw("/api/signIn", { body: { password: first } })), "Unauthorized");
    const refused = await visitor.raw("/api/signIn", { body: { password: second } });
    assert.equal(codeOf(refused), "TooManyRequests", "even the right one");
    page.clock.addMs += 1000 * Number(refused.headers["retry-after"]);
    await visitor.signIn(second);
    page.clock.addMs += 31 * 60_000;
    assert.equal(codeOf(await visitor.raw("/api/state")), "Unauthorized", "half an hour without a call");
    await visitor.signIn(second);
    await visitor.call("signOut", {});
    assert.equal(codeOf(await visitor.raw("/api/state")), "Unauthorized");
  });

  test("takes no call that does not come from its own page, and lets no page show it in a frame", async () => {
    await using page = await openPage(hub);
    const visitor = page.visitor();
    await visitor.signIn(await page.newPassword());
    for (const route of Object.keys(setupRoutes).filter((each) => each !== "session" && each !== "signIn")) {
      assert.equal(codeOf(await visitor.raw(`/api/${route}`, { headers: { "x-watari-token": "x" } })), "Forbidden", route);
      assert.equal(codeOf(await visitor.raw(`/api/${route}`, { headers: { cookie: "" } })), "Unauthorized", route);
    }
    assert.equal(codeOf(await visitor.raw("/api/state", { headers: { origin: "https://elsewhere.test" } })), "Forbidden");
    assert.equal((await visitor.raw("/api/state", { headers: { "content-type": "text/plain" } })).status, 415);
    assert.equal((await visitor.raw("/api/saveNames", { text: "x".repeat(600_000) })).status, 413);
    assert.equal(codeOf(await visitor.raw("/api/state", { body: { more: 1 } })), "InputInvalid");
    assert.equal((await visitor.raw("/api/state", { method: "GET" })).status, 404);
    const shown = await visitor.raw("/", { method: "GET" });
    const policy = String(shown.headers["content-security-policy"]);
    assert.match(policy, /default-src 'none'; script-src 'self'; style-src 'nonce-([\w-]+)'.*frame-ancestors 'none'/);
    assert.ok(!policy.includes("unsafe") && shown.text.includes(`nonce="${/nonce-([\w-]+)/.exec(policy)?.[1] ?? "?"}"`));
    assert.notEqual(String((await visitor.raw("/", { method: "GET" })).headers["content-security-policy"]), policy);
    for (const answer of [shown, await visitor.raw("/api/session"), await visitor.raw("/nothing", { method: "GET" })]) {
      assert.equal(answer.headers["x-frame-options"], "DENY");
      assert.equal(answer.headers["x-content-type-options"], "nosniff");
      assert.equal(answer.headers["strict-transport-security"], undefined);
    }
    assert.equal((await visitor.raw("/main-1.js", { method: "GET" })).text, "1");
    const signedIn = await visitor.raw("/api/signIn", { body: { password: await page.newPassword() } });
    assert.match(String(signedIn.headers["set-cookie"]), /^__Host-watari-setup=[\w-]{43}; Path=\/; Secure; HttpOnly; SameSite=Strict$/);
  });

  test("goes through all steps in their order, tells the hop that failed, and has lost nothing after a restart", async () => {
    await using page = await openPage(hub);
    const visitor = page.visitor();
    const password = await page.newPassword();
    await visitor.signIn(password);
    const first = await visitor.call("state", {});
    assert.deepEqual([first.steps.map(({ step }) => step), currentOf(first)], [setupSteps, "network"]);
    assert.equal(codeOf(await visitor.raw("/api/register")), "StateConflict", "a later step");
    const wish = { name: "site-a", listenAddresses: ["127.0.0.1"], advertiseAddress: "" };
    const elsewhere = await visitor.call("saveNetwork", { ...wish, listenAddresses: ["192.0.2.1"] });
    assert.deepEqual(
      [currentOf(elsewhere), elsewhere.network.listenAddresses],
      ["network", ["127.0.0.1"]],
      "the settings of before run on",
    );
    assert.ok(!(await readFile(join(page.folder, "config.json"), "utf8")).includes("192.0.2.1"), "nor is anything kept that cannot run");
    assert.deepEqual(failedOf(elsewhere, "network"), ["address 192.0.2.1/interface", "ports/listen"]);
    assert.equal(currentOf(await visitor.call("saveNetwork", wish)), "names");

    const registrationKey = JSON.stringify(hub.createKey());
    const secret = (JSON.parse(registrationKey) as { secret: string }).secret;
    const unknown = await visitor.call("saveNames", { dnsServers: ["127.0.0.1:9"], registrationKey });
    assert.equal(currentOf(unknown), "names");
    assert.ok(failedOf(unknown, "names").every((id) => id.endsWith("/dns")) && failedOf(unknown, "names").length > 0);
    assert.ok(!JSON.stringify(unknown).includes(secret));
    await page.restart();
    await visitor.signIn(password);
    assert.deepEqual(await visitor.call("state", {}).then(({ key, names, steps }) => [key?.keyId, names.dnsServers, steps]), [
      unknown.key?.keyId,
      ["127.0.0.1:9"],
      unknown.steps,
    ]);
    const hostsText = toHostsText(hub.hosts);
    assert.equal(currentOf(await visitor.call("saveNames", { dnsServers: [], hostsText })), "proxy");
    assert.ok((await visitor.call("hostsFile", {})).text.includes(`127.0.0.1 ${hub.hosts[0]?.name ?? "?"}`));
    assert.equal(currentOf(await visitor.call("saveProxy", { url: "", userName: "" })), "time");
    assert.equal(currentOf(await visitor.call("checkTime", {})), "registration");
    const registered = await visitor.call("register", {});
    assert.deepEqual([currentOf(registered), registered.registration?.vaultResourceId], ["vcenter", hub.createKey().vaultResourceId]);
    assert.ok(hub.registeredNames.includes("site-a"));
    assert.equal(page.host.current.facts.read("setupKey"), undefined, "a used key is not kept");
    assert.equal(currentOf(await visitor.call("skipVcenter", {})), "credentials");
    const account = { name: "guests", kind: "linux-password", userName: "root", privilege: "root", secret: "s3cret-word" } as const;
    assert.ok(!JSON.stringify(await visitor.call("addCredential", account)).includes("s3cret-word"));
    assert.equal(currentOf(await visitor.call("confirmCredentials", {})), "check");
    const done = await visitor.call("checkAll", {});
    assert.deepEqual([currentOf(done), done.isFinished, failedOf(done, "check")], [undefined, true, []]);
    const { components } = await visitor.call("components", {});
    assert.deepEqual([...new Set(components.map(({ kind }) => kind))], ["configurationServer", "processServer", "uploader"]);
  });

  test("a key of another time, a proxy that refuses and one that asks for a password are findings with a repair", async () => {
    const proxy = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (data) =>
        socket.end(
          /^proxy-authorization:/im.test(data.toString("latin1"))
            ? "HTTP/1.1 403 Forbidden\r\n\r\n"
            : "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
        ),
      );
    });
    await new Promise<void>((resolve) => void proxy.listen(0, "127.0.0.1", resolve));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(async () => await new Promise<void>((resolve) => void proxy.close(() => resolve())));
    const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    await using page = await openPage(hub);
    const visitor = page.visitor();
    await visitor.signIn(await page.newPassword());
    await visitor.call("saveNetwork", { name: "site-b", listenAddresses: ["127.0.0.1"], advertiseAddress: "" });
    const key = hub.createKey({ publicNames: ["management.watari.test"], expiresAt: toTimestamp(systemClock.nowMs() - 1000) });
    assert.equal(codeOf(await visitor.raw("/api/saveNames", { body: { dnsServers: [], registrationKey: "{}" } })), "InputInvalid");
    await visitor.call("saveNames", { dnsServers: [], hostsText: toHostsText(hub.hosts), registrationKey: JSON.stringify(key) });
    const codes: (string | undefined)[] = [];
    for (const login of [{ userName: "" }, { userName: "ann", password: "pr0xy-word" }, { userName: "ann" }]) {
      const state = await visitor.call("saveProxy", { url, ...login });
      assert.ok(!JSON.stringify(state).includes("pr0xy-word"));
      codes.push(state.steps.find(({ step }) => step === "proxy")?.result?.checks.find(({ verdict }) => verdict === "fail")?.fault?.id);
    }
    assert.deepEqual(codes, ["ProxyAuthRequired", "ProxyRefused", "ProxyRefused"]);
    assert.equal(
      codeOf(await visitor.raw("/api/saveProxy", { body: { url, userName: "ben" } })),
      "InputInvalid",
      "no password of this user is known",
    );
    proxy.close();
  });
});

const ssh = await findSshServer();

test("a guest account is tried where it will be used, and installs nothing", { skip: "missing" in ssh ? ssh.missing : false }, async () => {
  await using hub = await startFakeHub();
  await using guest = await startSshGuest("path" in ssh ? ssh.path : "");
  await using page = await openPage(hub, { sshPort: guest.port });
  const visitor = page.visitor();
  await visitor.signIn(await page.newPassword());
  await visitor.call("saveNetwork", { name: "site-c", listenAddresses: ["127.0.0.1"], advertiseAddress: "" });
  await visitor.call("saveNames", { dnsServers: [], hostsText: toHostsText(hub.hosts), registrationKey: JSON.stringify(hub.createKey()) });
  await visitor.call("saveProxy", { url: "", userName: "" });
  await visitor.call("checkTime", {});
  await visitor.call("register", {});
  await visitor.call("skipVcenter", {});
  const account = { kind: "linux-password", userName: "root", privilege: "root" } as const;
  await visitor.call("addCredential", { ...account, name: "right", secret: guestPassword });
  await visitor.call("addCredential", { ...account, name: "wrong", secret: "another" });
  const { machine } = await visitor.call("tryCredential", { credential: "right", address: "127.0.0.1" });
  assert.equal(machine, (await guest.inside("uname -n")).trim());
  assert.equal(
    codeOf(await visitor.raw("/api/tryCredential", { body: { credential: "wrong", address: "127.0.0.1" } })),
    "GuestPasswordWrong",
  );
  assert.equal((await visitor.call("state", {})).machineCount, 0);
});

describe("what the pages show", () => {
  test("hosts lines are read as a hosts file is, and wrong ones are named by their number", () => {
    const text = "127.0.0.1 localhost\r\n# remark\n10.200.0.4\tA.example  b.example # x\n10.200.0.5 a.example\n\nfd00::1 c.example\n";
    assert.deepEqual(parseHostsText(text), [
      { name: "a.example", addresses: ["10.200.0.4", "10.200.0.5"] },
      { name: "b.example", addresses: ["10.200.0.4"] },
      { name: "c.example", addresses: ["fd00::1"] },
    ]);
    assert.deepEqual(parseHostsText(toHostsText(parseHostsText(text))), parseHostsText(text));
    for (const wrong of ["10.0.0.300 a", "a.example 10.0.0.1", "10.0.0.1", "10.0.0.1 a_!b"])
      assert.throws(() => parseHostsText(`\n${wrong}`), { code: "InputInvalid" }, wrong);
  });

  test("measures are judged by the documented limits", () => {
    const figures = { cpuShare: 0.81, loadShare: 0.96, memoryBytes: 100, memoryAvailableBytes: 50, diskAvailableBytes: 1e12 };
    const levels = (spoolBytes: number): readonly string[] =>
      processServerMeasures(figures, { spoolBytes, spoolBytesMax: 100 }).map(({ level }) => level);
    assert.deepEqual(levels(71), ["warning", "critical", "healthy", "warning"]);
    assert.deepEqual([levels(70)[3], levels(76)[3]], ["healthy", "critical"]);
    const pending = (minutes: number): string => backlogOf(minutes * 60 * 2 ** 20, { uploadedBytesPerSecond: 2 ** 20 }).level;
    assert.deepEqual([pending(30), pending(31), pending(46)], ["healthy", "warning", "critical"]);
    assert.deepEqual(
      [backlogOf(1, { uploadedBytesPerSecond: 0 }).level, backlogOf(2 ** 30, { uploadedBytesPerSecond: 0 }).level],
      ["healthy", "critical"],
    );
  });
});
