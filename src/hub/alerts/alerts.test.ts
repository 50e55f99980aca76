// Alerts as their operator meets them: the command line sets them up on a whole hub, and real events arrive as mails and posts.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, it } from "node:test";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { createAuthority, type Authority } from "../../connectivity/test-certificates.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import type { NewEvent } from "../db/events.ts";
import { codeOf, findFreePort, loopbackNetwork, openTestHub, type TestHub } from "../test-client.ts";
import { registerAlerts } from "./register.ts";
import { startMailReceiver, startPostReceiver, type MailReceiver, type PostReceiver } from "./test-receivers.ts";
import { trialLimits } from "./trial-outbox.ts";

let stateDir: string;
let authority: Authority;
let mail: MailReceiver;
let post: PostReceiver;
let test: TestHub;
let vault: string;
const password = "only-for-the-server";
before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-alerts-"));
  authority = await createAuthority();
  const certificate = await authority.issue(["localhost"]);
  mail = await startMailReceiver({
    certificate,
    options: {
      onAuth: (given, _session, answer) => (given.password === password ? answer(null, { user: "hub" }) : answer(new Error("no"))),
    },
  });
  post = await startPostReceiver(certificate);
  const addresses = ["127.0.0.0/8", "::1"];
  test = await openTestHub({
    ...{ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() },
    alerts: { allow: [mail.port, post.port].map((port) => ({ host: "localhost", port, addresses })) },
    environment: { extensions: [registerAlerts({ limits: trialLimits })] },
  });
  vault = `${test.groupPath}/providers/Microsoft.RecoveryServices/vaults/vault1`;
  await test.arm("PUT", test.groupPath, { location: "lab1" });
  assert.equal((await test.arm("PUT", vault, { location: "lab1", properties: {} })).status, 201);
  const profile = { ...test.operator, resourceGroup: "Move", location: "lab1", address: "127.0.0.1" };
  await writeFile(join(stateDir, "profile.json"), JSON.stringify(profile), { mode: 0o600 });
  await writeFile(join(stateDir, "password"), `${password}\n`);
  await writeFile(join(stateDir, "receivers.pem"), authority.caPem);
});
after(async () => {
  await test.hub[Symbol.asyncDispose]();
  await mail[Symbol.asyncDispose]();
  await post[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

async function watari(...args: readonly string[]): Promise<{ readonly code: number; readonly out: string; readonly told: string }> {
  const main = join(import.meta.dirname, "../../main.ts");
  const all = ["--disable-warning=ExperimentalWarning", main, "alert", ...args, "--profile", join(stateDir, "profile.json")];
  const child = spawn(process.execPath, all, { stdio: ["ignore", "pipe", "pipe"] });
  let [out, told] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString("utf8")));
  child.stderr.on("data", (chunk: Buffer) => (told += chunk.toString("utf8")));
  const [code] = (await once(child, "close")) as [number | null]; // Node's own event.
  return { code: code ?? -1, out, told };
}

async function until(isMet: () => boolean): Promise<void> {
  const endMs = systemClock.monotonicMs() + 60_000;
  while (!isMet()) {
    assert.ok(systemClock.monotonicMs() < endMs);
    await systemClock.sleep(20);
  }
}

const record = async (more: Partial<NewEvent>): Promise<boolean> =>
  await test.hub.services.events.record({
    ...{ vaultKey: vault.toLowerCase(), dedupKey: systemRandom.uuid(), code: "AgentSilent", kind: "AgentHealth", severity: "Critical" },
    ...{
      description: "the agent of web-01 has not been heard of",
      affected: { id: `${vault}/items/web-01`, name: "web-01" },
      component: "Agent",
    },
    ...more,
  });
const files = (): readonly string[] => ["--ca-file", join(stateDir, "receivers.pem")];
const secretShape = z.object({ signingSecret: z.string() });
let secret = "";

it("is set up and tried by the command line, and never shows a secret again", async () => {
  const server = ["--host", "localhost", "--port", String(mail.port), "--from", "watari@example.test", ...files()];
  const login = ["--user", "hub", "--password-file", join(stateDir, "password")];
  const setServer = await watari("set-mail-server", ...server, ...login);
  assert.equal(setServer.code, 0, setServer.told);
  assert.equal((await watari("set-email", "--vault", "vault1", "--to", "night@example.test", "--locale", "ja-JP")).code, 0);
  const url = `https://localhost:${post.port}/watari`;
  const added = await watari(
    "add-webhook",
    "desk",
    "--vault",
    "vault1",
    "--url",
    url,
    "--severity",
    "Critical",
    "Info",
    ...files(),
    "--json",
  );
  assert.equal(added.code, 0, added.told);
  secret = secretShape.parse(JSON.parse(added.out)).signingSecret;
  const tried = await watari("test", "--to", "night@example.test");
  assert.equal(tried.code, 0, tried.told + tried.out);
  assert.match(tried.out, /250/);
  assert.equal((await watari("test", "--vault", "vault1", "--webhook", "desk")).code, 0);
  assert.equal(z.object({ type: z.string() }).parse(JSON.parse(post.posts[0]?.body ?? "")).type, "watari.alerts.test.v1");
  const shown = await watari("show", "--vault", "vault1", "--json");
  assert.match(shown.out, /night@example\.test/);
  const all = JSON.stringify([await test.arm("GET", `${vault}/providers/Watari.Alerts/webhooks`), shown, setServer]);
  assert.ok(!all.includes(password) && !all.includes(secret.slice("whsec_".length)));
  post.answer = 500;
  const failed = await watari("test", "--vault", "vault1", "--webhook", "desk");
  assert.deepEqual([failed.code, /status\s+500/.test(failed.out)], [4, true], failed.out);
  post.answer = 204;
});

it("tells of an event by mail and by a post that its receiver can check", async () => {
  mail.mails.length = 0;
  post.posts.length = 0;
  await record({});
  await until(() => mail.mails.length > 0 && post.posts.length > 0);
  const [post1] = post.posts;
  const { "webhook-id": id, "webhook-timestamp": seconds, "webhook-signature": signature } = post1?.headers ?? {};
  const key = Buffer.from(secret.slice("whsec_".length), "base64");
  const expected = createHmac("sha256", key)
    .update(`${String(id)}.${String(seconds)}.${post1?.body ?? ""}`)
    .digest("base64");
  assert.equal(signature, `v1,${expected}`);
  const event = z
    .object({
      specversion: z.literal("1.0"),
      id: z.string(),
      source: z.string(),
      type: z.string(),
      time: z.iso.datetime(),
      subject: z.string(),
    })
    .and(z.object({ data: z.object({ count: z.literal(1), alerts: z.array(z.looseObject({ recommendedAction: z.string() })) }) }))
    .parse(JSON.parse(post1?.body ?? ""));
  assert.deepEqual([event.id, event.source, event.type], [id, vault, "watari.alerts.v1"]);
  assert.match(event.data.alerts[0]?.recommendedAction ?? "", /journalctl -u watari-agent/);
  const { text, subject } = readMail(mail.mails[0]?.raw ?? "");
  assert.equal(subject, "[Watari] [重大] マシンのエージェントからの応答がありません (web-01)");
  for (const part of ["web-01", "JST", "journalctl -u watari-agent", `${vault}/items/web-01`, "watari alert set-email"])
    assert.ok(text.includes(part), `${part}\n${text}`);
});

it("does not let a machine's name or a fault's text begin a header, a line or a second mail", async () => {
  mail.mails.length = 0;
  const evil = "web\r\nBcc: all@example.test\r\n\r\n.\r\nMAIL FROM:<x@example.test>";
  const fault = toReport(new Fault("Internal", `could not copy ${evil}`));
  const job = { jobId: systemRandom.uuid(), title: "migrate", state: "Failed" };
  await record({
    code: "UnplannedFailoverFailed",
    kind: "JobStatus",
    description: fault.message,
    fault,
    job,
    affected: { id: vault, name: evil },
  });
  await until(() => mail.mails.length > 0);
  const [sent] = mail.mails;
  assert.deepEqual(sent?.to, ["night@example.test"]);
  const { text, subject, headers } = readMail(sent.raw);
  assert.doesNotMatch(headers, /^bcc:/im);
  assert.match(subject, /^\[Watari\] \[重大\] 移行 \(web Bcc: all@example\.test/);
  assert.ok(!/^Bcc:/m.test(text) && !/^MAIL FROM/m.test(text), text);
  await until(() => mail.mails.length === 1);
});

it("refuses what the operator did not allow, and what could begin a header", async () => {
  const webhook = `${vault}/providers/Watari.Alerts/webhooks/other`;
  const put = async (properties: object, path = webhook) => codeOf(await test.arm("PUT", path, { properties }));
  assert.equal(await put({ url: "https://169.254.169.254/latest/meta-data" }), "AlertDestinationRefused");
  assert.equal(await put({ url: `http://localhost:${post.port}/` }), "AlertDestinationRefused");
  assert.equal(await put({ url: "https://localhost:1/" }), "AlertDestinationRefused");
  assert.equal(await put({ url: `https://user:pass@localhost:${post.port}/` }), "InputInvalid");
  const url = `https://localhost:${post.port}/`;
  assert.equal(await put({ url, signingSecret: "whsec_short" }), "InputInvalid");
  assert.equal(await put({ url, headers: { "x-y": "z" } }), "InputInvalid");
  assert.equal(await put({ url }, `${test.groupPath}/providers/Watari.Alerts/webhooks/other`), "InputInvalid");
  const server = `/subscriptions/${test.operator.subscriptionId}/providers/Watari.Alerts/mailServers/default`;
  const base = { host: "localhost", port: mail.port, from: "watari@example.test" };
  assert.equal(await put({ ...base, from: "a@example.test\r\nBcc: b@example.test" }, server), "InputInvalid");
  assert.equal(await put({ ...base, security: "none", user: "hub" }, server), "AlertDestinationRefused");
  assert.equal(await put({ ...base, host: "other.test" }, server), "AlertDestinationRefused");
  const setting = `${vault}/replicationAlertSettings/defaultAlertSetting`;
  assert.equal(await put({ customEmailAddresses: ["a@example.test\nBcc: b@example.test"] }, setting), "InputInvalid");
  assert.equal(await put({ locale: "ja\r\nBcc: b" }, setting), "InputInvalid");
});

it("forgets the mail server's password when it would go to another place", async () => {
  const server = `/subscriptions/${test.operator.subscriptionId}/providers/Watari.Alerts/mailServers/default`;
  const hasPassword = async (change: object): Promise<boolean> => {
    const answer = await test.arm("PATCH", server, { properties: change });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return z.object({ properties: z.object({ hasPassword: z.boolean() }) }).parse(answer.body).properties.hasPassword;
  };
  assert.equal(await hasPassword({ from: "other@example.test" }), true);
  assert.equal(await hasPassword({ port: post.port }), false);
  assert.equal(await hasPassword({ port: mail.port }), false);
  assert.equal(await hasPassword({ password }), true);
});

it("a message that was given up is shown with its reason, and sent again when asked to", async () => {
  post.answer = 400;
  post.posts.length = 0;
  await record({ severity: "Info", code: "TestFailoverSucceeded" });
  await until(() => post.posts.length > 0);
  const listed = async (): Promise<{ state: string; id: string }[]> => {
    const shape = z.array(z.object({ name: z.string(), properties: z.looseObject({ state: z.string(), channel: z.string() }) }));
    const { out } = await watari("deliveries", "--vault", "vault1", "--json");
    return shape
      .parse(JSON.parse(out))
      .filter(({ properties }) => properties.channel === "webhook")
      .map(({ name, properties }) => ({ state: properties.state, id: name }));
  };
  let [newest] = await listed();
  while (newest?.state === "Waiting") [newest] = await listed();
  assert.equal(newest?.state, "GivenUp");
  const text = (await watari("deliveries", "--vault", "vault1")).out;
  assert.match(text, /GivenUp.*could not send the message to the webhook/);
  post.answer = 204;
  assert.equal((await watari("resend", newest.id, "--vault", "vault1")).code, 0);
  await until(() => post.posts.length > 1);
  assert.equal(post.posts[1]?.body, post.posts[0]?.body);
  assert.equal((await watari("remove-webhook", "desk", "--vault", "vault1")).code, 0);
});

/** Enough of MIME for what nodemailer writes: encoded words, and one text in quoted-printable or base64. */
function readMail(raw: string): { readonly headers: string; readonly subject: string; readonly text: string } {
  const [headers = "", ...bodies] = raw.split("\r\n\r\n");
  const flat = headers.replaceAll(/\r\n[ \t]+/g, " ");
  const encoded = /^Subject: (.*)$/m.exec(flat)?.[1] ?? "";
  const words = encoded.replaceAll(/\?= +=\?/g, "?==?");
  const subject = words.replaceAll(/=\?UTF-8\?([QB])\?([^?]*)\?=/gi, (_all, way: string, text: string) =>
    way.toUpperCase() === "B" ? Buffer.from(text, "base64").toString("utf8") : decodeQuoted(text.replaceAll("_", " ")),
  );
  const body = bodies.join("\r\n\r\n");
  const text = /^Content-Transfer-Encoding: base64$/im.test(flat) ? Buffer.from(body, "base64").toString("utf8") : decodeQuoted(body);
  return { headers: flat, subject, text };
}

function decodeQuoted(text: string): string {
  const bytes = text
    .replaceAll(/=\r\n/g, "")
    .replaceAll(/=([0-9A-F]{2})/gi, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return Buffer.from(bytes, "latin1").toString("utf8");
}
