// Whatever is sent, the API answers in time, never with a fault of its own, in Azure's envelope; and no answer, log line or figure tells a secret.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import type { Log, LogFields } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { extensions } from "../extensions.ts";
import {
  callTarget,
  createLandingZone,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  testDomain,
  type Answer,
  type TestHub,
} from "../test-client.ts";

const runs = 100;
const answerMsMax = 10_000;
const envelope = z.object({
  error: z.object({
    code: z.string().min(1),
    message: z.string().min(1),
    details: z.array(z.unknown()),
    additionalInfo: z.array(z.unknown()),
  }),
});

let hub: TestHub;
let stateDir = "";
let zone: Awaited<ReturnType<typeof createLandingZone>>;
const logged: string[] = [];

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-fuzz-"));
  const cidr = loopbackNetwork();
  const environment = { extensions };
  hub = await openTestHub({ stateDir, cidr, endpointPort: await findFreePort(), environment, log: keepingLog(), hasMetrics: true });
  zone = await createLandingZone(hub, cidr, ["vault1"]);
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

function keepingLog(bound: LogFields = {}): Log {
  const keep = (message: string, fields?: LogFields): void => void logged.push(JSON.stringify({ message, ...bound, ...fields }));
  return { error: keep, warn: keep, info: keep, debug: keep, with: (fields) => keepingLog({ ...bound, ...fields }) };
}

interface Call {
  readonly method: string;
  /** As on the wire, with the query. */
  readonly path: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

async function send({ headers, ...call }: Call): Promise<Answer> {
  const answer = await callTarget(hub.target(`management.${testDomain}`), {
    ...call,
    headers: { authorization: `Bearer ${await hub.token()}`, ...headers },
  });
  assert.equal(typeof answer.headers["x-ms-request-id"], "string", call.path.slice(0, 200));
  return answer;
}

function assertDialect(answer: Answer, call: Call): void {
  const what = `${call.method} ${call.path} ${call.body ?? ""}: ${answer.status} ${JSON.stringify(answer.body).slice(0, 500)}`;
  assert.ok(answer.status < 500, what);
  if (answer.status < 400 || call.method === "HEAD") return;
  assert.ok(envelope.safeParse(answer.body).success, what);
  assert.equal(answer.headers["x-ms-error-code"], envelope.parse(answer.body).error.code, what);
}

const words = [
  ...[
    "subscriptions",
    "resourceGroups",
    "providers",
    "locations",
    "Move",
    "..",
    ".",
    "",
    "%2e%2e",
    "%2F",
    "%00",
    "%ff",
    "%",
    "a b",
    "é",
    "'",
    '"',
  ],
  ...[
    "Microsoft.RecoveryServices",
    "vaults",
    "vault1",
    "replicationFabrics",
    "replicationProtectionContainers",
    "replicationJobs",
    "export",
  ],
  ...[
    "replicationProtectedItems",
    "testFailover",
    "replicationPolicies",
    "default",
    "operationStatuses",
    "Microsoft.Network",
    "virtualNetworks",
  ],
  ...["landing", "privateDnsZones", "Microsoft.Storage", "storageAccounts", "packs1", "listKeys", "Microsoft.Compute", "virtualMachines"],
  ...[
    "Microsoft.Authorization",
    "roleAssignments",
    "roleDefinitions",
    "permissions",
    "x".repeat(300),
    "00000000-0000-0000-0000-000000000000",
  ],
];

test("random calls are answered in time and in Azure's envelope, never by a fault of the hub", { timeout: 110_000 }, async () => {
  const segments = fc.array(fc.constantFrom(...words), { maxLength: 12 });
  const start = fc.constantFrom("", hub.groupPath, `${hub.groupPath}/providers`, zone.vaultIds[0] ?? "", zone.storageId);
  const query = fc.constantFrom(
    ...[
      "api-version=2025-08-01",
      "api-version=2025-08-01&$filter=a%20eq%20'b'",
      "api-version=x",
      "",
      "api-version=2025-08-01&$skipToken=AAAA",
    ],
    ...[
      "api-version=2025-08-01&$top=-1",
      "api-version=2025-08-01&$filter=%00",
      "api-version=2025-08-01&api-version=1999-01-01",
      "%",
      "=&&=",
    ],
  );
  const leaf = fc.oneof(
    fc.constant(null),
    fc.boolean(),
    fc.double(),
    fc.string({ maxLength: 20 }),
    fc.constantFrom("\u0000", "__proto__", "constructor"),
  );
  const member = fc.constantFrom(
    "properties",
    "location",
    "tags",
    "sku",
    "identity",
    "providerSpecificDetails",
    "__proto__",
    "id",
    "value",
    "x",
  );
  const { document } = fc.letrec((tie) => ({
    document: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie("document"), { maxLength: 3 }),
      fc.dictionary(member, tie("document"), { maxKeys: 4 }),
    ),
  }));
  const body = fc.oneof(
    fc.constant(undefined),
    document.map((each) => JSON.stringify(each)),
    fc.string({ maxLength: 40 }),
  );
  const method = fc.constantFrom("GET", "PUT", "PATCH", "POST", "HEAD", "OPTIONS");
  const seed = systemRandom.bytes(4).reduce((sum, byte) => sum * 256 + byte, 0) | 0;
  await fc.assert(
    fc.asyncProperty(method, start, segments, query, body, async (verb, from, parts, asked, sent) => {
      const path = encodeURI(`${from}/${parts.join("/")}`).replaceAll("%25", "%");
      const call: Call = {
        method: verb,
        path: `${path}?${asked}`,
        ...(sent === undefined || verb === "GET" || verb === "HEAD" ? {} : { body: sent }),
      };
      const begunMs = systemClock.monotonicMs();
      assertDialect(await send(call), call);
      assert.ok(systemClock.monotonicMs() - begunMs < answerMsMax, `${verb} ${path} took too long`);
    }),
    { numRuns: runs, seed },
  );
});

test("each kind of bad call has its own answer", async () => {
  const version = "api-version=2025-08-01";
  const zones = `${hub.groupPath}/providers/Microsoft.Network/privateDnsZones`;
  const json = { "content-type": "application/json" };
  const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
  const wanted: readonly (readonly [number, Call])[] = [
    [400, { method: "PUT", path: `${zones}/a.test?${version}`, body: "{", headers: json }],
    [400, { method: "PUT", path: `${zones}/a.test?${version}`, body: '{"__proto__":{"a":1}}', headers: json }],
    [400, { method: "PUT", path: `${zones}/a.test?${version}`, body: deep, headers: json }],
    [413, { method: "PUT", path: `${zones}/a.test?${version}`, body: JSON.stringify({ location: "x".repeat(5 << 20) }), headers: json }],
    [415, { method: "PUT", path: `${zones}/a.test?${version}`, body: "<a/>", headers: { "content-type": "application/xml" } }],
    [400, { method: "GET", path: `${zones}/%ff?${version}` }],
    [400, { method: "GET", path: `${zones}/..%2f..%2fetc?${version}` }],
    [400, { method: "GET", path: `${zones}/${"x".repeat(4000)}?${version}` }],
    [400, { method: "GET", path: zones }],
    [400, { method: "GET", path: `${zones}?api-version=1990-01-01` }],
    [405, { method: "OPTIONS", path: `${zones}/a.test?${version}` }],
    [404, { method: "HEAD", path: `${zones}/none.test?${version}` }],
    [401, { method: "GET", path: `${zones}?${version}`, headers: { authorization: "Bearer x" } }],
  ];
  for (const [status, call] of wanted) {
    const answer = await send(call);
    assertDialect(answer, call);
    assert.equal(
      answer.status,
      status,
      `${call.method} ${call.path.slice(0, 200)} ${call.body?.slice(0, 50) ?? ""} ${JSON.stringify(answer.body).slice(0, 300)}`,
    );
    if (status === 405) assert.match(String(answer.headers["allow"]), /GET/);
  }
});

test("an unknown member or a wrong type of a body is refused by its path", async () => {
  const target = async (method: string, path: string, body: unknown): Promise<readonly unknown[]> => {
    const answer = await hub.arm(method, path, body);
    return [answer.status, z.object({ error: z.object({ target: z.string().optional() }) }).parse(answer.body).error.target];
  };
  const policy = `${zone.vaultIds[0]}/replicationPolicies/strict`;
  const settings = { instanceType: "InMageAzureV2" };
  const cases: readonly (readonly [string, string, unknown, string])[] = [
    ["PUT", policy, { properties: { providerSpecificInput: { ...settings, colour: "red" } } }, "properties.providerSpecificInput.colour"],
    ["PUT", policy, { properties: { colour: "red" } }, "properties.colour"],
    ["PUT", policy, { colour: "red", properties: {} }, "colour"],
    [
      "PUT",
      policy,
      { properties: { providerSpecificInput: { ...settings, recoveryPointHistory: "long" } } },
      "properties.providerSpecificInput.recoveryPointHistory",
    ],
    ["POST", `${zone.storageId}/regenerateKey`, { keyName: "key1", colour: "red" }, "colour"],
    ["POST", `${zone.vaultIds[0]}/registrationKeys`, { validSeconds: 60, colour: "red" }, "colour"],
  ];
  for (const [method, path, body, at] of cases) assert.deepEqual(await target(method, path, body), [400, at], JSON.stringify(body));
});

test("no answer, log line, audit row, figure or document tells a secret", async () => {
  const canary = `canary${systemRandom.uuid().replaceAll("-", "")}`;
  const vault = zone.vaultIds[0] ?? "";
  const kept = { integrityKey: `${canary}integrity`, encryptionKey: `${canary}encryption`, algorithm: "None" };
  assert.equal((await hub.arm("PUT", `${vault}/extendedInformation/vaultExtendedInfo`, { properties: kept })).status, 200);
  const key = z.object({ secret: z.string(), keyId: z.string() }).parse((await hub.arm("POST", `${vault}/registrationKeys`, {})).body);
  const keysShape = z.object({ keys: z.array(z.object({ value: z.string().min(20) })) });
  const { keys } = keysShape.parse((await hub.arm("POST", `${zone.storageId}/listKeys`, {})).body);
  const token = await hub.token();
  const wrong = await send({
    method: "GET",
    path: `${vault}?api-version=2025-08-01`,
    headers: { authorization: `Bearer ${canary}.token` },
  });
  assert.equal(wrong.status, 401);
  // A refused body is not repeated in what the hub says of it.
  const refused = await hub.arm("PUT", `${vault}/extendedInformation/vaultExtendedInfo`, {
    properties: { ...kept, integrityKey: [canary] },
  });
  assert.equal(refused.status, 400);
  const told: string[] = [JSON.stringify(wrong), JSON.stringify(refused), ...logged];
  for (const path of everyPath()) told.push(JSON.stringify(await hub.arm("GET", path)));
  told.push(JSON.stringify(await hub.hub.services.database.db.selectFrom("audit_entries").selectAll().execute()));
  told.push(
    JSON.stringify((await send({ method: "GET", path: "/openapi.json" })).body),
    JSON.stringify((await send({ method: "GET", path: "/health" })).body),
  );
  told.push(await (await fetch(`http://127.0.0.1:${hub.hub.metricsPort}/metrics`)).text());
  const secrets = [canary, key.secret, hub.operator.clientSecret, token, ...keys.map(({ value }) => value)];
  for (const text of told) for (const secret of secrets) assert.ok(!text.includes(secret), text.slice(0, 300));
  assert.ok(told.length > 60, "too little was read");
});

/** Lists of every type at every place where there is one, and the resources of the landing zone. */
function everyPath(): readonly string[] {
  const places = [`/subscriptions/${hub.operator.subscriptionId}`, hub.groupPath, zone.vaultIds[0] ?? "", zone.storageId];
  const lists = hub.hub.types.flatMap(({ type }) => {
    const [provider = "", ...segments] = type.split("/");
    const last = segments.at(-1) ?? "";
    if (segments.length === 1) return places.slice(0, 2).map((place) => `${place}/providers/${provider}/${last}`);
    const isAt = (place: string, container: string): boolean => type.toLowerCase().startsWith(`${container}/`) && place !== "";
    if (isAt(places[2] ?? "", "microsoft.recoveryservices/vaults")) return [`${places[2]}/${last}`];
    return isAt(places[3] ?? "", "microsoft.storage/storageaccounts") ? [`${places[3]}/${last}`] : [];
  });
  return [...places, `${zone.vaultIds[0]}/extendedInformation/vaultExtendedInfo`, ...new Set(lists)];
}
