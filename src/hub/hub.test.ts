// The hub as its callers meet it: real TLS, real PostgreSQL, Microsoft's SDKs, private endpoints and appliances.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFile, rm, stat } from "node:fs/promises";
import { Agent } from "node:https";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { RecoveryServicesClient } from "@azure/arm-recoveryservices";
import { SiteRecoveryManagementClient } from "@azure/arm-recoveryservices-siterecovery";
import { z } from "zod";
import { fromTimestamp, systemClock, type Clock } from "../base/clock.ts";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import {
  applianceRegisterResponseShape,
  applianceRoutes,
  registrationKeyShape,
  telemetryAnswerShape,
  type RegistrationKey,
} from "../contract/appliance-protocol.ts";
import { parseApplianceId, parseMachineId, parseOrderId } from "../contract/ids.ts";
import { parseResourceId } from "./api/resource-id.ts";
import { listRoutes } from "./api/arm-router.ts";
import type { AuditRow } from "./db/audit-chain.ts";
import { allAudit } from "./db/audit-entries.ts";
import { openPrincipals } from "./db/principals.ts";
import { createTypeTable } from "./api/resource-type.ts";
import { extensions } from "./extensions.ts";
import { lookupOf } from "./resources/blob-client.ts";
import {
  callTarget,
  codeOf,
  createLandingZone,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  signIn,
  testDomain,
  type Target,
  type TestHub,
} from "./test-client.ts";
import { makeRegistration } from "./test-appliance.ts";

let stateDir: string;
let endpointPort: number;
const cidr = loopbackNetwork();
/** Adds to the system's wall time; tests move it. */
let shiftMs = 0;
const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + shiftMs };
let hub: TestHub;
let zone: { readonly storageId: string; readonly vaultIds: readonly string[] };

const open = (): Promise<TestHub> => openTestHub({ stateDir, cidr, endpointPort, environment: { clock, extensions } });

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-hub-"));
  endpointPort = await findFreePort();
  hub = await open();
  zone = await createLandingZone(hub, cidr, ["vault1", "vault2"]);
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

const byText = (left = "", right = ""): number => (left < right ? -1 : 1);
const vaultId = (index = 0): string => zone.vaultIds[index] ?? "";

async function makeKey(index = 0): Promise<RegistrationKey> {
  const answer = await hub.arm("POST", `${vaultId(index)}/registrationKeys`, {});
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return registrationKeyShape.parse(answer.body);
}

function privateTarget(name: string, certificate?: Target["certificate"]): Target {
  const served = hub.hub.privateLink.served().find((entry) => entry.fqdn === name);
  assert.ok(served, `${name} is served`);
  return { name, address: served.address, port: served.port, ca: hub.hub.caPem, ...(certificate === undefined ? {} : { certificate }) };
}

interface Registered {
  readonly applianceId: string;
  readonly certificate: { readonly cert: string; readonly key: string };
  readonly sas: string;
  readonly accountUrl: string;
  readonly container: string;
}

async function register(key: RegistrationKey): Promise<Registered> {
  const { body, keyPem } = await makeRegistration(key);
  const answer = await callTarget(privateTarget(key.services.id1), { method: "POST", path: applianceRoutes.register.path, body });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  const { applianceId, certificatePem, storage } = applianceRegisterResponseShape.parse(answer.body);
  return { applianceId, certificate: { cert: certificatePem, key: keyPem }, ...storage };
}

test("Microsoft's recovery services SDK creates, lists, changes and deletes a vault", async () => {
  const client = new RecoveryServicesClient(
    { getToken: async () => ({ token: await hub.token(), expiresOnTimestamp: clock.nowMs() + 3_000_000 }) },
    hub.operator.subscriptionId,
    {
      endpoint: `https://management.${testDomain}:${hub.hub.port}`,
      additionalPolicies: [{ policy: viaLoopback(), position: "perCall" }],
    },
  );
  const made = await client.vaults.createOrUpdate("Move", "sdkvault", { location: "lab1", sku: { name: "Standard" }, properties: {} });
  assert.equal(made.properties?.provisioningState, "Succeeded");
  assert.equal(made.properties?.publicNetworkAccess, "Disabled");
  assert.ok(made.identity?.principalId);
  const updated = await client.vaults.update("Move", "sdkvault", { tags: { owner: "sdk" } });
  assert.deepEqual(updated.tags, { owner: "sdk" });
  assert.equal(updated.identity?.principalId, made.identity?.principalId);
  const names: (string | undefined)[] = [];
  for await (const vault of client.vaults.listByResourceGroup("Move")) names.push(vault.name);
  assert.deepEqual(names.toSorted(byText), ["sdkvault", "vault1", "vault2"]);
  await client.vaults.delete("Move", "sdkvault");
  await assert.rejects(
    client.vaults.get("Move", "sdkvault"),
    (error: { code?: string; statusCode?: number }) => error.statusCode === 404 && error.code === "ResourceNotFound",
  );
});

test("Microsoft's site recovery SDK reaches the hub and reads its error envelope", async () => {
  const client = new SiteRecoveryManagementClient(
    { getToken: async () => ({ token: await hub.token(), expiresOnTimestamp: clock.nowMs() + 3_000_000 }) },
    hub.operator.subscriptionId,
    {
      endpoint: `https://management.${testDomain}:${hub.hub.port}`,
      additionalPolicies: [{ policy: viaLoopback(), position: "perCall" }],
    },
  );
  for await (const fabric of client.replicationFabrics.list("vault1", "Move")) assert.ok(fabric.name);
  const read = client.replicationFabrics.get("vault1", "Move", "nonesuch");
  await assert.rejects(
    read,
    (error: { code?: string; statusCode?: number }) => error.code === "ResourceNotFound" && error.statusCode === 404,
  );
});

/** The SDK stays as it is; only the connection is made to loopback, with the hub's CA. */
function viaLoopback() {
  const agent = new Agent({ ca: hub.hub.caPem, lookup: lookupOf("127.0.0.1") });
  return {
    name: "viaLoopback",
    sendRequest: (request: { agent?: unknown }, next: (request: never) => Promise<never>) => {
      request.agent = agent;
      return next(request as never);
    },
  };
}

test("every route refuses a call without a token, and one with a token of somebody else", async () => {
  const routes = listRoutes(createTypeTable(hub.hub.types));
  assert.ok(routes.length > 30);
  for (const { method, type, action } of routes) {
    const path = `${pathOf(type)}${method === "POST" ? `/${action.split("/").at(-2)}` : ""}?api-version=2025-08-01`;
    for (const authorization of [undefined, "Bearer x", `Bearer ${(await hub.token()).slice(0, -8)}AAAAAAAA`]) {
      const headers = authorization === undefined ? {} : { authorization };
      const answer = await callTarget(hub.target(`management.${testDomain}`), { method, path, headers });
      assert.deepEqual([answer.status, codeOf(answer)], [401, "Unauthorized"], `${method} ${path}`);
    }
  }
});

function pathOf(type: string): string {
  if (type === "Microsoft.Resources/subscriptions") return `/subscriptions/${hub.operator.subscriptionId}`;
  if (type === "Microsoft.Resources/resourceGroups") return hub.groupPath;
  const [provider = "", ...segments] = type.split("/");
  return `${hub.groupPath}/providers/${provider}/${segments.map((segment) => `${segment}/x`).join("/")}`;
}

test("a caller without a role is refused, told which role suffices, and audited", async () => {
  const principalId = randomUUID();
  const clientId = randomUUID();
  const { database } = hub.hub.services;
  const guest = { principalId, clientId, kind: "operator" as const, name: "guest" };
  await openPrincipals({ db: database.db, clock }).add(guest, "guest secret");
  const token = await signIn(hub.target(`login.${testDomain}`), {
    tenantId: hub.operator.tenantId,
    clientId,
    clientSecret: "guest secret",
  });
  const call = async (method: string) =>
    await callTarget(hub.target(`management.${testDomain}`), {
      method,
      path: `${vaultId()}?api-version=2025-08-01`,
      body: method === "GET" ? undefined : {},
      headers: { authorization: `Bearer ${token}` },
    });
  assert.deepEqual([(await call("GET")).status, codeOf(await call("DELETE"))], [403, "Forbidden"]);
  const rows: AuditRow[] = [];
  for await (const row of allAudit(database.db)) if (row.entry.includes(principalId)) rows.push(row);
  const entries = rows.map((row) =>
    z.object({ kind: z.string(), action: z.string(), principalName: z.string() }).parse(JSON.parse(row.entry)),
  );
  assert.deepEqual(entries, [
    { kind: "note", action: "Watari.Identity/servicePrincipals/signIn/action", principalName: "guest" },
    { kind: "denied", action: "Microsoft.RecoveryServices/vaults/delete", principalName: "guest" },
  ]);
  const reader = {
    principalId,
    roleDefinitionId: "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7",
  };
  await hub.arm("PUT", `${hub.groupPath}/providers/Microsoft.Authorization/roleAssignments/${randomUUID()}`, { properties: reader });
  assert.deepEqual([(await call("GET")).status, (await call("PATCH")).status], [200, 403]);
});

test("a wrong secret gets no token", async () => {
  const answer = await callTarget(hub.target(`login.${testDomain}`), {
    method: "POST",
    path: `/${hub.operator.tenantId}/oauth2/v2.0/token`,
    body: new URLSearchParams({
      grant_type: "client_credentials",
      client_id: hub.operator.clientId,
      client_secret: "wrong",
      scope: `https://management.${testDomain}/.default`,
    }).toString(),
    headers: { "content-type": "application/x-www-form-urlencoded" },
  });
  assert.equal(answer.status, 401);
  assert.equal((answer.body as { error: string }).error, "invalid_client");
});

test("etags guard changes, api-version is required, unknown types are not found", async () => {
  const read = await hub.arm("GET", vaultId());
  const etag = String(read.headers["etag"]);
  assert.equal((await hub.arm("PATCH", vaultId(), { tags: { a: "1" } }, { "if-match": '"other"' })).status, 412);
  assert.equal((await hub.arm("PATCH", vaultId(), { tags: { a: "1" } }, { "if-match": etag })).status, 200);
  assert.equal((await hub.arm("PUT", hub.groupPath, { location: "lab1" }, { "if-none-match": "*" })).status, 412);
  const bare = await callTarget(hub.target(`management.${testDomain}`), {
    method: "GET",
    path: vaultId(),
    headers: { authorization: `Bearer ${await hub.token()}` },
  });
  assert.deepEqual([bare.status, codeOf(bare)], [400, "InputInvalid"]);
  assert.equal((await hub.arm("GET", `${hub.groupPath}/providers/Microsoft.Nothing/things/x`)).status, 404);
  assert.ok(read.headers["x-ms-request-id"]);
});

test("lists come in pages that lead to each other", async () => {
  const zoneId = `${hub.groupPath}/providers/Microsoft.Network/privateDnsZones/pages.test`;
  await hub.arm("PUT", zoneId, { location: "global" });
  const name = (index: number) => `r${String(index).padStart(3, "0")}`;
  const { resources } = hub.hub.services;
  for (let index = 0; index < 105; index++)
    await resources.save({ id: parseResourceId(`${zoneId}/A/${name(index)}`), properties: { aRecords: [{ ipv4Address: "127.9.9.9" }] } });
  const first = (await hub.arm("GET", `${zoneId}/A`)).body as { value: { name: string }[]; nextLink: string };
  const link = new URL(first.nextLink);
  assert.equal(link.hostname, `management.${testDomain}`);
  const second = await callTarget(hub.target(link.hostname), {
    method: "GET",
    path: `${link.pathname}${link.search}`,
    headers: { authorization: `Bearer ${await hub.token()}` },
  });
  const rest = second.body as { value: { name: string }[]; nextLink?: string };
  assert.deepEqual(
    [first.value.length, rest.value.map((record) => record.name), rest.nextLink],
    [100, [100, 101, 102, 103, 104].map(name), undefined],
  );
});

test("the public door refuses a vault and a storage account whose public access is off, and names of nobody", async () => {
  for (const name of [`packs1.blob.${testDomain}`, (await makeKey()).services.id1.replace("privatelink.", "")]) {
    const answer = await callTarget(hub.target(name), { method: "GET", path: "/" });
    assert.deepEqual([answer.status, codeOf(answer)], [403, "PublicAccessDisabled"]);
  }
  await assert.rejects(callTarget(hub.target(`nobody.blob.${testDomain}`), { method: "GET", path: "/" }));
});

test("a private address serves only its own resource's names", async () => {
  const [one, two] = [(await makeKey(0)).services, (await makeKey(1)).services];
  const right = privateTarget(one.rcm1);
  await assert.rejects(callTarget({ ...right, name: two.rcm1 }, { method: "POST", path: applianceRoutes.poll.path, body: {} }));
  await assert.rejects(callTarget({ ...right, name: `management.${testDomain}` }, { method: "GET", path: "/health" }));
  const answer = await callTarget({ ...right, host: two.rcm1 }, { method: "POST", path: applianceRoutes.poll.path, body: {} });
  assert.deepEqual([answer.status, codeOf(answer)], [421, "NameNotServed"]);
});

test("a registration key works once, only in its vault, only for five days", async () => {
  const key = await makeKey();
  const kept = await hub.hub.services.database.db.selectFrom("registration_keys").selectAll().execute();
  assert.equal(JSON.stringify(kept).includes(key.secret), false);
  const { body } = await makeRegistration(key);
  const elsewhere = privateTarget((await makeKey(1)).services.id1);
  const other = await callTarget(elsewhere, { method: "POST", path: applianceRoutes.register.path, body });
  assert.deepEqual([other.status, codeOf(other)], [401, "Unauthorized"]);
  const forged = await callTarget(privateTarget(key.services.id1), {
    method: "POST",
    path: applianceRoutes.register.path,
    body: { ...body, proof: "0".repeat(64) },
  });
  assert.equal(codeOf(forged), "Unauthorized");
  await register(key);
  const again = await callTarget(privateTarget(key.services.id1), { method: "POST", path: applianceRoutes.register.path, body });
  assert.deepEqual([again.status, codeOf(again)], [409, "KeyUsed"]);
  const late = await makeKey();
  const { body: lateBody } = await makeRegistration(late);
  shiftMs = 5 * 24 * 3600_000 + 1000;
  try {
    const target = privateTarget(late.services.id1);
    const expired = await callTarget(target, { method: "POST", path: applianceRoutes.register.path, body: lateBody });
    assert.deepEqual([expired.status, codeOf(expired)], [409, "KeyExpired"]);
  } finally {
    shiftMs = 0;
  }
});

test("of two appliances that use one key at once, one is registered", async () => {
  const key = await makeKey();
  const [one, two] = [await makeRegistration(key, "one"), await makeRegistration(key, "two")];
  const calls = [one, two].map(({ body }) =>
    callTarget(privateTarget(key.services.id1), { method: "POST", path: applianceRoutes.register.path, body }),
  );
  assert.deepEqual(
    (await Promise.all(calls)).map((answer) => answer.status).toSorted((left, right) => left - right),
    [200, 409],
  );
});

test("an appliance is its certificate: without one, on another vault's name, or under another's id it is refused", async () => {
  const [key, other] = [await makeKey(0), await makeKey(1)];
  const registered = await register(key);
  const poll = { protocolVersion: 1, applianceId: registered.applianceId, results: [], progress: [], waitSeconds: 0 };
  const call = async (name: string, route: { path: string }, body: unknown, certificate?: Target["certificate"]) =>
    await callTarget(privateTarget(name, certificate), { method: "POST", path: route.path, body });
  assert.equal((await call(key.services.rcm1, applianceRoutes.poll, poll, registered.certificate)).status, 200);
  for (const route of Object.values(applianceRoutes).filter((entry) => entry.path !== applianceRoutes.register.path)) {
    assert.equal(codeOf(await call(key.services[route.service], route, {})), "Unauthorized", route.path);
    assert.equal(codeOf(await call(other.services[route.service], route, {}, registered.certificate)), "Forbidden", route.path);
    const wrong = route.service === "id1" ? "rcm1" : "id1";
    assert.equal((await call(key.services[wrong], route, {}, registered.certificate)).status, 404, route.path);
  }
  const foreign = { ...poll, applianceId: randomUUID() };
  assert.equal(codeOf(await call(key.services.rcm1, applianceRoutes.poll, foreign, registered.certificate)), "Forbidden");
});

test("orders reach a polling appliance, results wake the waiter, and the catalogue keeps what is said", async () => {
  const key = await makeKey();
  const registered = await register(key);
  const applianceId = parseApplianceId(registered.applianceId);
  const { orders, points, appliances } = hub.hub.services;
  const poll = async (results: readonly unknown[], waitSeconds: number) =>
    (
      await callTarget(privateTarget(key.services.rcm1, registered.certificate), {
        method: "POST",
        path: applianceRoutes.poll.path,
        body: { protocolVersion: 1, applianceId, results, progress: [], waitSeconds },
      })
    ).body;
  const waiting = poll([], 20);
  const orderId = parseOrderId(randomUUID());
  await orders.enqueue(applianceId, { kind: "discover", orderId });
  assert.deepEqual(await waiting, { orders: [{ kind: "discover", orderId }] });
  const tooNew = parseOrderId(randomUUID());
  await orders.enqueue(applianceId, { kind: "updateAgent", orderId: tooNew, machineId: parseMachineId(randomUUID()) });
  assert.deepEqual(await poll([], 0), { orders: [] }, "an appliance of version 1 does not get what it cannot read");
  const refused = (await orders.find(tooNew))?.result;
  assert.equal(refused?.outcome === "failed" ? refused.fault.id : "", "ProtocolVersionUnsupported");
  const result = orders.result(orderId, AbortSignal.timeout(10_000));
  await poll([{ outcome: "done", orderId }], 0);
  assert.deepEqual(await result, { outcome: "done", orderId });
  const machineId = randomUUID();
  const report = {
    pointId: randomUUID(),
    machineId,
    timeMs: 1000,
    sealedAt: "2026-01-01T00:00:00Z",
    consistency: "crash",
    disks: [],
    readBytes: 1,
    sentBytes: 1,
    storedBytes: 1,
    frozenMs: 0.5,
    mode: "full",
  };
  const say = async (route: { path: string; service: "srs1" | "tel1" }, body: unknown) =>
    (await callTarget(privateTarget(key.services[route.service], registered.certificate), { method: "POST", path: route.path, body }))
      .status;
  assert.equal(await say(applianceRoutes.points, { points: [report] }), 200);
  assert.equal(await say(applianceRoutes.points, { points: [report, { ...report, pointId: randomUUID(), timeMs: 2000 }] }), 200);
  const times = async () => (await points.list(vaultId(), machineId as never, { countMax: 9 })).map((point) => point.timeMs);
  assert.deepEqual(await times(), [2000, 1000]);
  assert.equal(await say(applianceRoutes.points, { points: [], removedPointIds: [report.pointId, randomUUID()] }), 200);
  assert.deepEqual(await times(), [2000], "what retention removed is listed no more");
  assert.equal(await say(applianceRoutes.inventory, { vcenters: [], runAsAccounts: [], machines: [] }), 200);
  assert.deepEqual(await appliances.inventory(applianceId), { vcenters: [], runAsAccounts: [], machines: [] });
});

test("an appliance hears of the others of its vault, by what they told last, and of no other vault's", async () => {
  const key = await makeKey(0);
  const [one, two, foreign] = [await register(key), await register(await makeKey(0)), await register(await makeKey(1))];
  const tell = async (who: Registered, spoolBytes: number) => {
    const body = { applianceVersion: "0.1.0", spoolBytes, spoolBytesMax: 1000, residentBytes: 1, healthErrors: [] };
    const target = privateTarget(key.services.tel1, who.certificate);
    const answer = await callTarget(target, { method: "POST", path: applianceRoutes.telemetry.path, body });
    return telemetryAnswerShape.parse(answer.body).others ?? assert.fail("no others");
  };
  await tell(two, 700);
  const others = await tell(one, 1);
  const seen = others.find(({ applianceId }) => applianceId === two.applianceId);
  assert.deepEqual([seen?.name, seen?.health, seen?.spoolBytes, (seen?.silentSeconds ?? 99) < 60], ["site", "Normal", 700, true]);
  assert.ok(others.every(({ applianceId }) => applianceId !== one.applianceId && applianceId !== foreign.applianceId));
});

test("a storage grant opens the vault's container through the account's private endpoint, and nothing else", async () => {
  const { sas, container } = await register(await makeKey());
  const account = privateTarget(`packs1.blob.${testDomain}`);
  const put = async (where: string, query: string) =>
    (
      await callTarget(account, {
        method: "PUT",
        path: `/${where}/packs/one${query}`,
        body: "bytes",
        headers: { "x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-12-02", "content-type": "application/octet-stream" },
      })
    ).status;
  assert.equal(await put(container, sas), 201);
  assert.equal(await put("another-container", sas), 403);
  assert.ok([401, 403].includes(await put(container, "")));
});

test("without its role on the storage account a vault gives no registration key and says which grant to make", async () => {
  const list = (await hub.arm("GET", `${zone.storageId}/providers/Microsoft.Authorization/roleAssignments`)).body as {
    value: { id: string; properties: object }[];
  };
  // As in Azure the list has what is inherited too: the operator's own role is not taken away.
  const own = list.value.filter((assignment) => assignment.id.startsWith(zone.storageId));
  for (const assignment of own) await hub.arm("DELETE", assignment.id);
  const refused = await hub.arm("POST", `${vaultId()}/registrationKeys`, {});
  assert.deepEqual([refused.status, codeOf(refused)], [403, "StorageRoleMissing"]);
  assert.match(JSON.stringify(refused.body), /roleAssignments.*ba92f5b4-2d11-453d-a403-e96b0029c9fe/);
  for (const assignment of own) await hub.arm("PUT", assignment.id, { properties: assignment.properties });
  await makeKey();
});

test("a registration key may be made for a shorter time than five days, never for a longer one", async () => {
  const make = async (validSeconds: number): ReturnType<typeof hub.arm> =>
    await hub.arm("POST", `${vaultId()}/registrationKeys`, { validSeconds });
  const short = registrationKeyShape.parse((await make(60)).body);
  assert.ok(Math.abs(fromTimestamp(short.expiresAt) - clock.nowMs() - 60_000) < 30_000, short.expiresAt);
  for (const validSeconds of [0, 1.5, 5 * 24 * 3600 + 1]) {
    const refused = await make(validSeconds);
    assert.deepEqual([refused.status, codeOf(refused)], [400, "InputInvalid"]);
  }
});

test("the DNS settings of a vault name every address, the storage account's too", async () => {
  const answer = (await hub.arm("POST", `${vaultId()}/dnsSettings`, {})).body as { value: { name: string; address: string }[] };
  const names = answer.value.map((entry) => entry.name);
  assert.equal(names.length, 7);
  assert.ok(names.includes(`packs1.blob.${testDomain}`));
  const served = new Map(hub.hub.privateLink.served().map((entry) => [entry.fqdn, entry.address]));
  for (const { name, address } of answer.value) if (served.has(name)) assert.equal(address, served.get(name));
});

test("secrets are in files of their owner only, and no key is in the database in clear", async () => {
  for (const file of ["operator.json", "master.key", "pki/ca.pem", "auth/token-key.pem"])
    assert.equal((await stat(join(stateDir, file))).mode & 0o777, 0o600, file);
  const { keys } = (await hub.arm("POST", `${zone.storageId}/listKeys`, {})).body as { keys: { value: string }[] };
  assert.equal(keys.length, 2);
  const tables = ["resources", "secrets", "principals", "audit_entries"] as const;
  for (const table of tables) {
    const text = JSON.stringify(await hub.hub.services.database.db.selectFrom(table).selectAll().execute());
    for (const secret of [hub.operator.clientSecret, ...keys.map((key) => key.value)]) assert.equal(text.includes(secret), false, table);
  }
});

test("a restart serves the same names at the same addresses with the same identities", async () => {
  const before = hub.hub.privateLink
    .served()
    .map(({ fqdn, address }) => `${fqdn} ${address}`)
    .sort();
  const operatorFile = await readFile(join(stateDir, "operator.json"), "utf8");
  const key = await makeKey();
  const registered = await register(key);
  const { caPem } = hub.hub;
  await hub.hub[Symbol.asyncDispose]();
  hub = await open();
  assert.deepEqual(
    hub.hub.privateLink
      .served()
      .map(({ fqdn, address }) => `${fqdn} ${address}`)
      .sort(),
    before,
  );
  assert.equal(hub.hub.caPem, caPem);
  assert.equal(await readFile(join(stateDir, "operator.json"), "utf8"), operatorFile);
  assert.equal((await hub.arm("GET", vaultId())).status, 200);
  const grant = await callTarget(privateTarget(key.services.id1, registered.certificate), {
    method: "POST",
    path: applianceRoutes.storageGrant.path,
    body: {},
  });
  assert.equal(grant.status, 200);
});
