// Whatever body is sent to any route that takes one: an answer in time, no fault of the hub, and nothing stored by what is refused.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import type { Inventory } from "../../contract/appliance-protocol.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import { extensions } from "../extensions.ts";
import { makeWholeDocument } from "../openapi/documents.ts";
import { createLandingZone, findFreePort, loopbackNetwork, openTestHub, testDomain, type TestHub } from "../test-client.ts";
import { createTypeTable, type ResourceType } from "./resource-type.ts";
import { mutatedBody, mutationNames, rightBody, type Schema, type SentBody } from "./test-bodies.ts";

/** Bodies for each route: few in every test run, as many as wanted by WATARI_FUZZ_BODIES. */
const bodiesPerRoute = Number(process.env["WATARI_FUZZ_BODIES"] ?? 3);
const seed = Number(process.env["WATARI_FUZZ_SEED"] ?? systemRandom.bytes(4).reduce((sum, byte) => sum * 256 + byte, 0)) | 0;
const answerMsMax = 10_000;
const version = "api-version=2025-08-01";

let hub: TestHub;
let stateDir = "";
let vault = "";
let token = "";
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-bodies-"));
  const cidr = loopbackNetwork();
  const plenty = { perSecond: 100_000, burst: 100_000 };
  hub = await openTestHub({
    ...{ stateDir, cidr, endpointPort: await findFreePort(), environment: { extensions } },
    limits: { principal: plenty, address: plenty },
  });
  token = await hub.token();
  const zone = await createLandingZone(hub, cidr, ["vault1"]);
  vault = zone.vaultIds[0] ?? "";
  await addSite();
});
after(async () => {
  agent.destroy();
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

const machineId = "4f1c7c1e-6f0b-4bb0-8f4e-0f0f6f3b7c11";
const inventory: Inventory = {
  vcenters: [{ vcenterId: "vc", name: "vcenter", host: "vcenter.site.test", port: 443, runAsAccountId: "vcenter", status: "connected" }],
  runAsAccounts: [
    { accountId: "vcenter", name: "vcenter", kind: "vcenter" },
    { accountId: "linux", name: "linux", kind: "linux" },
  ],
  machines: [
    {
      ...{ infrastructureId: machineId, vcenterId: "vc", name: "web-01", smbiosUuid: machineId, guestOs: "Debian GNU/Linux 12 (64-bit)" },
      ...{ powerState: "poweredOn", cpuCount: 2, memoryBytes: 2 ** 31, firmware: "efi", addresses: ["10.0.0.1"] },
      disks: [{ label: "Hard disk 1", sizeBytes: 2 ** 30, controller: "pvscsi", uuid: "disk-0" }],
      nics: [{ label: "Network adapter 1", mac: "00:50:56:00:00:01", network: "VM Network", adapter: "vmxnet3" }],
    },
  ],
};

/** A site whose appliance has told its machines and is not heard of again: what is ordered of it waits. */
async function addSite(): Promise<void> {
  const { appliances } = hub.hub.services;
  const applianceId = parseApplianceId(systemRandom.uuid());
  const certificateEndsAt = toTimestamp(systemClock.nowMs() + 86_400_000);
  const certificate = { certificateDigest: "0".repeat(64), certificateEndsAt };
  const usingKey = async (): Promise<void> => await Promise.resolve();
  await appliances.add({ applianceId, vaultKey: vault.toLowerCase(), name: "site", version: "0.1.0", ...certificate, usingKey });
  await appliances.seen(applianceId, 1);
  await appliances.saveInventory(applianceId, inventory);
  const container = `${vault}/replicationFabrics/${applianceId}/replicationProtectionContainers/cloud_${applianceId}`;
  const item = `${container}/replicationProtectedItems/item1`;
  const zones = `${hub.groupPath}/providers/Microsoft.Network/privateDnsZones/fuzz.test`;
  const made: readonly (readonly [string, unknown])[] = [
    [`${vault}/replicationPolicies/policy1`, { properties: { providerSpecificInput: { instanceType: "InMageAzureV2" } } }],
    [
      item,
      {
        properties: {
          policyId: `${vault}/replicationPolicies/policy1`,
          protectableItemId: `${container}/replicationProtectableItems/${machineId}`,
          providerSpecificDetails: { instanceType: "InMageAzureV2", runAsAccountId: "linux" },
        },
      },
    ],
    [
      `${vault}/replicationRecoveryPlans/plan1`,
      {
        properties: {
          primaryFabricId: `${vault}/replicationFabrics/${applianceId}`,
          recoveryFabricId: "Microsoft Azure",
          groups: [{ groupType: "Boot", replicationProtectedItems: [{ id: item }] }],
        },
      },
    ],
    [zones, { location: "global", properties: {} }],
    [`${zones}/TXT/txt`, { properties: { ttl: 60, txtRecords: [{ value: ["x"] }] } }],
    [`${hub.groupPath}/providers/Microsoft.Migrate/migrateProjects/project1`, { location: "lab1", properties: {} }],
    [`${vault}/extendedInformation/vaultExtendedInfo`, { properties: { algorithm: "None" } }],
    [
      `/subscriptions/${hub.operator.subscriptionId}/providers/Watari.Identity/groups/${systemRandom.uuid()}`,
      { properties: { displayName: "g" } },
    ],
    [
      `/subscriptions/${hub.operator.subscriptionId}/providers/Watari.Identity/servicePrincipals/${systemRandom.uuid()}`,
      { properties: { displayName: "p" } },
    ],
  ];
  for (const [path, body] of made) {
    const answer = await hub.arm("PUT", path, body);
    assert.ok(answer.status < 300, `${path}: ${JSON.stringify(answer.body)}`);
  }
}

interface Route {
  readonly method: string;
  readonly path: string;
  readonly schema: Schema;
}

const operationShape = z.looseObject({
  requestBody: z.looseObject({ content: z.record(z.string(), z.object({ schema: z.unknown() })) }).optional(),
});
const documentShape = z.looseObject({
  paths: z.record(z.string(), z.record(z.string(), z.unknown())),
  components: z.looseObject({ schemas: z.record(z.string(), z.record(z.string(), z.unknown())) }),
});
const listShape = z.object({ value: z.array(z.looseObject({ id: z.string() })) });

/** A resource of each type: one that is there, or the place where one would be. */
async function placesOf(types: readonly ResourceType[]): Promise<ReadonlyMap<string, string>> {
  const subscription = `/subscriptions/${hub.operator.subscriptionId}`;
  const places = new Map([
    ["Microsoft.Resources/subscriptions", subscription],
    ["Microsoft.Resources/resourceGroups", hub.groupPath],
  ]);
  const byDepth = types.toSorted((left, right) => left.type.split("/").length - right.type.split("/").length);
  for (const { type, within } of byDepth) {
    if (places.has(type)) continue;
    const [parent, segment] = [type.slice(0, type.lastIndexOf("/")), type.slice(type.lastIndexOf("/") + 1)];
    const scope =
      type.startsWith("Watari.Alerts/mail") || within === "subscription"
        ? subscription
        : type.startsWith("Watari.Alerts")
          ? vault
          : hub.groupPath;
    const above = places.get(parent);
    const collection = above === undefined ? `${scope}/providers/${type}` : `${above}/${segment}`;
    const listed = listShape.safeParse((await hub.arm("GET", collection)).body).data?.value[0]?.id;
    places.set(
      type,
      listed?.startsWith(collection) === true ? listed : `${collection}/${/Identity|role/.test(type) ? systemRandom.uuid() : "fuzz1"}`,
    );
  }
  return places;
}

async function routesOf(): Promise<{ readonly routes: readonly Route[]; readonly components: Readonly<Record<string, Schema>> }> {
  const { types } = hub.hub;
  const places = await placesOf(types);
  const document = documentShape.parse(JSON.parse(JSON.stringify(makeWholeDocument(createTypeTable(types)))));
  const tagShape = z.looseObject({ tags: z.array(z.string()) });
  const routes = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, operation]): readonly Route[] => {
      const body = operationShape.safeParse(operation).data?.requestBody?.content["application/json"]?.schema;
      const place = places.get(tagShape.safeParse(operation).data?.tags[0] ?? "");
      if (body === undefined || place === undefined) return [];
      return [{ method: method.toUpperCase(), path: toPlace(path, place), schema: z.record(z.string(), z.unknown()).parse(body) }];
    }),
  );
  return { routes, components: document.components.schemas };
}

/** The documented path with its names filled in: from the end of the resource on it is the documented one. */
function toPlace(path: string, place: string): string {
  const [documented, real] = [path.split("/"), place.split("/")];
  const lastName = documented.findLastIndex((segment) => segment.startsWith("{"));
  const behind = documented.slice(lastName + 1);
  const isOfResource = documented.filter((segment) => segment.startsWith("{")).length > 1 || behind.length < 2;
  if (behind[0] === "providers") return `${real.slice(0, documented.length - behind.length).join("/")}/${behind.join("/")}`; // A call on a type.
  if (!isOfResource || behind.length === 0) return place;
  // An action stands behind the resource; one of a collection stands in its place.
  return documented.length > real.length ? `${place}/${behind.at(-1)}` : `${real.slice(0, -1).join("/")}/${behind.at(-1)}`;
}

interface Told {
  readonly status: number;
  readonly text: string;
}

async function send(method: string, path: string, { bytes, contentType }: SentBody): Promise<Told> {
  const { address, port, name, ca } = hub.target(`management.${testDomain}`);
  return await new Promise((resolve, reject) => {
    const headers = {
      ...{ host: `${name}:${port}`, authorization: `Bearer ${token}`, "content-length": String(bytes.byteLength) },
      ...(contentType === undefined ? {} : { "content-type": contentType }),
    };
    const options = { host: address, port, servername: name, ca, method, path: `${encodeURI(path)}?${version}`, agent, headers };
    const call = request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }));
      response.on("error", reject);
    });
    call.on("error", reject);
    call.end(bytes);
  });
}

/** What a refused call must not change: rows there are, the row it is about, secrets, jobs, and whom the hub knows. */
async function stored(path: string): Promise<unknown> {
  const { db } = hub.hub.services.database;
  const found = await sql<object>`select
    (select md5(string_agg(key, ',' order by key)) from resources) as keys,
    (select md5(properties::text || envelope::text) from resources where key = ${path.toLowerCase()}) as row,
    (select md5(string_agg(secrets::text, ',' order by secrets::text)) from secrets) as secrets,
    (select count(*) from jobs) as jobs, (select count(*) from principals) as principals, (select count(*) from credentials) as credentials,
    (select count(*) from registration_keys) as keys_of_vaults, (select count(*) from appliances) as appliances`.execute(db);
  return found.rows[0];
}

const errorShape = z.object({
  error: z.object({ code: z.string().min(1), message: z.string().min(8), target: z.string().min(1).optional() }),
});

async function assertAnswered(route: Route, sent: SentBody): Promise<number> {
  const { method, path } = route;
  const before = await stored(path);
  const begunMs = systemClock.monotonicMs();
  const { status, text } = await send(method, path, sent);
  const what = `${method} ${path} (${sent.what}) ${Buffer.from(sent.bytes).toString("utf8").slice(0, 600)} → ${status} ${text.slice(0, 600)}`;
  assert.ok(systemClock.monotonicMs() - begunMs < answerMsMax, `too slow: ${what}`);
  assert.ok(status >= 200 && status < 500, what);
  if (status < 400) {
    assert.notEqual(sent.what, "broken UTF-8", what);
    return status;
  }
  const { error } = errorShape.parse(JSON.parse(text), { error: () => what });
  // What is wrong in the body is named; what is wrong with the body itself has no place.
  const isOfMember =
    status === 400 && error.code === "InvalidRequestContent" && /is missing or has the wrong form|is not known here/.test(error.message);
  if (isOfMember) assert.ok(error.target !== undefined, what);
  assert.deepEqual(await stored(path), before, `a refused call changed something: ${what}`);
  return status;
}

test(
  "every route that takes a body answers any body in time, refuses it in Azure's envelope, and stores nothing of what it refuses",
  { timeout: 600_000 },
  async (t) => {
    t.diagnostic(`seed ${seed}, ${bodiesPerRoute} bodies for each route: WATARI_FUZZ_SEED and WATARI_FUZZ_BODIES repeat and prolong it`);
    const { routes, components } = await routesOf();
    const seen = new Map<number, number>();
    const mutated = new Set<string>();
    for (const [index, route] of routes.entries())
      await fc.assert(
        fc.asyncProperty(mutatedBody(rightBody(route.schema, components)), async (sent) => {
          mutated.add(sent.what);
          const status = await assertAnswered(route, sent);
          seen.set(status, (seen.get(status) ?? 0) + 1);
        }),
        { numRuns: bodiesPerRoute, seed: seed + index, endOnFailure: true },
      );
    t.diagnostic(
      `${routes.length} routes; answers by status: ${[...seen]
        .toSorted(([left], [right]) => left - right)
        .map(([status, count]) => `${status}: ${count}`)
        .join(", ")}`,
    );
    assert.ok(routes.length > 150, `only ${routes.length} routes were found`);
    for (const status of [200, 400]) assert.ok((seen.get(status) ?? 0) > 0, `nothing was answered ${status}`);
    assert.deepEqual([...mutated].toSorted(), [...mutationNames].toSorted());
    const health = await hub.arm("GET", "/health");
    assert.equal(health.status, 200, JSON.stringify(health.body));
  },
);
