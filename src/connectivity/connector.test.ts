// The connector's promises, held against a real proxy and real TLS servers: the right way, the right fault, the right identity.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { request as httpsRequest } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { TLSSocket } from "node:tls";
import { request } from "undici";
import { systemClock } from "../base/clock.ts";
import { silentLog, type Log } from "../base/log.ts";
import { Fault } from "../contract/errors.ts";
import { createConnector } from "./connector.ts";
import { createAuthority } from "./test-certificates.ts";
import { freeTcpPort, skipUnless, startProxy, startSite } from "./test-network.ts";
import { parseTopology, type TopologyDocument } from "./topology.ts";

const skipSquid = skipUnless("squid");
const authority = await createAuthority();
const serverTls = await authority.issue(["private.test", "public.test"]);

const near = {
  privateNames: ["private.test"],
  privateRanges: ["127.0.0.0/8"],
  hosts: [{ name: "private.test", addresses: ["127.0.0.1"] }],
};

function connect(
  document: TopologyDocument,
  more: Partial<Parameters<typeof createConnector>[0]> = {},
): ReturnType<typeof createConnector> {
  return createConnector({ topology: parseTopology(document), clock: systemClock, log: silentLog, caPem: authority.caPem, ...more });
}

test("Connector reaches a private name directly by every door, and logs the decision", async () => {
  await using site = await startSite((_request, response) => response.end("private"), serverTls);
  const lines: Readonly<Record<string, unknown>>[] = [];
  const log: Log = { ...silentLog, info: (message, fields) => lines.push({ message, ...fields }) };
  // The proxy does not exist: a private name that went there would fail.
  await using connector = connect({ ...near, publicNames: [".test"], proxy: { url: `http://127.0.0.1:${await freeTcpPort()}` } }, { log });
  const url = `https://private.test:${site.port}/`;
  assert.equal(await (await connector.fetch(url)).text(), "private");
  assert.equal(await (await request(url, { dispatcher: connector.dispatcher })).body.text(), "private");
  assert.equal(await getWithAgent(url, connector), "private");
  assert.deepEqual([lines[0]?.["message"], lines[0]?.["decision"], lines[0]?.["address"]], ["connection opened", "private", "127.0.0.1"]);
  const looked = await new Promise((resolve, reject) =>
    connector.lookup("private.test", { all: true }, (error, answers) => (error === null ? resolve(answers) : reject(error))),
  );
  assert.deepEqual(looked, [{ address: "127.0.0.1", family: 4 }]);
});

test("Connector's agent gives a silent connection up, a fresh one and one that was used before", async () => {
  await using site = await startSite((request, response) => void (request.url === "/silent" || response.end("here")), serverTls);
  await using connector = connect(near, { silentMsMax: 200 });
  const url = `https://private.test:${site.port}`;
  await assert.rejects(getWithAgent(`${url}/silent`, connector), /nothing moved|socket hang up/);
  assert.equal(await getWithAgent(`${url}/`, connector), "here");
  await assert.rejects(getWithAgent(`${url}/silent`, connector), /nothing moved|socket hang up/);
  assert.equal(await getWithAgent(`${url}/`, connector), "here");
});

test("Connector refuses what the topology does not name, without any packet", async () => {
  await using site = await startSite((_request, response) => response.end());
  await using connector = connect({ ...near, hosts: [{ name: "other.test", addresses: ["127.0.0.1"] }] });
  await assert.rejects(connector.fetch(`http://other.test:${site.port}/`), { code: "HostUndeclared" });
  await assert.rejects(getWithAgent(`https://other.test:${site.port}/`, connector), { code: "HostUndeclared" });
  await assert.rejects(connector.connect({ host: "other.test", port: site.port }), { code: "HostUndeclared" });
  assert.equal(site.connectionCount(), 0);
});

test("Connector refuses a private name with a public answer, without any packet", async () => {
  await using site = await startSite((_request, response) => response.end());
  await using connector = connect({ ...near, privateRanges: ["10.200.0.0/24"] });
  await assert.rejects(connector.fetch(`http://private.test:${site.port}/`), { code: "PrivateNamePublic" });
  assert.equal(site.connectionCount(), 0);
});

test("Connector goes to a public name through the proxy, which resolves the name", { skip: skipSquid }, async () => {
  await using site = await startSite((_request, response) => response.end("public"), serverTls);
  await using proxy = await startProxy({ allowed: { "public.test": "127.0.0.1" } });
  await using connector = connect({ publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${proxy.port}` } });
  const url = `https://public.test:${site.port}/`;
  assert.equal(await (await connector.fetch(url)).text(), "public");
  assert.equal(await getWithAgent(url, connector), "public");
  await assert.rejects(
    new Promise((_resolve, reject) => connector.lookup("public.test", {}, (error) => reject(error ?? new Error("an address was given")))),
    { code: "HostUndeclared" },
  );
});

test("Connector tells a proxy that refuses from one that is down", { skip: skipSquid }, async () => {
  await using proxy = await startProxy({ allowed: {} });
  await using refused = connect({ publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${proxy.port}` } });
  await assert.rejects(refused.fetch("https://public.test/"), { code: "ProxyRefused" });
  await using down = connect({ publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${await freeTcpPort()}` } });
  await assert.rejects(down.fetch("https://public.test/"), { code: "ProxyUnreachable" });
});

test("Connector names a proxy that asks for a password, and passes with the right one", { skip: skipSquid }, async () => {
  await using site = await startSite((_request, response) => response.end("public"), serverTls);
  await using proxy = await startProxy({ allowed: { "public.test": "127.0.0.1" }, credentials: { user: "anna", password: "geheim" } });
  const document = { publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${proxy.port}` } };
  const url = `https://public.test:${site.port}/`;
  await using without = connect(document);
  await assert.rejects(without.fetch(url), (error: unknown) => {
    assert.ok(error instanceof Fault && error.code === "ProxyAuthRequired");
    assert.deepEqual([error.evidence["offered"], error.evidence["credentialsGiven"]], [["Basic"], false]);
    return true;
  });
  await using wrong = connect(document, { proxyCredentials: async () => await Promise.resolve({ user: "anna", password: "falsch" }) });
  await assert.rejects(wrong.fetch(url), (error: unknown) => {
    assert.ok(error instanceof Fault && error.code === "ProxyAuthRequired");
    assert.doesNotMatch(JSON.stringify(error.evidence), /falsch/);
    return error.evidence["credentialsGiven"] === true;
  });
  await using right = connect(document, { proxyCredentials: async () => await Promise.resolve({ user: "anna", password: "geheim" }) });
  assert.equal(await (await right.fetch(url)).text(), "public");
});

test(
  "Connector reads the proxy's password from the topology's file, and never shows a file that is wrong",
  { skip: skipSquid },
  async (context) => {
    await using site = await startSite((_request, response) => response.end("public"), serverTls);
    await using proxy = await startProxy({ allowed: { "public.test": "127.0.0.1" }, credentials: { user: "anna", password: "ge:heim" } });
    const folder = await mkdtemp(join(tmpdir(), "watari-proxy-"));
    context.after(async () => await rm(folder, { recursive: true }));
    const credentialsFile = join(folder, "credentials");
    await using connector = connect({ publicNames: ["public.test"], proxy: { url: `http://127.0.0.1:${proxy.port}`, credentialsFile } });
    const url = `https://public.test:${site.port}/`;
    await assert.rejects(connector.fetch(url), { code: "InputInvalid" });
    await writeFile(credentialsFile, "geheim without user\n");
    await assert.rejects(connector.fetch(url), (error: unknown) => {
      assert.ok(error instanceof Fault && error.code === "InputInvalid");
      return !JSON.stringify([error.message, error.evidence, error.action]).includes("geheim");
    });
    await writeFile(credentialsFile, "anna:ge:heim\n");
    assert.equal(await (await connector.fetch(url)).text(), "public");
  },
);

test("Connector refuses TLS with a wrong name, an expired date or a strange authority, and says which certificate it saw", async () => {
  const stranger = await (await createAuthority("stranger")).issue(["private.test"]);
  const cases = [
    {
      tls: await authority.issue(["elsewhere.test"]),
      fault: "TlsRefused",
      code: "ERR_TLS_CERT_ALTNAME_INVALID",
      subject: "elsewhere.test",
    },
    { tls: await authority.issue(["private.test"], -1), fault: "TlsRefused", code: "CERT_HAS_EXPIRED", subject: "private.test" },
    { tls: stranger, fault: "TlsAuthorityUnknown", code: "UNABLE_TO_VERIFY_LEAF_SIGNATURE", subject: "private.test" },
  ];
  for (const { tls, fault, code, subject } of cases) {
    await using site = await startSite((_request, response) => response.end(), tls);
    await using connector = connect(near);
    await assert.rejects(connector.fetch(`https://private.test:${site.port}/`), (error: unknown) => {
      assert.ok(error instanceof Fault);
      assert.deepEqual([error.code, error.evidence["code"], error.evidence["subject"]], [fault, code, subject]);
      return true;
    });
  }
});

test("Connector shows its client certificate to private names and to nobody else", async () => {
  const client = await authority.issue(["appliance"]);
  const seen: (string | undefined)[] = [];
  const tls = { ...serverTls, ca: authority.caPem, requestCert: true, rejectUnauthorized: false };
  await using site = await startSite((message, response) => {
    const subject = message.socket instanceof TLSSocket ? message.socket.getPeerCertificate().subject : undefined;
    seen.push(subject === undefined ? undefined : String(subject.CN));
    response.end();
  }, tls);
  const hosts = ["private.test", "public.test"].map((name) => ({ name, addresses: ["127.0.0.1"] }));
  const clientCertificate = { certPem: client.cert, keyPem: client.key };
  await using connector = connect({ ...near, publicNames: ["public.test"], hosts }, { clientCertificate });
  await (await connector.fetch(`https://private.test:${site.port}/`)).text();
  await (await connector.fetch(`https://public.test:${site.port}/`)).text();
  assert.deepEqual(seen, ["appliance", undefined]);
});

test("Connector gives up when told to, and a closed port is a fault with the address", async () => {
  await using connector = connect(near);
  const port = await freeTcpPort();
  await assert.rejects(connector.connect({ host: "private.test", port }), (error: unknown) => {
    assert.ok(error instanceof Fault && error.code === "ConnectionFailed");
    assert.deepEqual(error.evidence["tried"], ["127.0.0.1: ECONNREFUSED"]);
    return true;
  });
  await assert.rejects(connector.connect({ host: "private.test", port }, AbortSignal.abort(new Error("enough"))), { message: "enough" });
});

async function getWithAgent(url: string, connector: ReturnType<typeof createConnector>): Promise<string> {
  return await new Promise((resolve, reject) => {
    const call = httpsRequest(url, { agent: connector.httpsAgent }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve(Buffer.concat(chunks).toString("utf8")));
    });
    call.on("error", reject);
    call.end();
  });
}
