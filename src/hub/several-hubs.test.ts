// Two hubs as programs on one database server: one API, one authority, doors on both, and an appliance at one hears orders of the other.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { z } from "zod";
import { systemClock, toTimestamp } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import {
  appliancePollResponseShape,
  applianceRegisterResponseShape,
  applianceRoutes,
  registrationKeyShape,
} from "../contract/appliance-protocol.ts";
import { parseApplianceId, parseOrderId } from "../contract/ids.ts";
import { openDatabase } from "./db/database.ts";
import { openOrderQueue } from "./db/orders.ts";
import { readServerAddress } from "./db/server-address.ts";
import {
  callTarget,
  createLandingZone,
  findFreePort,
  loopbackNetwork,
  signIn,
  testDomain,
  type Answer,
  type Target,
} from "./test-client.ts";
import { makeRegistration } from "./test-appliance.ts";
import { startTestServer, type TestServer } from "./test-server.ts";

const program = join(import.meta.dirname, "..", "main.ts");
const operatorShape = z.object({
  ...{ tenantId: z.string(), clientId: z.string(), clientSecret: z.string(), subscriptionId: z.string(), caPem: z.string() },
});
const endpointShape = z.object({
  properties: z.object({ customDnsConfigs: z.array(z.object({ fqdn: z.string(), ipAddresses: z.array(z.string()) })) }),
});
const clientShape = z.object({ properties: z.object({ clientId: z.string() }) });
const secretShape = z.object({ secret: z.string() });
const cidr = loopbackNetwork();

interface Place {
  readonly stateDir: string;
  readonly port: number;
  readonly endpointPort: number;
}

let server: TestServer;
let folder: string;
let url: string;
const children: ChildProcess[] = [];
before(async () => {
  server = await startTestServer();
  url = await server.createDatabase();
  folder = await mkdtemp(join(tmpdir(), "watari-two-"));
});
after(async () => {
  for (const child of children.filter((each) => each.exitCode === null && each.signalCode === null)) {
    child.kill("SIGTERM");
    await once(child, "exit");
  }
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function makePlace(name: string): Promise<Place> {
  const place = { stateDir: join(folder, name), port: await findFreePort(), endpointPort: await findFreePort() };
  await mkdir(place.stateDir);
  const config = {
    ...{ domain: testDomain, stateDir: place.stateDir, publicAddresses: ["127.0.0.1"], managementPort: place.port },
    ...{ endpointPort: place.endpointPort, networks: [{ virtualNetwork: "landing", cidr }], blobFolder: join(folder, "blob") },
    ...{ databaseUrl: url, databaseCaFile: server.caFile, databasePasswordFile: server.passwordFile, databaseConnectionsMax: 6 },
  };
  await writeFile(join(place.stateDir, "hub.yaml"), stringify(config));
  return place;
}

async function startHub(place: Place): Promise<ChildProcess & { readonly said: () => string }> {
  const args = [program, "hub", "run", "--config", join(place.stateDir, "hub.yaml"), "--log-file", join(place.stateDir, "log")];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  children.push(child);
  let said = "";
  await new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (said.includes("hub ready")) resolve();
    });
  });
  return Object.assign(child, { said: () => said });
}

test("two hubs of one database serve one API, and an appliance at one gets the orders of the other", async () => {
  const [one, two] = [await makePlace("one"), await makePlace("two")];
  const first = await startHub(one);
  assert.ok(first.said().includes("hub ready"), first.said());
  const keyless = await startHub(two);
  if (keyless.exitCode === null) await once(keyless, "exit");
  assert.match(keyless.said(), /master key/, "a hub without the database's key does not start");
  await copyFile(join(one.stateDir, "master.key"), join(two.stateDir, "master.key"));
  const second = await startHub(two);
  assert.ok(second.said().includes("hub ready"), second.said());

  const operator = operatorShape.parse(JSON.parse(await readFile(join(one.stateDir, "operator.json"), "utf8")));
  const at = (place: Place, name: string): Target => ({ name, address: "127.0.0.1", port: place.port, ca: operator.caPem });
  const token = await signIn(at(one, `login.${testDomain}`), operator);
  const armAt =
    (place: Place) =>
    async (method: string, path: string, body?: unknown): Promise<Answer> =>
      await callTarget(at(place, `management.${testDomain}`), {
        ...{ method, path: `${path}?api-version=2025-08-01`, body, headers: { authorization: `Bearer ${token}` } },
      });
  const groupPath = `/subscriptions/${operator.subscriptionId}/resourceGroups/Move`;
  const { vaultIds } = await createLandingZone({ arm: armAt(one), groupPath }, cidr);
  assert.equal(
    (await armAt(two)("GET", vaultIds[0] ?? "")).status,
    200,
    "a token of one hub is good at the other, and so is what it wrote",
  );

  await proveRevocation({
    groupPath,
    here: armAt(one),
    there: armAt(two),
    signInThere: async (client) => await signIn(at(two, `login.${testDomain}`), { ...operator, ...client }),
    readThere: async (path, held) =>
      (
        await callTarget(at(two, `management.${testDomain}`), {
          ...{ method: "GET", path: `${path}?api-version=2025-08-01`, headers: { authorization: `Bearer ${held}` } },
        })
      ).status,
  });

  const key = registrationKeyShape.parse((await armAt(one)("POST", `${vaultIds[0]}/registrationKeys`, {})).body);
  const endpoint = endpointShape.parse(
    (await armAt(two)("GET", `${groupPath}/providers/Microsoft.Network/privateEndpoints/vault1-pe`)).body,
  );
  const addressOf = (name: string): string =>
    endpoint.properties.customDnsConfigs.find((config) => config.fqdn === name)?.ipAddresses[0] ?? assert.fail(name);
  const door = (place: Place, name: string): Target => ({ name, address: addressOf(name), port: place.endpointPort, ca: operator.caPem });
  const { body, keyPem } = await makeRegistration(key);
  const answer = await untilServed(
    async () => await callTarget(door(two, key.services.id1), { method: "POST", path: applianceRoutes.register.path, body }),
  );
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  const registered = applianceRegisterResponseShape.parse(answer.body);
  const certificate = { cert: registered.certificatePem, key: keyPem };

  const poll = async (place: Place, waitSeconds: number) => {
    const call = { protocolVersion: 1, applianceId: registered.applianceId, results: [], progress: [], waitSeconds };
    const polled = await callTarget(
      { ...door(place, key.services.rcm1), certificate },
      { method: "POST", path: applianceRoutes.poll.path, body: call },
    );
    return appliancePollResponseShape.parse(polled.body).orders.map((order) => order.orderId);
  };
  const address = await readServerAddress({ url, databaseCaFile: server.caFile, databasePasswordFile: server.passwordFile });
  await using database = await openDatabase({ address, log: silentLog, clock: systemClock, connectionsMax: 2 });
  const orders = openOrderQueue({ db: database.db, notifications: database.notifications, clock: systemClock });
  const give = async (): Promise<string> => {
    const orderId = parseOrderId(systemRandom.uuid());
    await orders.enqueue(parseApplianceId(registered.applianceId), { kind: "discover", orderId });
    return orderId;
  };
  const polling = poll(two, 20);
  await systemClock.sleep(200);
  const begunMs = systemClock.monotonicMs();
  const orderId = await give();
  assert.deepEqual(await polling, [orderId]);
  assert.ok(systemClock.monotonicMs() - begunMs < 2000, "it was told, not found by looking again");

  first.kill("SIGKILL");
  await once(first, "exit");
  const later = await give();
  assert.deepEqual(await poll(two, 5), [later], "the other hub goes on alone");
  assert.equal(
    (
      await armAt(two)("PUT", `${groupPath}/providers/Microsoft.Network/privateDnsZones/example.test`, {
        location: "global",
        properties: {},
      })
    ).status,
    201,
  );
  const again = await startHub(one);
  assert.ok(again.said().includes("hub ready"), again.said());
  assert.equal((await armAt(one)("GET", `${groupPath}/providers/Microsoft.Network/privateDnsZones/example.test`)).status, 200);

  await server.restart();
  for (const place of [one, two])
    await until(
      async () => (await armAt(place)("GET", `${groupPath}/providers/Microsoft.Network/privateDnsZones/example.test`)).status === 200,
    );
  assert.deepEqual([again.exitCode, second.exitCode], [null, null], "a restart of the database server ends no hub");
  const waiting = poll(two, 20);
  const last = await untilGiven(give);
  assert.deepEqual(await waiting, [last], "notifications came back too");
});

type Arm = (method: string, path: string, body?: unknown) => Promise<Answer>;

/** What one hub takes away is gone at the other hub's next call: nothing of a caller's rights is kept between calls. */
async function proveRevocation(hubs: {
  readonly groupPath: string;
  readonly here: Arm;
  readonly there: Arm;
  readonly signInThere: (client: { readonly clientId: string; readonly clientSecret: string }) => Promise<string>;
  readonly readThere: (path: string, token: string) => Promise<number>;
}): Promise<void> {
  const { groupPath, here, there, signInThere, readThere } = hubs;
  const reader = "/providers/Microsoft.Authorization/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7";
  const subscription = groupPath.split("/").slice(0, 3).join("/");
  const [principalId, groupId] = [systemRandom.uuid(), systemRandom.uuid()];
  const principal = `${subscription}/providers/Watari.Identity/servicePrincipals/${principalId}`;
  const { clientId } = clientShape.parse((await here("PUT", principal, { properties: { displayName: "guest" } })).body).properties;
  const expiresAt = toTimestamp(systemClock.nowMs() + 3600_000);
  const made = await there("POST", `${principal}/addCredential`, { secret: "generate", expiresAt });
  const { secret: clientSecret } = secretShape.parse(made.body);
  const token = await signInThere({ clientId, clientSecret });
  assert.equal(await readThere(groupPath, token), 403);
  const group = `${subscription}/providers/Watari.Identity/groups/${groupId}`;
  assert.equal((await here("PUT", group, { properties: { displayName: "readers" } })).status, 201);
  const assign = async (holder: string): Promise<string> => {
    const assignment = `${groupPath}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`;
    const answer = await here("PUT", assignment, { properties: { principalId: holder, roleDefinitionId: reader } });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return assignment;
  };
  const direct = await assign(principalId);
  assert.equal(await readThere(groupPath, token), 200);
  await here("DELETE", direct);
  assert.equal(await readThere(groupPath, token), 403);
  await assign(groupId);
  assert.equal((await here("POST", `${group}/addMember`, { principalId })).status, 204);
  assert.equal(await readThere(groupPath, token), 200);
  await here("POST", `${group}/removeMember`, { principalId });
  assert.equal(await readThere(groupPath, token), 403);
  await here("DELETE", principal);
  assert.equal(await readThere(groupPath, token), 401);
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let attempt = 1; !(await isSo()); attempt++) {
    assert.ok(attempt < 100, "in time");
    await systemClock.sleep(50);
  }
}

/** The test's own connections were cut as well. */
async function untilGiven(give: () => Promise<string>): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await give();
    } catch (error) {
      if (attempt >= 20) throw error;
    }
  }
}

/** The other hub opens its doors when it hears of the endpoint. */
async function untilServed(call: () => Promise<Answer>): Promise<Answer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (attempt >= 100) throw error;
      await systemClock.sleep(50);
    }
  }
}
