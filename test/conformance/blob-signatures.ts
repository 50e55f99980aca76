// Signatures that the management API makes, held against the blob service with Microsoft's unmodified client.

import assert from "node:assert/strict";
import { before, it } from "node:test";
import { Agent } from "node:https";
import type { StorageManagementClient } from "@azure/arm-storage";
import { AnonymousCredential, BlobServiceClient, newPipeline, RestError, type StoragePipelineOptions } from "@azure/storage-blob";
import { systemClock, toDate } from "../../src/base/clock.ts";
import { lookupOf } from "../../src/hub/resources/blob-client.ts";

const hourMs = 3_600_000;
const inOneHour = (): Date => toDate(systemClock.nowMs() + hourMs);

/** The account is open to the public door and has the containers box and box2, and no other. */
export function checkSignatures(
  open: () => { readonly endpoint: string; readonly client: StorageManagementClient; readonly group: string; readonly account: string },
): void {
  const at = (): [string, string] => [open().group, open().account];
  const box = (): string => `/blob/${open().account}/box`;
  /** The account's public name, at the hub's own door. */
  function openBlobs(query: string): BlobServiceClient {
    const { port } = new URL(open().endpoint);
    const agent = new Agent({ lookup: lookupOf("127.0.0.1") });
    const options: StoragePipelineOptions & { readonly agent: Agent } = { agent, retryOptions: { maxTries: 1 } };
    return new BlobServiceClient(`https://${blobHost}:${port}/?${query}`, newPipeline(new AnonymousCredential(), options));
  }
  let blobHost = "";
  before(async () => {
    const { primaryEndpoints } = await open().client.storageAccounts.getProperties(...at());
    blobHost = new URL(primaryEndpoints?.blob ?? "https://none").hostname;
  });
  const serviceSas = async (
    more: Partial<Parameters<StorageManagementClient["storageAccounts"]["listServiceSAS"]>[2]>,
  ): Promise<string> => {
    const wish = { canonicalizedResource: box(), resource: "c", permissions: "rcwdl", sharedAccessExpiryTime: inOneHour(), ...more };
    return (await open().client.storageAccounts.listServiceSAS(...at(), wish)).serviceSasToken ?? "";
  };
  const put = async (query: string, name: string, text: string): Promise<unknown> =>
    await openBlobs(query).getContainerClient("box").getBlockBlobClient(name).upload(text, text.length);
  const read = async (query: string, name: string, container = "box"): Promise<string> =>
    (await openBlobs(query).getContainerClient(container).getBlobClient(name).downloadToBuffer()).toString("utf8");
  const is = (code: string) => (error: unknown) => error instanceof RestError && error.response?.headers.get("x-ms-error-code") === code;

  it("of a container let through what they permit, and nothing else", async () => {
    const all = await serviceSas({});
    await put(all, "a/one", "text");
    assert.equal(await read(all, "a/one"), "text");
    const readOnly = await serviceSas({ permissions: "r" });
    assert.equal(await read(readOnly, "a/one"), "text");
    await assert.rejects(put(readOnly, "a/two", "x"), is("AuthorizationPermissionMismatch"));
    await assert.rejects(read(readOnly, "a/one", "box2"), is("AuthenticationFailed"));
    const createOnly = await serviceSas({ permissions: "c" });
    await put(createOnly, "a/new", "first");
    await assert.rejects(put(createOnly, "a/new", "other"), is("AuthorizationPermissionMismatch"));
    assert.equal(await read(all, "a/new"), "first");
  });

  it("of a blob open that blob alone, with the headers that were signed", async () => {
    const blob = await serviceSas({ canonicalizedResource: `${box()}/a/one`, resource: "b", permissions: "r", contentType: "text/x-test" });
    const client1 = openBlobs(blob).getContainerClient("box").getBlobClient("a/one");
    assert.equal((await client1.getProperties()).contentType, "text/x-test");
    await assert.rejects(read(blob, "a/new"), is("AuthenticationFailed"));
  });

  it("hold callers to their time, address and protocol", async () => {
    const past = toDate(systemClock.nowMs() - hourMs);
    await assert.rejects(read(await serviceSas({ sharedAccessExpiryTime: past }), "a/one"), is("AuthenticationFailed"));
    const later = { sharedAccessStartTime: inOneHour(), sharedAccessExpiryTime: toDate(systemClock.nowMs() + 2 * hourMs) };
    await assert.rejects(read(await serviceSas(later), "a/one"), is("AuthenticationFailed"));
    assert.equal(await read(await serviceSas({ iPAddressOrRange: "127.0.0.0-127.255.255.255", protocols: "https" }), "a/one"), "text");
    await assert.rejects(read(await serviceSas({ iPAddressOrRange: "192.0.2.1" }), "a/one"), is("AuthenticationFailed"));
  });

  it("of an account reach the levels that they name", async () => {
    const accountSas = async (resourceTypes: string, permissions: string): Promise<string> => {
      const wish = { services: "b", resourceTypes, permissions, sharedAccessExpiryTime: inOneHour() };
      return (await open().client.storageAccounts.listAccountSAS(...at(), wish)).accountSasToken ?? "";
    };
    const lister = openBlobs(await accountSas("s", "l"));
    const names: string[] = [];
    for await (const { name } of lister.listContainers()) names.push(name);
    assert.deepEqual(names, ["box", "box2"]);
    await assert.rejects(read(await accountSas("s", "rl"), "a/one"), is("AuthorizationPermissionMismatch"));
    assert.equal(await read(await accountSas("o", "r"), "a/one"), "text");
    const maker = openBlobs(await accountSas("c", "cd")).getContainerClient("box9");
    await maker.create();
    await maker.delete();
  });

  it("end with the key that made them", async () => {
    const query = await serviceSas({ keyToSign: "key2" });
    assert.equal(await read(query, "a/one"), "text");
    await open().client.storageAccounts.regenerateKey(...at(), { keyName: "key2" });
    await assert.rejects(read(query, "a/one"), is("AuthenticationFailed"));
    assert.equal(await read(await serviceSas({ keyToSign: "key2" }), "a/one"), "text");
  });
}
