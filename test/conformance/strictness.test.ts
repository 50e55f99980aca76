// No member is dropped in silence: what a type says to keep comes back at every depth, or the whole write is refused.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { storedAsSent } from "../../src/hub/openapi/stored-as-sent.ts";
import { startRig, type Rig } from "./rig.ts";

const apiVersion = "2025-08-01";
const unknown = { watariUnknown: { deep: [1, { deeper: "x" }] } };
const groupType = "Microsoft.Resources/resourceGroups";
const zoneType = "Microsoft.Network/privateDnsZones";
const zone = "Microsoft.Network/privateDnsZones/strict.watari.test";
const vault = "Microsoft.RecoveryServices/vaults/strict-vault";
const uuid = "5f2d1f0e-7a68-4d0e-9b0a-3f6f6f1c2d3e";
const account = "Microsoft.Storage/storageAccounts/strictaccount1";

/** They keep nothing that they do not know, and say so. */
const closedTypes: readonly string[] = [groupType, zoneType, "Watari.Identity/servicePrincipals", "Watari.Identity/groups"];

interface Write {
  /** Below the resource group's providers; the group itself when empty. */
  readonly path: string;
  readonly location?: string;
  readonly properties: () => Readonly<Record<string, unknown>>;
}

const record = (kind: string, name: string, value: Readonly<Record<string, unknown>>): readonly [string, Write] => [
  `Microsoft.Network/privateDnsZones/${kind}`,
  { path: `${zone}/${kind}/${name}`, properties: () => ({ ttl: 300, ...value }) },
];

/** In an order in which each finds what it stands on. */
const writes: ReadonlyMap<string, Write> = new Map<string, Write>([
  [groupType, { path: "", location: "lab1", properties: () => ({}) }],
  [zoneType, { path: zone, location: "global", properties: () => ({}) }],
  ["Microsoft.Storage/storageAccounts", { path: account, location: "lab1", properties: () => ({}) }],
  ["Microsoft.Storage/storageAccounts/blobServices", { path: `${account}/blobServices/default`, properties: () => ({}) }],
  ["Microsoft.Migrate/migrateProjects", { path: "Microsoft.Migrate/migrateProjects/strict", location: "lab1", properties: () => ({}) }],
  ["Microsoft.RecoveryServices/vaults", { path: vault, location: "lab1", properties: () => ({}) }],
  [
    "Microsoft.RecoveryServices/vaults/replicationVaultSettings",
    { path: `${vault}/replicationVaultSettings/default`, properties: () => ({ migrationSolutionId: "none" }) },
  ],
  [
    "Watari.Identity/servicePrincipals",
    { path: `Watari.Identity/servicePrincipals/${uuid}`, properties: () => ({ displayName: "strict" }) },
  ],
  [
    "Watari.Identity/groups",
    { path: `Watari.Identity/groups/${uuid.replace("5f2d", "6f2d")}`, properties: () => ({ displayName: "strict" }) },
  ],
  record("A", "a", { aRecords: [{ ipv4Address: "10.77.1.4" }] }),
  record("AAAA", "aaaa", { aaaaRecords: [{ ipv6Address: "fd00::4" }] }),
  record("CNAME", "cname", { cnameRecord: { cname: "a.strict.watari.test" } }),
  record("MX", "mx", { mxRecords: [{ preference: 10, exchange: "a.strict.watari.test" }] }),
  record("PTR", "ptr", { ptrRecords: [{ ptrdname: "a.strict.watari.test" }] }),
  record("SOA", "@", { soaRecord: { refreshTime: 3600 } }),
  record("SRV", "srv", { srvRecords: [{ priority: 1, weight: 1, port: 443, target: "a.strict.watari.test" }] }),
  record("TXT", "txt", { txtRecords: [{ value: ["x"] }] }),
]);

describe("members that the hub does not know", () => {
  let rig: Rig;
  before(async () => {
    rig = await startRig();
  });
  after(async () => await rig[Symbol.asyncDispose]());

  async function call(method: "GET" | "PUT", id: string, body?: object): Promise<{ readonly status: number; readonly body: unknown }> {
    const answer = await fetch(`${rig.endpoint}${id}?api-version=${apiVersion}`, {
      method,
      headers: { authorization: `Bearer ${await rig.token()}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === "" ? undefined : JSON.parse(text) };
  }

  test("come back from each type that is said to keep them, or are refused by name", async (context) => {
    const groupId = `/subscriptions/${rig.subscriptionId}/resourceGroups/strict`;
    await call("PUT", groupId, { location: "lab1" });
    for (const [type, { path, location, properties }] of writes)
      await context.test(type, async () => {
        const id = path === "" ? groupId : `${groupId}/providers/${path}`;
        const right = { ...(location === undefined ? {} : { location }), properties: properties() };
        const written = await call("PUT", id, right);
        assert.ok(written.status < 300, `${written.status} ${JSON.stringify(written.body)}`);
        const strange = await call("PUT", id, { ...right, properties: { ...right.properties, ...unknown } });
        if (strange.status === 400) {
          assert.match(JSON.stringify(strange.body), /watariUnknown/);
          return;
        }
        assert.ok(strange.status < 300, `${strange.status} ${JSON.stringify(strange.body)}`);
        const { properties: kept } = (await call("GET", id)).body as { readonly properties: Readonly<Record<string, unknown>> };
        assert.deepEqual(kept["watariUnknown"], unknown.watariUnknown);
      });
  });

  test("come back from the networks that are there, and from a link to one", async () => {
    const groupId = `/subscriptions/${rig.subscriptionId}/resourceGroups/${rig.resourceGroup}/providers`;
    const ids = async (path: string): Promise<readonly string[]> => {
      const { body } = await call("GET", `${groupId}/${path}`);
      return (body as { readonly value: readonly { readonly id: string }[] }).value.map(({ id }) => id);
    };
    const [network = ""] = await ids("Microsoft.Network/virtualNetworks");
    const [subnet = ""] = await ids(`${network.slice(groupId.length + 1)}/subnets`);
    const [zoneId = ""] = await ids(zoneType);
    const [link = ""] = await ids(`${zoneId.slice(groupId.length + 1)}/virtualNetworkLinks`);
    for (const id of [network, subnet, link]) {
      const { properties, location } = (await call("GET", id)).body as { readonly properties: object; readonly location?: string };
      const written = await call("PUT", id, { ...(location === undefined ? {} : { location }), properties: { ...properties, ...unknown } });
      assert.ok(written.status < 300, `${id} ${written.status} ${JSON.stringify(written.body)}`);
      const { properties: kept } = (await call("GET", id)).body as { readonly properties: Readonly<Record<string, unknown>> };
      assert.deepEqual(kept["watariUnknown"], unknown.watariUnknown, id);
    }
  });

  test("are tried at every type of the list, but for those whose tests stand in network.test.ts", () => {
    const above = ["virtualNetworks", "virtualNetworks/subnets", "privateDnsZones/virtualNetworkLinks"];
    const elsewhere = ["privateEndpoints", "privateEndpoints/privateDnsZoneGroups"];
    const tried = [...writes.keys()].filter((type) => !closedTypes.includes(type));
    const all = [...tried, ...[...above, ...elsewhere].map((name) => `Microsoft.Network/${name}`)];
    assert.deepEqual(all.toSorted(), [...storedAsSent].toSorted());
  });
});
