// Networks, subnets, DNS zones and records as Microsoft's network clients call them, and what the real resolver then answers.

import assert from "node:assert/strict";
import { Resolver } from "node:dns/promises";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  codeOf,
  createLandingZone,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  testDomain,
  type Answer,
  type TestHub,
} from "../test-client.ts";

let stateDir: string;
let hub: TestHub;
let resolver: Resolver;
const cidr = loopbackNetwork();
const base = cidr.replace(/\.0\/24$/, "");

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-network-"));
  const dns = { dnsAddress: `${base}.53`, dnsPort: await findFreePort() };
  hub = await openTestHub({ stateDir, cidr, endpointPort: await findFreePort(), dns });
  await createLandingZone(hub, cidr, ["vault1"]);
  resolver = new Resolver({ timeout: 1000, tries: 2 });
  resolver.setServers([`${dns.dnsAddress}:${dns.dnsPort}`]);
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

const network = (rest: string): string => `${hub.groupPath}/providers/Microsoft.Network/${rest}`;
const landing = (rest = ""): string => network(`virtualNetworks/landing${rest}`);
const bodyOf = (answer: Answer): Record<string, unknown> & { value: Record<string, unknown>[]; properties: Record<string, unknown> } =>
  answer.body as never; // The assertions prove the form.
const namesOf = (answer: Answer): unknown[] => bodyOf(answer).value.map((item) => item["name"]);

test("a network is listed in its group and in the subscription, with its subnets, their endpoints and their use", async () => {
  for (const path of [
    network("virtualNetworks"),
    `/subscriptions/${hub.operator.subscriptionId}/providers/Microsoft.Network/virtualNetworks`,
  ])
    assert.deepEqual(namesOf(await hub.arm("GET", path)), ["landing"]);
  const subnet = bodyOf(await hub.arm("GET", landing("/subnets/default")));
  assert.equal((subnet.properties["privateEndpoints"] as unknown[]).length, 2);
  const [usage] = bodyOf(await hub.arm("GET", landing("/usages"))).value;
  assert.deepEqual([usage?.["currentValue"], usage?.["limit"]], [6, 250]);
});

test("an address is free, taken with others offered, reserved, or of no subnet", async () => {
  const check = async (address: string): Promise<Answer> =>
    await hub.arm("GET", `${landing("/checkIPAddressAvailability")}?ipAddress=${address}`);
  assert.deepEqual((await check(`${base}.200`)).body, { available: true, isPlatformReserved: false });
  const taken = bodyOf(await check(`${base}.4`));
  assert.deepEqual([taken["available"], (taken["availableIPAddresses"] as string[])[0]], [false, `${base}.10`]);
  assert.equal(bodyOf(await check(`${base}.53`))["isPlatformReserved"], true);
  assert.deepEqual([(await check("10.9.9.9")).status, codeOf(await check("10.9.9.9"))], [400, "InputInvalid"]);
});

test("a network or subnet that the configuration does not name is refused, and so is what nothing here could do", async () => {
  const space = { addressSpace: { addressPrefixes: [cidr] } };
  const refused: readonly [string, object][] = [
    [network("virtualNetworks/elsewhere"), { location: "lab1", properties: space }],
    [landing("/subnets/other"), { properties: { addressPrefix: cidr } }],
    [landing("/subnets/default"), { properties: { addressPrefix: "10.0.0.0/24" } }],
    [landing("/subnets/default"), { properties: { addressPrefix: cidr, natGateway: { id: "/x" } } }],
    [landing(), { location: "lab1", properties: { ...space, virtualNetworkPeerings: [{ name: "p" }] } }],
  ];
  for (const [path, body] of refused) {
    const answer = await hub.arm("PUT", path, body);
    assert.deepEqual([answer.status, codeOf(answer)], [400, "InputInvalid"], path);
  }
});

test("subnets are kept when a network is saved without them, take fields of their own, and stay while endpoints use them", async () => {
  const saved = await hub.arm("PUT", landing(), { location: "lab1", properties: { addressSpace: { addressPrefixes: [cidr] } } });
  assert.equal((bodyOf(saved).properties["subnets"] as unknown[]).length, 1);
  const put = await hub.arm("PUT", landing("/subnets/default"), {
    properties: { addressPrefixes: [cidr], privateEndpointNetworkPolicies: "Enabled" },
  });
  assert.deepEqual([put.status, bodyOf(put).properties["privateEndpointNetworkPolicies"]], [200, "Enabled"]);
  assert.equal((await hub.arm("PATCH", landing(), { tags: { a: "1" } })).status, 200);
  for (const path of [landing("/subnets/default"), landing()]) assert.equal((await hub.arm("DELETE", path)).status, 409);
  assert.equal((await hub.arm("DELETE", landing("/subnets/none"))).status, 204);
});

const zone = (rest = ""): string => network(`privateDnsZones/example.test${rest}`);

test("the resolver answers every type of record of a linked zone, and stops when they go", async () => {
  assert.equal((await hub.arm("PUT", zone(), { location: "global", properties: {} }, { "if-none-match": "*" })).status, 201);
  assert.equal((await hub.arm("PUT", zone(), { location: "global", properties: {} }, { "if-none-match": "*" })).status, 412);
  const link = { location: "global", properties: { virtualNetwork: { id: landing() }, registrationEnabled: false } };
  assert.equal((await hub.arm("PUT", zone("/virtualNetworkLinks/landing"), link)).status, 201);
  const records: readonly [string, object][] = [
    ["A/www", { ttl: 60, aRecords: [{ ipv4Address: "192.0.2.7" }] }],
    ["AAAA/www", { ttl: 60, aaaaRecords: [{ ipv6Address: "2001:db8::7" }] }],
    ["CNAME/alias", { ttl: 60, cnameRecord: { cname: "www.example.test" } }],
    ["CNAME/away", { ttl: 60, cnameRecord: { cname: "www.example.org" } }],
    ["MX/@", { ttl: 60, mxRecords: [{ preference: 10, exchange: "mail.example.test" }] }],
    ["PTR/7", { ttl: 60, ptrRecords: [{ ptrdname: "www.example.test" }] }],
    ["SRV/_sip._tcp", { ttl: 60, srvRecords: [{ priority: 1, weight: 2, port: 5060, target: "www.example.test" }] }],
    ["TXT/@", { ttl: 60, txtRecords: [{ value: ['a, "b"', "c"] }] }],
  ];
  for (const [name, properties] of records) assert.equal((await hub.arm("PUT", zone(`/${name}`), { properties })).status, 201, name);
  assert.deepEqual(await resolver.resolve4("www.example.test", { ttl: true }), [{ address: "192.0.2.7", ttl: 60 }]);
  assert.deepEqual(await resolver.resolve6("www.example.test"), ["2001:db8::7"]);
  assert.deepEqual(await resolver.resolve4("alias.example.test"), ["192.0.2.7"]);
  assert.deepEqual(await resolver.resolveCname("away.example.test"), ["www.example.org"]);
  assert.deepEqual(
    (await resolver.resolveMx("example.test")).map(({ exchange, priority }) => [exchange, priority]),
    [["mail.example.test", 10]],
  );
  assert.deepEqual(await resolver.resolvePtr("7.example.test"), ["www.example.test"]);
  assert.deepEqual(
    (await resolver.resolveSrv("_sip._tcp.example.test")).map(({ name, port, priority, weight }) => [name, port, priority, weight]),
    [["www.example.test", 5060, 1, 2]],
  );
  assert.deepEqual(await resolver.resolveTxt("example.test"), [['a, "b"', "c"]]);
  assert.equal((await resolver.resolveSoa("example.test")).hostmaster, "hostmaster.watari.internal");
  assert.equal((await hub.arm("DELETE", zone("/A/www"))).status, 200);
  assert.equal((await hub.arm("DELETE", zone("/A/www"))).status, 204);
  await assert.rejects(resolver.resolve4("www.example.test"));
});

test("records are listed by type, all at once, by suffix and by top; PATCH merges; an etag guards", async () => {
  assert.deepEqual(namesOf(await hub.arm("GET", zone("/CNAME"))), ["alias", "away"]);
  const all = bodyOf(await hub.arm("GET", zone("/ALL"))).value;
  assert.equal(all.length, 8);
  assert.ok(all.every((record) => typeof (record["properties"] as { fqdn?: unknown }).fqdn === "string"));
  assert.deepEqual(namesOf(await hub.arm("GET", `${zone("/ALL")}?$recordsetnamesuffix=way`)), ["away"]);
  const first = bodyOf(await hub.arm("GET", `${zone("/ALL")}?$top=3`));
  assert.deepEqual([first.value.length, typeof first["nextLink"]], [3, "string"]);
  const read = await hub.arm("GET", zone("/CNAME/alias"));
  const patch = async (etag: string): Promise<Answer> =>
    await hub.arm("PATCH", zone("/CNAME/alias"), { properties: { metadata: { by: "hand" } } }, { "if-match": etag });
  assert.equal((await patch('"other"')).status, 412);
  const patched = await patch(String(bodyOf(read)["etag"]));
  assert.deepEqual([patched.status, bodyOf(patched).properties["ttl"], bodyOf(patched).properties["metadata"]], [200, 60, { by: "hand" }]);
});

test("an alias shares its name with nothing, a zone keeps its SOA record and stays while a network is linked", async () => {
  const beside = await hub.arm("PUT", zone("/A/alias"), { properties: { ttl: 1, aRecords: [{ ipv4Address: "192.0.2.1" }] } });
  assert.deepEqual([beside.status, codeOf(beside)], [409, "StateConflict"]);
  assert.equal((await hub.arm("DELETE", zone("/SOA/@"))).status, 400);
  const registering = { location: "global", properties: { virtualNetwork: { id: landing() }, registrationEnabled: true } };
  assert.equal((await hub.arm("PUT", zone("/virtualNetworkLinks/landing"), registering)).status, 400);
  const shown = bodyOf(await hub.arm("GET", zone())).properties;
  assert.deepEqual([shown["numberOfRecordSets"], shown["numberOfVirtualNetworkLinks"]], [8, 1]);
  assert.equal((await hub.arm("DELETE", zone())).status, 409);
  assert.equal((await hub.arm("DELETE", zone("/virtualNetworkLinks/landing"))).status, 200);
  assert.equal((await hub.arm("DELETE", zone())).status, 200);
  assert.equal((await hub.arm("GET", zone("/TXT/@"))).status, 404);
});

test("HEAD tells whether a resource exists; unknown fields beside the properties come back as sent", async () => {
  assert.deepEqual([(await hub.arm("HEAD", hub.groupPath)).status, (await hub.arm("HEAD", `${hub.groupPath}x`)).status], [204, 404]);
  const put = await hub.arm("PUT", zone(), { id: "/other", name: "other", location: "global", zones: ["1"], properties: {} });
  assert.deepEqual([bodyOf(put)["name"], bodyOf(put)["zones"]], ["example.test", ["1"]]);
  assert.ok(hub.hub.privateLink.served().some(({ fqdn }) => fqdn === `packs1.blob.${testDomain}`));
});
