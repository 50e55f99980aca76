// Consoles as clients meet them: a real emulator behind a real hub, over TLS and WebSocket; who may, who may not, and what ends a line.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { WebSocket } from "ws";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { runCommand } from "../../base/run-command.ts";
import { echoGreeting, echoMachineMissing } from "../../landing/qemu/echo-machine.ts";
import type { ConsoleLine } from "../../landing/target.ts";
import { allAudit } from "../db/audit-entries.ts";
import { openPrincipals } from "../db/principals.ts";
import { callTarget, codeOf, signIn, testDomain, type Answer } from "../test-client.ts";
import { openEchoHub, type EchoHub } from "../test-echo-hub.ts";
import { Consoles, consolesLimits } from "./consoles.ts";

const roles = "/providers/Microsoft.Authorization/roleDefinitions";
const reader = `${roles}/acdd72a7-3385-48ef-bd42-f606fba81ae7`;
const contributor = `${roles}/b24988ac-6180-42a0-ab88-20f7382dd24c`;
const otherOrigin = "https://novnc.example.com";
const mainFile = join(import.meta.dirname, "../../main.ts");
let stateDir = "";
let hub: EchoHub;
let machine = "";

const openedShape = z.object({ url: z.string(), pageUrl: z.string().optional(), subprotocols: z.array(z.string()), expiresAt: z.string() });

describe("a console through the hub", { skip: echoMachineMissing() ?? false }, () => {
  before(async () => {
    stateDir = await mkdtemp(join(tmpdir(), "wch-"));
    hub = await openEchoHub(stateDir, { consoleOrigins: [otherOrigin] });
    machine = hub.machine;
    assert.equal((await hub.arm("PUT", `${hub.groupPath}2`, { location: "lab1" })).status, 201);
    await hub.power("start");
  });
  after(async () => {
    await hub.power("powerOff?skipShutdown=true");
    await hub.hub[Symbol.asyncDispose]();
    await rm(stateDir, { recursive: true, force: true });
  });

  it("of the serial kind: what is typed comes back, a line that broke comes back with what was said, pages get the same", async () => {
    const opened = openedShape.parse((await openConsole({ kind: "serial" })).body);
    assert.match(opened.pageUrl ?? "", /^https:\/\/management\.[^?]*\/console#ticket=/);
    const first = await connect(opened.url, { protocol: "watari.v1" });
    await first.hear(echoGreeting);
    first.socket.send(Buffer.from("by bytes, "));
    first.socket.send("and by text");
    await first.hear(`${echoGreeting}by bytes, and by text`);
    const ticket = z
      .object({ kind: z.literal("ticket"), ticket: z.string(), access: z.literal("write") })
      .parse(JSON.parse(first.told[0] ?? ""));
    first.socket.terminate(); // As a network that breaks.
    const back = await connect(`${opened.url.split("?")[0] ?? ""}?ticket=${ticket.ticket}`, {});
    await back.hear(`${echoGreeting}by bytes, and by text`);
    assert.deepEqual(back.told, [], "without its own protocol a viewer gets bytes alone");
    await back.close();
    const page = await callTarget(hub.target(`management.${testDomain}`), { method: "GET", path: "/console" });
    assert.match(String(page.headers["content-security-policy"]), /default-src 'none'/);
    for (const [name, said] of [
      ["xterm.js", /Terminal/],
      ["xterm.css", /\.xterm/],
      ["console.js", /new Terminal/],
    ] as const)
      assert.match(
        String((await callTarget(hub.target(`management.${testDomain}`), { method: "GET", path: `/console/${name}` })).body),
        said,
      );
  });

  it("of the serial kind: many read, one writes, and another takes over", async () => {
    const writer = await connect(await urlOf({ kind: "serial" }), {});
    const readers = [
      await connect(await urlOf({ kind: "serial", access: "read" }), {}),
      await connect(await urlOf({ kind: "serial", access: "read" }), {}),
    ];
    writer.socket.send("to all");
    for (const each of [writer, ...readers]) await each.hear("to all", "anywhere");
    const [tooMuch, listener] = readers;
    tooMuch?.socket.send("x");
    assert.equal(await tooMuch?.closed, 4003);
    assert.equal(codeOf(await openConsole({ kind: "serial" })), "StateConflict");
    const next = await connect(await urlOf({ kind: "serial", takeOver: true }), {});
    assert.equal(await writer.closed, 4001);
    next.socket.send("by the next");
    await listener?.hear("by the next", "anywhere");
    await listener?.close();
    await next.close();
  });

  it("of the screen speaks RFB to viewers that offer binary", async () => {
    const viewer = await connect(await urlOf({ kind: "screen" }), { protocol: "binary" });
    await viewer.hear("RFB 003.008\n");
    viewer.socket.send(Buffer.from("RFB 003.008\n"));
    await viewer.hear("RFB 003.008\n\x01\x01");
    viewer.socket.send(Buffer.of(1));
    await viewer.hear("RFB 003.008\n\x01\x01\0\0\0\0");
    viewer.socket.send(Buffer.of(1));
    await viewer.hear("watari-echo", "anywhere");
    assert.equal(viewer.socket.protocol, "binary");
    await viewer.close();
    assert.equal(codeOf(await openConsole({ kind: "screen", access: "read" })), "InputInvalid");
  });

  it("is refused without the right, at another group, by a ticket that was used, for another kind, or of a foreign page", async () => {
    const nobody = await openPerson();
    const readsOnly = await openPerson();
    const elsewhere = await openPerson();
    await assign(hub.groupPath, readsOnly.principalId, reader);
    await assign(`${hub.groupPath}2`, elsewhere.principalId, contributor);
    for (const person of [nobody, readsOnly, elsewhere])
      assert.equal(codeOf(await person.call("POST", `${machine}/openConsole`, { kind: "serial" })), "Forbidden");
    const own = await openPerson();
    await assign(hub.groupPath, own.principalId, contributor);
    assert.equal((await own.call("POST", `${machine}/openConsole`, { kind: "serial" })).status, 200);
    const url = await urlOf({ kind: "serial", access: "read" });
    const host = new URL(url).host;
    const base = url.split("?")[0] ?? "";
    for (const [wrong, options, status] of [
      [base, {}, 401],
      [`${base}?ticket=${"A".repeat(43)}`, {}, 401],
      [url.replace("/serial", "/screen"), {}, 401],
      [url, {}, 401], // The one before has used it.
      [await urlOf({ kind: "serial", access: "read" }), { origin: "https://evil.example.com" }, 403],
      [await urlOf({ kind: "serial", access: "read" }), { origin: "null" }, 403],
      [base.replace("/consoles/serial", "/subscriptions"), {}, 401],
    ] as const)
      assert.equal(await refusalOf(wrong, options), status, wrong.replace(/ticket=.*/, "ticket=…"));
    for (const origin of [`https://${host}`, otherOrigin])
      await (await connect(await urlOf({ kind: "serial", access: "read" }), { origin })).close();
  });

  it("is what the command line shows: typed from a pipe, a picture, a local port for a viewer", async () => {
    const profile = join(stateDir, "profile.json");
    const { clientId, clientSecret, tenantId, subscriptionId, caPem } = hub.operator;
    const [managementUrl, loginUrl] = [hub.hub.managementUrl, hub.hub.loginUrl];
    const at = { managementUrl, loginUrl, tenantId, subscriptionId, caPem, address: "127.0.0.1" };
    await writeFile(profile, JSON.stringify({ ...at, clientId, clientSecret, resourceGroup: "Move", location: "lab1" }));
    const run = (...args: readonly string[]) => [mainFile, "landed", ...args, "--profile", profile];
    const said = await runCommand(process.execPath, run("console", "echo"), { stdin: "from a pipe\n" });
    assert.match(said.stdout, /from a pipe\n$/);
    const picture = join(stateDir, "screen.png");
    await runCommand(process.execPath, run("screen", "echo", "--out", picture));
    assert.equal((await readFile(picture)).subarray(0, 4).toString("latin1"), "\x89PNG");
    const viewing = spawn(process.execPath, run("screen", "echo", "--vnc-listen", "127.0.0.1:0", "--json"), {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [told] = (await once(viewing.stdout, "data")) as [Buffer];
    const { port } = z.object({ port: z.number() }).parse(JSON.parse(told.toString("utf8")));
    const viewer = connectTcp(port, "127.0.0.1");
    const [greeting] = (await once(viewer, "data")) as [Buffer];
    assert.equal(greeting.toString("latin1"), "RFB 003.008\n");
    viewer.destroy();
    viewing.kill("SIGTERM");
    assert.deepEqual(await once(viewing, "exit"), [0, null]);
  });

  it("is in the audit trail with its end, and ends when the machine stops", async () => {
    const line = await connect(await urlOf({ kind: "serial", access: "read" }), {});
    await hub.power("powerOff?skipShutdown=true");
    assert.equal(await line.closed, 4010);
    assert.equal(await refusalOf(await urlOf({ kind: "serial" }), {}), 409);
    await hub.power("start");
    const sessions: string[] = [];
    for await (const { entry } of allAudit(hub.hub.services.database.db)) if (/openConsole\/session/.test(entry)) sessions.push(entry);
    assert.ok(sessions.length > 8, "each session has its row");
    const text = await auditText();
    for (const outcome of [/4010 the machine stopped/, /4001 somebody else writes now/, /"StateConflict"/]) assert.match(text, outcome);
    assert.doesNotMatch(text, /ticket/);
  });
});

describe("limits of consoles", () => {
  const audit = { begin: async () => ({ end: async () => undefined }), deny: async () => undefined, note: async () => undefined };
  const parts = { clock: systemClock, random: systemRandom, log: silentLog, audit };
  const grantOf = (machineId: string, access: "read" | "write" = "read") => ({
    ...{ principalId: "p", principalName: "p", correlationId: "c", machineId, takesOver: false },
    wish: { kind: "serial", access } as const,
  });

  it("a ticket is good once, and only soon, and few wait", async () => {
    let nowMs = 0;
    await using consoles = new Consoles({ ...parts, clock: { ...systemClock, monotonicMs: () => nowMs } });
    const tickets = new Set(Array.from({ length: 1000 }, () => consoles.grant(grantOf("m")).ticket));
    assert.equal(tickets.size, 1000);
    assert.throws(() => consoles.grant(grantOf("m")), /too many wait/);
    nowMs += consolesLimits.ticketMs;
    const [old = ""] = tickets;
    await using place = await serve(consoles);
    assert.equal(await refusalOf(`${place.url}?ticket=${old}`, {}), 401);
  });

  it("a line ends when nothing comes or goes, and when its grant is over; a machine has so many and no more", async () => {
    await using idle = new Consoles(parts, { idleMs: 40, pingMs: 20, machineSessionsMax: 1 });
    idle.offer(async () => silentLine(), []);
    await using place = await serve(idle);
    const { ticket: second } = idle.grant(grantOf("m"));
    const first = await connect(`${place.url}?ticket=${idle.grant(grantOf("m")).ticket}`, {});
    assert.throws(() => idle.grant(grantOf("m")), /as many are open as may be/);
    assert.equal(await refusalOf(`${place.url}?ticket=${second}`, {}), 429);
    assert.equal(await first.closed, 4008);
    await using brief = new Consoles(parts, { grantMs: 60, pingMs: 20 });
    brief.offer(async () => silentLine(), []);
    await using other = await serve(brief);
    assert.equal(await (await connect(`${other.url}?ticket=${brief.grant(grantOf("m")).ticket}`, {})).closed, 4009);
  });

  it("a peer that does not read holds its own line up and nothing piles up for it; one that is gone is let go", async () => {
    await using consoles = new Consoles(parts, { pingMs: 50 });
    let pieceCount = 0;
    const chatty = async function* () {
      for (; pieceCount < 10_000; pieceCount++) yield Buffer.alloc(65_536);
    };
    const closed = Promise.withResolvers<void>();
    consoles.offer(
      async () => ({ output: chatty(), write: async () => undefined, [Symbol.asyncDispose]: async () => closed.resolve() }),
      [],
    );
    await using place = await serve(consoles);
    const peer = await connect(`${place.url}?ticket=${consoles.grant(grantOf("m")).ticket}`, {});
    peer.socket.pause(); // It answers no question either.
    await closed.promise;
    assert.ok(pieceCount < 1000, `${pieceCount} pieces of 64 KiB were read for a peer that takes none`);
    peer.socket.terminate();
  });
});

/** Says nothing until it is closed. */
function silentLine(): ConsoleLine {
  const over = Promise.withResolvers<void>();
  const output = async function* () {
    await over.promise;
    yield* [];
  };
  return { output: output(), write: async () => undefined, [Symbol.asyncDispose]: async () => over.resolve() };
}

async function serve(consoles: Consoles): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer();
  server.on("upgrade", (request, socket, head) => consoles.upgrade(request, socket, head));
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return {
    url: `ws://127.0.0.1:${address.port}/consoles/serial`,
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}

async function openConsole(wish: object): Promise<Answer> {
  return await hub.arm("POST", `${machine}/openConsole`, wish);
}

async function urlOf(wish: object): Promise<string> {
  const answer = await openConsole(wish);
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return openedShape.parse(answer.body).url;
}

interface Person {
  readonly principalId: string;
  call(method: string, path: string, body?: unknown): Promise<Answer>;
}

async function openPerson(): Promise<Person> {
  const [principalId, clientId, clientSecret] = [systemRandom.uuid(), systemRandom.uuid(), systemRandom.uuid()];
  const principals = openPrincipals({ db: hub.hub.services.database.db, clock: systemClock });
  await principals.add({ principalId, clientId, kind: "operator", name: "person" }, clientSecret);
  const token = await signIn(hub.target(`login.${testDomain}`), { tenantId: hub.operator.tenantId, clientId, clientSecret });
  const headers = { authorization: `Bearer ${token}` };
  const target = hub.target(`management.${testDomain}`);
  return {
    principalId,
    call: async (method, path, body) => await callTarget(target, { method, path: `${path}?api-version=2025-08-01`, body, headers }),
  };
}

async function assign(scope: string, principalId: string, roleDefinitionId: string): Promise<void> {
  const path = `${scope}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`;
  assert.equal((await hub.arm("PUT", path, { properties: { principalId, roleDefinitionId } })).status, 201);
}

async function auditText(): Promise<string> {
  const entries: string[] = [];
  for await (const { entry } of allAudit(hub.hub.services.database.db)) entries.push(entry);
  return entries.join("\n");
}

interface Peer {
  readonly socket: WebSocket;
  /** Text frames. */
  readonly told: readonly string[];
  /** The code with which the hub closed it. */
  readonly closed: Promise<number>;
  hear(text: string, where?: "whole" | "anywhere"): Promise<void>;
  close(): Promise<void>;
}

interface PeerOptions {
  readonly protocol?: string;
  readonly origin?: string;
}

function dial(url: string, { protocol, origin }: PeerOptions): WebSocket {
  if (url.startsWith("ws://")) return new WebSocket(url);
  const { address, port, ca } = hub.target(`management.${testDomain}`);
  const { pathname, search, hostname, host } = new URL(url);
  const headers = { host, ...(origin === undefined ? {} : { origin }) };
  const options = { ca, headers, servername: hostname };
  return new WebSocket(`wss://${address}:${port}${pathname}${search}`, protocol === undefined ? [] : [protocol], options);
}

async function connect(url: string, options: PeerOptions): Promise<Peer> {
  const socket = dial(url, options);
  const told: string[] = [];
  let said = "";
  let look = (): void => undefined;
  socket.on("message", (data: Buffer, isBinary) => {
    if (!isBinary) return void told.push(data.toString("utf8"));
    said += data.toString("latin1");
    look();
  });
  const closed = new Promise<number>((resolve) => void socket.once("close", resolve));
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  return {
    socket,
    told,
    closed,
    hear: async (text, where = "whole") => {
      const isIt = (): boolean => (where === "whole" ? said === text : said.includes(text));
      await new Promise<void>((resolve) => {
        look = () => void (isIt() && resolve());
        look();
      });
    },
    close: async () => {
      socket.close();
      await closed;
    },
  };
}

/** The HTTP status with which a line is refused. */
async function refusalOf(url: string, options: PeerOptions): Promise<number | undefined> {
  const socket = dial(url, options);
  socket.on("error", () => undefined);
  return await new Promise((resolve, reject) => {
    socket.once("unexpected-response", (_request, response) => resolve(response.statusCode));
    socket.once("open", () => reject(new Error(`${url} was opened`)));
  });
}
