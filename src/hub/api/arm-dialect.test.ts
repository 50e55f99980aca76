// The dialect over HTTPS: documents, ids, conditions, codes and pages as any ARM client meets them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { callTarget, findFreePort, loopbackNetwork, openTestHub, testDomain, type TestHub } from "../test-client.ts";

let hub: TestHub;
let stateDir = "";

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-dialect-"));
  hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() });
  await hub.arm("PUT", hub.groupPath, { location: "lab1" });
});

after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

test("anyone may read the API's document; every other path of the face asks for a token", async () => {
  const answer = await callTarget(hub.target(`management.${testDomain}`), { method: "GET", path: "/openapi.json" });
  assert.equal(answer.status, 200);
  assert.equal(z.object({ openapi: z.string() }).parse(answer.body).openapi, "3.1.1");
});

test("ids keep the casing of their first writing, conditions hold, and wrong calls get Azure's codes", async () => {
  const path = `${hub.groupPath}/providers/Microsoft.Network/privateDnsZones/Casing.test`;
  const made = await hub.arm("PUT", path, { location: "global", properties: {} });
  const read = await hub.arm("GET", path.toUpperCase().replace("/SUBSCRIPTIONS", "/subscriptions"));
  assert.deepEqual([read.status, read.body], [200, made.body]);
  const etag = String(read.headers["etag"]);
  assert.equal((await hub.arm("GET", path, undefined, { "if-none-match": etag })).status, 304);
  assert.equal((await hub.arm("HEAD", path)).status, 204);
  assert.equal((await hub.arm("PUT", path, { location: "global" }, { "if-none-match": "*" })).status, 412);
  assert.equal((await hub.arm("DELETE", path, undefined, { "if-match": '"other"' })).status, 412);
  const azureCode = async (method: string, to: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<unknown[]> => {
    const answer = await hub.arm(method, to, body, headers);
    return [answer.status, z.object({ error: z.object({ code: z.string() }) }).parse(answer.body).error.code];
  };
  const group = hub.groupPath;
  assert.deepEqual(await azureCode("GET", `${group}x/providers/Microsoft.Network/privateDnsZones`), [404, "ResourceGroupNotFound"]);
  assert.deepEqual(await azureCode("GET", `${path}x`), [404, "ResourceNotFound"]);
  assert.deepEqual(await azureCode("PUT", `${path}x/virtualNetworkLinks/a`, {}), [404, "ParentResourceNotFound"]);
  assert.deepEqual(await azureCode("GET", `${group}/providers/Microsoft.Nonesuch/things`), [404, "InvalidResourceType"]);
  assert.deepEqual(await azureCode("POST", `${group}/providers/Microsoft.Network/privateDnsZones`), [405, "MethodNotAllowed"]);
  assert.deepEqual(await azureCode("PUT", path, "a=b", { "content-type": "application/x-www-form-urlencoded" }), [
    415,
    "UnsupportedMediaType",
  ]);
  assert.deepEqual(await azureCode("GET", `${group}/providers/Microsoft.RecoveryServices/vaults?$top=0`), [400, "InvalidTopParameter"]);
  assert.deepEqual(await azureCode("GET", `${group}/providers/Microsoft.RecoveryServices/vaults?$skipToken=%2F`), [
    400,
    "InvalidSkipToken",
  ]);
  assert.deepEqual(await azureCode("GET", `${group}/providers/Microsoft.RecoveryServices/vaults?$filter=a%20eq%201`), [
    400,
    "InvalidFilter",
  ]);
  const bare = await callTarget(hub.target(`management.${testDomain}`), {
    method: "GET",
    path: `${path}?api-version=2001-01-01`,
    headers: { authorization: `Bearer ${await hub.token()}` },
  });
  assert.match(JSON.stringify(bare.body), /NoRegisteredProviderFound.*2024-06-01/);
  assert.equal((await hub.arm("DELETE", path, undefined, { "if-match": etag })).status, 200);
});

test("a list goes on from page to page and shows everything once", async () => {
  const names = ["a", "b", "c", "d", "e"].map((letter) => `${letter}.pages.test`);
  const zones = `${hub.groupPath}/providers/Microsoft.Network/privateDnsZones`;
  for (const name of names) await hub.arm("PUT", `${zones}/${name}`, { location: "global", properties: {} });
  const shape = z.object({ value: z.array(z.object({ name: z.string() })), nextLink: z.string().optional() });
  const seen: string[] = [];
  const sizes: number[] = [];
  for (let path: string | undefined = `${zones}?$top=2`; path !== undefined;) {
    const page: z.infer<typeof shape> = shape.parse((await hub.arm("GET", path)).body);
    seen.push(...page.value.map(({ name }) => name));
    sizes.push(page.value.length);
    const next = page.nextLink === undefined ? undefined : new URL(page.nextLink);
    next?.searchParams.delete("api-version");
    path = next === undefined ? undefined : `${next.pathname}${next.search}`;
  }
  assert.ok(
    sizes.slice(0, -1).every((size) => size === 2),
    sizes.join(","),
  );
  assert.deepEqual([...new Set(seen)], seen);
  for (const name of names) assert.ok(seen.includes(name), name);
  for (const name of names) await hub.arm("DELETE", `${zones}/${name}`);
});
