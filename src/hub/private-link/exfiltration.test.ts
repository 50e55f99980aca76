// What a machine inside the closed network may try to reach another vault by an endpoint that it is allowed to reach: nothing of it works.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { connect, type ConnectionOptions } from "node:tls";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { systemClock } from "../../base/clock.ts";
import {
  applianceRegisterResponseShape,
  applianceRoutes,
  registrationKeyShape,
  type RegistrationKey,
} from "../../contract/appliance-protocol.ts";
import { extensions } from "../extensions.ts";
import {
  callTarget,
  codeOf,
  createLandingZone,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  testDomain,
  type Answer,
  type Target,
  type TestHub,
} from "../test-client.ts";

interface Site {
  readonly key: RegistrationKey;
  readonly applianceId: string;
  readonly certificate: { readonly cert: string; readonly key: string };
  readonly sas: string;
  readonly container: string;
}

const cidr = loopbackNetwork();
let stateDir: string;
let hub: TestHub;
let sites: readonly Site[];

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-exfiltration-"));
  hub = await openTestHub({ stateDir, cidr, endpointPort: await findFreePort(), environment: { extensions } });
  const { vaultIds } = await createLandingZone(hub, cidr, ["vault1", "vault2"]);
  await addAccount("packs2");
  sites = await Promise.all(vaultIds.map(async (vaultId) => await register(vaultId)));
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

/** A second storage account with an endpoint of its own, in the same network. */
async function addAccount(name: string): Promise<void> {
  const { groupPath } = hub;
  const accountId = `${groupPath}/providers/Microsoft.Storage/storageAccounts/${name}`;
  const subnet = { id: `${groupPath}/providers/Microsoft.Network/virtualNetworks/landing/subnets/default` };
  const connection = { name, properties: { privateLinkServiceId: accountId, groupIds: ["blob"] } };
  const puts: readonly (readonly [string, object])[] = [
    [accountId, { location: "lab1", kind: "StorageV2", sku: { name: "Standard_LRS" }, properties: {} }],
    [
      `${groupPath}/providers/Microsoft.Network/privateEndpoints/${name}-pe`,
      { location: "lab1", properties: { subnet, privateLinkServiceConnections: [connection] } },
    ],
  ];
  for (const [path, body] of puts) {
    const answer = await hub.arm("PUT", path, body);
    assert.ok([200, 201].includes(answer.status), JSON.stringify(answer.body));
  }
}

async function register(vaultId: string): Promise<Site> {
  const key = registrationKeyShape.parse((await hub.arm("POST", `${vaultId}/registrationKeys`, {})).body);
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ name: "CN=x", keys, signingAlgorithm: algorithm }, crypto);
  const csrPem = request.toString("pem");
  const proof = createHmac("sha256", Buffer.from(key.secret, "base64url")).update(csrPem).digest("hex");
  const body = { protocolVersion: 1, applianceVersion: "0.1.0", name: "site", keyId: key.keyId, csrPem, proof };
  const answer = await callTarget(targetOf(key.services.id1), { method: "POST", path: applianceRoutes.register.path, body });
  const { applianceId, certificatePem, storage } = applianceRegisterResponseShape.parse(answer.body);
  const keyPem = x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  return { key, applianceId, certificate: { cert: certificatePem, key: keyPem }, sas: storage.sas, container: storage.container };
}

function targetOf(name: string, certificate?: Target["certificate"]): Target {
  const served = hub.hub.privateLink.served().find((each) => each.fqdn === name) ?? assert.fail(`${name} is not served`);
  return { name, address: served.address, port: served.port, ca: hub.hub.caPem, ...(certificate === undefined ? {} : { certificate }) };
}

const site = (index: number): Site => sites[index] ?? assert.fail(`no site ${index}`);
const pollOf = ({ applianceId }: Site): string =>
  JSON.stringify({ protocolVersion: 1, applianceId, results: [], progress: [], waitSeconds: 0 });

/** A request as it is written here, over TLS to one name; the status line's number, or what became of the connection. */
async function raw(target: Target, head: readonly string[], body = "", tls: ConnectionOptions = {}): Promise<number | string> {
  const { address: host, port, name: servername, ca, certificate } = target;
  return await new Promise((resolve) => {
    const socket = connect({ host, port, servername, ca, ...certificate, ...tls }, () => {
      const lines = [...head, `content-length: ${Buffer.byteLength(body)}`, "content-type: application/json", "connection: close"];
      socket.write(`${lines.join("\r\n")}\r\n\r\n${body}`);
    });
    let text = "";
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => (text += chunk));
    socket.on("error", (error) => resolve("code" in error ? String(error.code) : error.message));
    socket.on("close", () => resolve(Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? Number.NaN) || "closed"));
  });
}

describe("through the endpoint of one vault", () => {
  const path = applianceRoutes.poll.path;
  const post = (target: string, ...hosts: readonly string[]): readonly string[] => [
    `POST ${target} HTTP/1.1`,
    ...hosts.map((host) => `host: ${host}`),
  ];
  const mine = (): string => site(0).key.services.rcm1;
  const theirs = (): string => site(1).key.services.rcm1;
  const call = async (head: readonly string[], tls: ConnectionOptions = {}): Promise<number | string> =>
    await raw(targetOf(mine(), site(0).certificate), head, pollOf(site(0)), tls);

  test("its own name is served however it is spelt", async () => {
    for (const host of [mine(), mine().toUpperCase(), `${mine()}:443`, `${mine()}:65535`])
      assert.equal(await call(post(path, host)), 200, host);
    assert.equal(await call(post(`https://${mine()}${path}`, mine())), 200, "absolute form");
    assert.equal(await call(post(`HTTPS://${mine().toUpperCase()}:443${path}?x=1`, mine())), 200, "absolute form in capitals");
    assert.equal(await call(post(path, mine()), { servername: mine().toUpperCase() }), 200, "TLS name in capitals");
  });

  test("another vault's name, however it is smuggled in, is not", async () => {
    const other = theirs();
    const tricks: readonly (readonly [string, readonly string[]])[] = [
      ["Host of another", post(path, other)],
      ["Host with a dot at its end", post(path, `${mine()}.`)],
      ["Host of another in capitals, with port", post(path, `${other.toUpperCase()}:443`)],
      ["two Hosts, mine first", post(path, mine(), other)],
      ["two Hosts, mine last", post(path, other, mine())],
      ["Hosts in one line", post(path, `${mine()}, ${other}`)],
      ["user part", post(path, `${mine()}@${other}`)],
      ["target of another, Host mine", post(`https://${other}${path}`, mine())],
      ["target mine, Host of another", post(`https://${mine()}${path}`, other)],
      ["target with a user part", post(`https://${mine()}@${other}${path}`, mine())],
      ["target of the public name of management", post(`http://management.${testDomain}/health`, mine())],
    ];
    for (const [trick, head] of tricks) assert.equal(await call(head), 421, trick);
    assert.equal(await call(post(path)), 400, "no Host at all");
    const forwarded = ["x-forwarded-host", "x-original-host", "x-host", "forwarded"].map((name) => `${name}: ${other}`);
    assert.equal(await call([...post(path, mine()), ...forwarded]), 200, "what a proxy would add is not read");
    for (const line of [`CONNECT ${other}:443 HTTP/1.1`, `CONNECT 127.0.0.1:443 HTTP/1.1`])
      assert.equal(await call([line, `host: ${mine()}`]), "closed", line);
  });

  test("no other TLS name has a handshake: not another vault's, none, an address, nor the hub's public ones", async () => {
    for (const servername of [theirs(), "", `management.${testDomain}`, `login.${testDomain}`, `packs1.blob.${testDomain}`, `${mine()}.`]) {
      const answer = await call(post(path, mine()), { servername, rejectUnauthorized: false });
      assert.equal(typeof answer, "string", `${servername}: ${answer}`);
    }
  });

  test("HTTP/2, by which clients share one connection among names, is not spoken", async () => {
    const { address, port, ca, name } = targetOf(mine());
    const session = connectHttp2(`https://${address}:${port}`, { ca, servername: name });
    const error = await new Promise<Error>((resolve) => void session.once("error", resolve));
    assert.match(error.message, /ALPN|alert|protocol/i);
  });

  test("a session that was resumed has no other name", async () => {
    const target = targetOf(mine(), site(0).certificate);
    const session = await new Promise<Buffer>((resolve, reject) => {
      const { address: host, port, name: servername, ca } = target;
      const socket = connect({ host, port, servername, ca, ...target.certificate });
      socket.once("session", (ticket: Buffer) => {
        socket.destroy();
        resolve(ticket);
      });
      socket.once("error", reject);
    });
    assert.equal(await call(post(path, mine()), { session }), 200);
    assert.equal(typeof (await call(post(path, theirs()), { session, servername: theirs() })), "string");
    assert.equal(await call(post(path, theirs()), { session }), 421);
  });

  test("a certificate of another vault, and another's id with one's own, is refused on every route", async () => {
    for (const route of Object.values(applianceRoutes).filter((each) => each !== applianceRoutes.register)) {
      const target = targetOf(site(0).key.services[route.service], site(1).certificate);
      assert.equal(codeOf(await callTarget(target, { method: "POST", path: route.path, body: {} })), "Forbidden", route.path);
    }
    assert.equal(await raw(targetOf(mine(), site(0).certificate), post(path, mine()), pollOf(site(1))), 403);
  });

  test("an operator's token opens nothing: tokens are for the public management name alone", async () => {
    const headers = { authorization: `Bearer ${await hub.token()}` };
    const target = targetOf(mine());
    for (const asked of [
      "/subscriptions?api-version=2022-12-01",
      `${hub.groupPath}?api-version=2022-12-01`,
      "/health",
      "/ca.pem",
      "/hub.json",
    ])
      assert.equal((await callTarget(target, { method: "GET", path: asked, headers })).status, 404, asked);
    assert.equal(codeOf(await callTarget(target, { method: "POST", path, body: {}, headers })), "Unauthorized");
  });
});

describe("through the endpoint of one storage account", () => {
  const put = async (name: string, where: string, host?: string): Promise<number> =>
    (
      await callTarget(
        { ...targetOf(name), ...(host === undefined ? {} : { host }) },
        {
          method: "PUT",
          path: where,
          body: "bytes",
          headers: { "x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream" },
        },
      )
    ).status;

  test("one account's signature is nothing at another's, and the other's name is not served", async () => {
    const [own, other] = [`packs1.blob.${testDomain}`, `packs2.blob.${testDomain}`];
    const { container, sas } = site(0);
    assert.equal(await put(own, `/${container}/one${sas}`), 201);
    assert.equal(await put(other, `/${container}/one${sas}`), 403);
    assert.equal(await put(own, `/${container}/one${sas}`, other), 421);
    assert.equal(await put(other, `/${container}/one${sas}`, own), 421);
  });

  test("one vault's signature is nothing in another's container, nor one level above or beside", async () => {
    const own = `packs1.blob.${testDomain}`;
    const [{ sas, container: mine }, { container: theirs }] = [site(0), site(1)];
    const list = async (query: string, signature = sas): Promise<Answer> =>
      await callTarget(targetOf(own), { method: "GET", path: `${query}&${signature.slice(1)}` });
    const namesOf = async (container: string, signature: string): Promise<readonly string[]> =>
      [...JSON.stringify((await list(`/${container}?restype=container&comp=list`, signature)).body).matchAll(/<Name>(.*?)<\/Name>/g)].map(
        ([, found = ""]) => found,
      );
    const before = await namesOf(theirs, site(1).sas);
    for (const where of [`/${theirs}/one`, `//${theirs}/one`, `/$root/one`, `/%2e%2e/${theirs}/one`])
      assert.ok([400, 403].includes(await put(own, `${where}${sas}`)), where);
    // A blob may be named like a way up; it stays a name in its own container.
    for (const name of [`../${theirs}/one`, `..%2f${theirs}%2fone`, `..%5c${theirs}%5cone`]) await put(own, `/${mine}/${name}${sas}`);
    assert.deepEqual(await namesOf(theirs, site(1).sas), before);
    assert.ok([400, 403].includes((await list("/?comp=list")).status));
    assert.ok([400, 403].includes((await list(`/${theirs}?restype=container&comp=list`)).status));
    assert.equal((await list(`/${mine}?restype=container&comp=list`)).status, 200);
  });
});

describe("the public door", () => {
  test("opens and closes with a vault's public access, while private calls go on without a pause or a loss", async () => {
    const { key, certificate } = site(0);
    const vaultId = `${hub.groupPath}/providers/Microsoft.RecoveryServices/vaults/vault1`;
    const name = key.services.rcm1.replace("privatelink.", "");
    const call = async (target: Target): Promise<string> => {
      const answer = await callTarget(target, { method: "POST", path: applianceRoutes.poll.path, body: JSON.parse(pollOf(site(0))) });
      return codeOf(answer) ?? String(answer.status);
    };
    const publicly = async (): Promise<string> => await call({ ...hub.target(name), certificate });
    const ending = new AbortController();
    const privately = (async (): Promise<{ readonly calls: number; readonly longestMs: number }> => {
      let [calls, longestMs] = [0, 0];
      while (!ending.signal.aborted) {
        const beganMs = systemClock.monotonicMs();
        assert.equal(await call(targetOf(key.services.rcm1, certificate)), "200");
        longestMs = Math.max(longestMs, systemClock.monotonicMs() - beganMs);
        calls += 1;
      }
      return { calls, longestMs };
    })();
    assert.equal(await publicly(), "PublicAccessDisabled");
    for (let round = 0; round < 3; round += 1) {
      for (const [publicNetworkAccess, expected] of [
        ["Enabled", "200"],
        ["Disabled", "PublicAccessDisabled"],
      ] as const) {
        const answer = await hub.arm("PATCH", vaultId, { properties: { publicNetworkAccess } });
        assert.ok([200, 202].includes(answer.status), JSON.stringify(answer.body));
        assert.equal(await publicly(), expected, "at once: the answer of the change is after it");
      }
    }
    ending.abort();
    const { calls, longestMs } = await privately;
    assert.ok(calls > 5 && longestMs < 10_000, `${calls} calls, the longest ${longestMs} ms`);
  });
});
