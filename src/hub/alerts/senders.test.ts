// Mails and webhooks against real servers: what is sent, what is refused, and what each failure of a receiver comes to.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer as createTcpServer } from "node:net";
import { before, describe, it } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { createAuthority, type Authority, type Leaf } from "../../connectivity/test-certificates.ts";
import { Fault } from "../../contract/errors.ts";
import type { AlertsConfig, AllowedDestination } from "./alerts-config.ts";
import type { Delivery } from "./delivery.ts";
import { createDestinations } from "./destinations.ts";
import { sendMail, type Mail, type MailServer } from "./mail-sender.ts";
import { listen, startMailReceiver, startPostReceiver, stop, type MailReceiver } from "./test-receivers.ts";
import { postWebhook, type WebhookPlace } from "./webhook-sender.ts";

let authority: Authority;
let certificate: Leaf;
before(async () => {
  authority = await createAuthority();
  certificate = await authority.issue(["localhost"]);
});

const loopback = ["127.0.0.0/8", "::1/128"];
const allow = (...ports: readonly number[]): AlertsConfig => ({
  allow: ports.map((port): AllowedDestination => ({ host: "localhost", port, addresses: loopback, plain: false })),
});
const worldOf = (config: AlertsConfig) => ({ destinations: createDestinations(config), clock: systemClock });
const within = (waitMs: number): AbortSignal => AbortSignal.timeout(waitMs);

function faultOf(delivery: Delivery): Fault {
  assert.equal(delivery.kind, "failed", JSON.stringify(delivery));
  return delivery.fault;
}

describe("a mail", () => {
  const serverAt = (port: number, more: Partial<MailServer> = {}): MailServer => ({
    ...{ host: "localhost", port, security: "starttls", from: "watari@example.test", caPem: authority.caPem },
    ...more,
  });
  const mailTo = (...to: readonly string[]): Mail => ({
    to: to.length === 0 ? ["night@example.test"] : to,
    content: { subject: "[Watari] 重大 web-01", text: "one\n.\nfrom here\n" },
    messageId: "<one@watari.test>",
    atMs: 1_700_000_000_000,
  });
  const send = async (receiver: Pick<MailReceiver, "port">, server: Partial<MailServer> = {}, mail: Mail = mailTo()): Promise<Delivery> =>
    await sendMail(worldOf(allow(receiver.port)), serverAt(receiver.port, server), mail, within(10_000));

  it("goes over STARTTLS and over TLS, signed in, whole", async () => {
    for (const security of ["starttls", "tls"] as const) {
      await using receiver = await startMailReceiver({
        certificate,
        secure: security === "tls",
        options: {
          authOptional: false,
          onAuth: (given, _session, callback) =>
            given.username === "hub" && given.password === "pass" ? callback(null, { user: "hub" }) : callback(new Error("no")),
        },
      });
      const delivery = await send(receiver, { security, login: { user: "hub", password: "pass" } });
      assert.equal(delivery.kind, "sent", JSON.stringify(delivery));
      const [mail] = receiver.mails;
      assert.deepEqual([mail?.from, mail?.to, mail?.isSecure, mail?.user], ["watari@example.test", ["night@example.test"], true, "hub"]);
      assert.match(mail?.raw ?? "", /^Message-ID: <one@watari\.test>\r$/m);
      assert.match(mail?.raw ?? "", /^Date: Tue, 14 Nov 2023 22:13:20 \+0000\r$/m);
      assert.match(mail?.raw ?? "", /^Auto-Submitted: auto-generated\r$/m);
      assert.match(mail?.raw ?? "", /\r\n\r\none\r\n\.\r\nfrom here\r\n/);
      const wrong = faultOf(await send(receiver, { security, login: { user: "hub", password: "wrong" } }));
      assert.deepEqual([wrong.code, wrong.retry], ["AlertNotSent", "later"]);
      assert.ok(!JSON.stringify(wrong.evidence).includes("wrong"));
    }
  });

  it("is not sent to a server with a certificate for another name, of another authority, or without TLS", async () => {
    const other = await authority.issue(["other.test"]);
    const stranger = await (await createAuthority("stranger")).issue(["localhost"]);
    for (const wrong of [other, stranger])
      for (const security of ["starttls", "tls"] as const) {
        await using receiver = await startMailReceiver({ certificate: wrong, secure: security === "tls" });
        faultOf(await send(receiver, { security, login: { user: "hub", password: "pass" } }));
        assert.equal(receiver.mails.length, 0);
      }
    await using plain = await startMailReceiver({ certificate, options: { disabledCommands: ["STARTTLS"], hideSTARTTLS: true } });
    faultOf(await send(plain));
    faultOf(await send(plain, { security: "none" })); // The operator did not allow it.
    assert.equal(plain.mails.length, 0);
  });

  it("does not sign in where nobody asks for it", async () => {
    await using receiver = await startMailReceiver({ certificate, options: { disabledCommands: ["AUTH"] } });
    faultOf(await send(receiver, { login: { user: "hub", password: "pass" } }));
    assert.equal(receiver.mails.length, 0);
  });

  it("fails for good, or for now, as the server says", async () => {
    for (const [code, retry] of [
      [550, "never"],
      [452, "later"],
    ] as const) {
      await using receiver = await startMailReceiver({ certificate, refuse: () => ({ code, text: "no\r\nRCPT TO:<x>" }) });
      const fault = faultOf(await send(receiver));
      assert.deepEqual([fault.code, fault.retry, fault.evidence["responseCode"]], ["AlertNotSent", retry, code]);
      assert.doesNotMatch(String(fault.evidence["reason"]), /[\r\n]/);
    }
  });

  it("tells who has it when another recipient is refused for now, and counts one refused for good as told", async () => {
    const codes: Record<string, number> = { "later@example.test": 451, "never@example.test": 550 };
    await using receiver = await startMailReceiver({
      certificate,
      options: {
        onRcptTo: ({ address }, _session, callback) => {
          const responseCode = codes[address];
          callback(responseCode === undefined ? undefined : Object.assign(new Error("no"), { responseCode }));
        },
      },
    });
    const deferred = await send(receiver, {}, mailTo("night@example.test", "later@example.test"));
    assert.equal(faultOf(deferred).retry, "later");
    assert.deepEqual(deferred.kind === "failed" ? deferred.accepted : [], ["night@example.test"]);
    const told = await send(receiver, {}, mailTo("night@example.test", "never@example.test"));
    assert.equal(told.kind, "sent");
  });

  it("gives up in time on a server that says nothing, and fails at once on one that closes", async () => {
    const silent = createTcpServer();
    const closing = createTcpServer((socket) => void socket.end("220 localhost\r\n"));
    const ports = [await listen(silent), await listen(closing)];
    const world = worldOf(allow(...ports));
    for (const [index, port] of ports.entries()) {
      const startedMs = systemClock.monotonicMs();
      const fault = faultOf(await sendMail(world, serverAt(port), mailTo(), within(index === 0 ? 300 : 10_000)));
      assert.equal(fault.retry, "later");
      assert.ok(systemClock.monotonicMs() - startedMs < 5000);
    }
    await stop(silent);
    await stop(closing);
  });
});

describe("a webhook", () => {
  const secret = systemRandom.bytes(32);
  const message = { messageId: systemRandom.uuid(), body: '{"specversion":"1.0","id":"é"}' };
  const place = (port: number, more: Partial<WebhookPlace> = {}): WebhookPlace => ({
    ...{ url: `https://localhost:${port}/in?team=night`, caPem: authority.caPem, secret },
    ...more,
  });

  it("is signed so that a receiver can prove sender, time and bytes", async () => {
    await using receiver = await startPostReceiver(certificate);
    const delivery = await postWebhook(worldOf(allow(receiver.port)), place(receiver.port), message, within(10_000));
    assert.equal(delivery.kind, "sent", JSON.stringify(delivery));
    const [post] = receiver.posts;
    assert.equal(post?.body, message.body);
    assert.equal(post?.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    const { "webhook-id": id, "webhook-timestamp": seconds } = post?.headers ?? {};
    assert.equal(id, message.messageId);
    assert.ok(Math.abs(Number(seconds) - systemClock.nowMs() / 1000) < 60);
    const expected = createHmac("sha256", secret)
      .update(`${id}.${String(seconds)}.${message.body}`)
      .digest("base64");
    assert.equal(post?.headers["webhook-signature"], `v1,${expected}`);
  });

  it("fails for good or for now by the status, follows no redirect, and shows nothing of the answer", async () => {
    await using receiver = await startPostReceiver(certificate);
    const world = worldOf(allow(receiver.port));
    for (const [status, retry] of [
      [302, "never"],
      [400, "never"],
      [410, "never"],
      [429, "later"],
      [500, "later"],
      [503, "later"],
    ] as const) {
      receiver.answer = status;
      receiver.headers["retry-after"] = "120";
      receiver.headers["location"] = `https://localhost:${receiver.port}/other`;
      const delivery = await postWebhook(world, place(receiver.port), message, within(10_000));
      const fault = faultOf(delivery);
      assert.deepEqual([fault.retry, fault.evidence["status"]], [retry, status]);
      assert.equal(delivery.kind === "failed" ? delivery.waitMs : 0, retry === "later" ? 120_000 : undefined);
      assert.ok(!JSON.stringify(fault.evidence).includes("inside"));
    }
    assert.equal(receiver.posts.length, 6);
  });

  it("ends in time when the receiver hangs, and fails when it closes or has a certificate for another name", async () => {
    await using receiver = await startPostReceiver(certificate);
    await using other = await startPostReceiver(await authority.issue(["other.test"]));
    const world = worldOf(allow(receiver.port, other.port));
    for (const answer of ["hang", "close"] as const) {
      receiver.answer = answer;
      assert.equal(faultOf(await postWebhook(world, place(receiver.port), message, within(500))).retry, "later");
    }
    const fault = faultOf(await postWebhook(world, place(other.port), message, within(10_000)));
    assert.equal(fault.code, "TlsRefused");
    assert.equal(other.posts.length, 0);
  });
});

describe("destinations", () => {
  const open = async (config: AlertsConfig, host: string, port = 443): Promise<string> => {
    try {
      (await createDestinations(config).open({ target: { host, port }, isTls: true, signal: within(3000) })).destroy();
      return "opened";
    } catch (error) {
      return error instanceof Fault ? error.code : String(error);
    }
  };
  const named = (host: string, addresses?: string[]): AlertsConfig => ({
    allow: [{ host, port: 443, plain: false, ...(addresses === undefined ? {} : { addresses }) }],
  });

  it("are refused unless the operator named host and port", async () => {
    assert.equal(await open({ allow: [] }, "localhost"), "AlertDestinationRefused");
    assert.equal(await open(named("localhost", loopback), "localhost", 8443), "AlertDestinationRefused");
    assert.equal(await open(named(".example.test"), "example.test"), "AlertDestinationRefused");
    assert.equal(await open(named(".example.test"), "evil-example.test"), "AlertDestinationRefused");
  });

  it("never lead to link-local, metadata or group addresses, or to this host unless told", async () => {
    const never = ["169.254.169.254", "168.63.129.16", "100.100.100.200", "0.0.0.0", "224.0.0.1", "fe80::1", "fd00:ec2::254", "::"];
    for (const address of [...never, "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"]) {
      const everything = named(address, ["0.0.0.0/0", "::/0"]);
      assert.equal(await open(everything, address), "AlertDestinationRefused", address);
    }
    for (const address of ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"])
      assert.equal(await open(named(address), address), "AlertDestinationRefused", address);
    assert.equal(await open(named("localhost", ["10.0.0.0/8"]), "localhost"), "AlertDestinationRefused");
  });

  it("go through a proxy only when it is allowed too", async () => {
    const proxy = createTcpServer((socket) => {
      socket.once("data", (bytes) => {
        told.push(bytes.toString("latin1").split("\r\n", 1)[0] ?? "");
        socket.end("HTTP/1.1 403 no\r\n\r\n");
      });
    });
    const told: string[] = [];
    const port = await listen(proxy);
    const proxyUrl = `http://localhost:${port}`;
    const target = { host: "hooks.example.test", port: 443 };
    const way = { target, isTls: true, proxyUrl, signal: within(3000) };
    const hook: AllowedDestination = { ...target, plain: false };
    await assert.rejects(createDestinations({ allow: [hook] }).open(way), { code: "AlertDestinationRefused" });
    const both = createDestinations({ allow: [hook, { host: "localhost", port, addresses: loopback, plain: true }] });
    await assert.rejects(both.open(way), { code: "ProxyRefused" });
    assert.deepEqual(told, ["CONNECT hooks.example.test:443 HTTP/1.1"]);
    await assert.rejects(both.open({ ...way, target: { host: "169.254.169.254", port: 443 } }), { code: "AlertDestinationRefused" });
    await stop(proxy);
  });
});
