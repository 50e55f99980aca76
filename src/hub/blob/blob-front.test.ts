// The blob front through @azure/storage-blob and through our own client: the store suite, signatures, conditions, crashes.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import {
  BlobServiceClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  newPipeline,
  RestError,
  SASProtocol,
  StorageSharedKeyCredential,
  type ContainerClient,
} from "@azure/storage-blob";
import { systemClock, toDate } from "../../base/clock.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { openAzureBlobStore } from "../../store/azure-blob-store.ts";
import { testStore } from "../../store/store-suite.ts";
import type { Store } from "../../store/store.ts";
import { openVaultReader } from "../../vault/open-vault.ts";
import { assertContent, newMachine, openTestVault, sealWhole, testKey, vaultId } from "../../vault/test-vault.ts";
import { makeContainerSas, type BlobPermission } from "./sas.ts";
import { startTestBlobServer, type TestBlobServer } from "./test-blob-server.ts";

let folder = "";
let server: TestBlobServer;
let container: ContainerClient;
const hourMs = 3_600_000;

function serviceOf(target: TestBlobServer): BlobServiceClient {
  const credential = new StorageSharedKeyCredential("acct1", target.key.toString("base64"));
  const options = { agent: new Agent({ lookup: target.lookup, ca: target.ca }), retryOptions: { maxTries: 1 } };
  return new BlobServiceClient(target.accountUrl, newPipeline(credential, options));
}

function sasStore(target: TestBlobServer, sas: string): Store {
  return openAzureBlobStore({
    accountUrl: target.accountUrl,
    container: "vault1",
    credential: { kind: "sas", sas: async () => sas },
    connection: { lookup: target.lookup, ca: target.ca },
  });
}

function makeSas(
  permissions: readonly BlobPermission[],
  more: { readonly expiresAtMs?: number; readonly container?: string; readonly key?: Buffer } = {},
): string {
  return makeContainerSas({
    account: "acct1",
    key: server.key,
    container: "vault1",
    permissions,
    expiresAtMs: systemClock.nowMs() + hourMs,
    ...more,
  });
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-blob-"));
  server = await startTestBlobServer(join(folder, "blobs"));
  container = serviceOf(server).getContainerClient("vault1");
  await container.create();
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

testStore("the blob front by shared access signature", async () =>
  sasStore(server, makeSas(["read", "create", "write", "delete", "list"])),
);
testStore("the blob front by account key", async () =>
  openAzureBlobStore({
    accountUrl: server.accountUrl,
    container: "vault1",
    credential: { kind: "sharedKey", accountName: "acct1", accountKey: server.key.toString("base64") },
    connection: { lookup: server.lookup, ca: server.ca },
  }),
);

async function codeOf(task: Promise<unknown>): Promise<string> {
  try {
    await task;
  } catch (error) {
    assert.ok(error instanceof RestError, String(error));
    return `${error.statusCode} ${error.code}`;
  }
  return "no error";
}

describe("blob front", () => {
  it("answers in the words of the service", async () => {
    const blob = container.getBlockBlobClient("Folder.One/ä b%+&/c");
    assert.equal(await codeOf(blob.download()), "404 BlobNotFound");
    assert.equal(await codeOf(blob.delete()), "404 BlobNotFound");
    assert.equal(await codeOf(container.create()), "409 ContainerAlreadyExists");
    assert.equal(await codeOf(serviceOf(server).getContainerClient("absent").getBlobClient("a").download()), "404 ContainerNotFound");
    const bytes = randomBytes(100_000);
    const md5 = createHash("md5").update(bytes).digest();
    const put = await blob.upload(bytes, bytes.length, { transactionalContentMD5: md5, conditions: { ifNoneMatch: "*" } });
    assert.ok(put.etag);
    assert.equal(await codeOf(blob.upload(bytes, bytes.length, { conditions: { ifNoneMatch: "*" } })), "409 BlobAlreadyExists");
    assert.equal(await codeOf(blob.upload(bytes, bytes.length, { transactionalContentMD5: Buffer.alloc(16) })), "400 Md5Mismatch");
    assert.equal(await codeOf(blob.download(100_000, 1)), "416 InvalidRange");
    const properties = await blob.getProperties();
    assert.equal(properties.etag, put.etag);
    assert.equal(properties.contentLength, 100_000);
    assert.ok(properties.contentMD5 !== undefined && md5.equals(properties.contentMD5));
    assert.ok(bytes.subarray(5, 15).equals(await blob.downloadToBuffer(5, 10)));
    const names = (await Array.fromAsync(container.listBlobsFlat({ prefix: "Folder.One/ä" }))).map(({ name }) => name);
    assert.deepEqual(names, ["Folder.One/ä b%+&/c"]);
    await blob.delete();
    assert.equal(await codeOf(container.getAppendBlobClient("x").create()), "501 NotImplemented");
  });

  it("replaces a blob whole and gives it a new ETag", async () => {
    const blob = container.getBlockBlobClient("replaced");
    const first = await blob.upload("one", 3);
    const second = await blob.upload("second", 6);
    assert.notEqual(first.etag, second.etag);
    assert.equal(String(await blob.downloadToBuffer()), "second");
  });

  it("pages lists by marker in the order of names", async () => {
    const names = Array.from({ length: 23 }, (_, index) => `paged/${index % 3 === 0 ? "a/" : ""}${index}`);
    for (const name of names) await container.getBlockBlobClient(name).upload("x", 1);
    const pages = await Array.fromAsync(container.listBlobsFlat({ prefix: "paged/" }).byPage({ maxPageSize: 5 }));
    assert.equal(pages.length, 5);
    assert.deepEqual(
      pages.flatMap((page) => page.segment.blobItems.map(({ name }) => name)),
      [...names].sort(),
    );
  });

  it("takes signatures that the service's own library makes", async () => {
    const sas = generateBlobSASQueryParameters(
      {
        containerName: "vault1",
        permissions: ContainerSASPermissions.parse("rcwdl"),
        startsOn: toDate(systemClock.nowMs() - hourMs),
        expiresOn: toDate(systemClock.nowMs() + hourMs),
        protocol: SASProtocol.Https,
      },
      new StorageSharedKeyCredential("acct1", server.key.toString("base64")),
    );
    await using store = sasStore(server, sas.toString());
    await store.put("made-by-library", Buffer.from("x"));
    assert.ok(await store.head("made-by-library"));
  });

  it("holds a signature to its permissions, time, container and key", async () => {
    const rights: readonly [string, (store: Store) => Promise<unknown>, readonly BlobPermission[]][] = [
      ["put", async (store) => await store.put(`rights-${randomUUID()}`, Buffer.from("x")), ["create", "write"]],
      ["get", async (store) => await store.get("absent"), ["read"]],
      ["list", async (store) => await Array.fromAsync(store.list("")), ["list"]],
      ["remove", async (store) => await store.remove("absent"), ["delete"]],
    ];
    const all: readonly BlobPermission[] = ["read", "create", "write", "delete", "list"];
    for (const [name, call, allowing] of rights) {
      await using lacking = sasStore(server, makeSas(all.filter((permission) => !allowing.includes(permission))));
      await assert.rejects(call(lacking), { code: "Forbidden" }, name);
      for (const permission of allowing) {
        await using holding = sasStore(server, makeSas([permission]));
        await call(holding);
      }
    }
    const bad = [
      makeSas(all, { expiresAtMs: systemClock.nowMs() - 1000 }),
      makeSas(all, { container: "vault2" }),
      makeSas(all, { key: randomBytes(32) }),
      makeSas(["read"]).replace("sp=r", "sp=rl"),
      makeSas(all).replace(/se=\d{4}/, "se=2999"),
      `${makeSas(all)}&sp=r`,
      "?sv=2021-12-02",
    ];
    for (const sas of bad) {
      await using store = sasStore(server, sas);
      await assert.rejects(Array.fromAsync(store.list("")), (error) => {
        assert.ok(error instanceof Fault);
        assert.match(error.message, /refuses the access/);
        assert.ok(!JSON.stringify(toReport(error)).includes("sig="), "no signature in what is told");
        return true;
      });
    }
  });

  it("refuses a shared key request that is old, or whose signed parts were changed", async () => {
    await using late = await startTestBlobServer(join(folder, "late"), {
      clock: { ...systemClock, nowMs: () => systemClock.nowMs() + 16 * 60_000 },
    });
    assert.equal(await codeOf(serviceOf(late).getContainerClient("vault1").create()), "403 AuthenticationFailed");
    const wrong = new StorageSharedKeyCredential("acct1", randomBytes(32).toString("base64"));
    const agent = new Agent({ lookup: server.lookup, ca: server.ca });
    const options = { agent, retryOptions: { maxTries: 1 } };
    assert.equal(
      await codeOf(new BlobServiceClient(server.accountUrl, newPipeline(wrong, options)).getContainerClient("vault1").getProperties()),
      "403 AuthenticationFailed",
    );
  });

  it("leaves nothing of a body that ends early", async () => {
    const path = `/vault1/cut${makeSas(["create"])}`;
    const outgoing = request({
      host: "acct1.blob.test",
      port: server.port,
      lookup: server.lookup,
      ca: server.ca,
      method: "PUT",
      path,
      headers: { host: "acct1.blob.test", "x-ms-blob-type": "BlockBlob", "content-length": 1 << 20 },
    });
    const closed = new Promise((resolve) => outgoing.once("error", resolve).once("close", resolve));
    outgoing.write(Buffer.alloc(1000), () => outgoing.destroy());
    await closed;
    assert.equal(await codeOf(container.getBlobClient("cut").download()), "404 BlobNotFound");
  });

  it("refuses a body over the maximum before it reads it", async () => {
    const answer = await new Promise<number | undefined>((resolve, reject) => {
      const outgoing = request({
        host: "acct1.blob.test",
        port: server.port,
        lookup: server.lookup,
        ca: server.ca,
        method: "PUT",
        path: `/vault1/big${makeSas(["create"])}`,
        headers: { host: "acct1.blob.test", "x-ms-blob-type": "BlockBlob", "content-length": (128 << 20) + 1 },
      });
      outgoing.once("response", (response) => {
        resolve(response.statusCode);
        response.destroy();
      });
      outgoing.once("error", reject);
      outgoing.flushHeaders();
    });
    assert.equal(answer, 413);
  });

  it("carries a vault: what one process seals, a reader through another store opens", async () => {
    await using store = sasStore(server, makeSas(["read", "create", "list"]));
    await using vault = await openTestVault(store, { packBytes: 500_000 });
    const content = randomBytes(3_000_000);
    const pointId = await sealWhole(vault, newMachine(), content);
    await using readingStore = sasStore(server, makeSas(["read", "list"]));
    await using reader = await openVaultReader({ store: readingStore, vaultId, key: testKey });
    await assertContent(reader, pointId, content);
  });

  it("never goes by a proxy of the environment", async () => {
    const before = process.env["HTTPS_PROXY"];
    process.env["HTTPS_PROXY"] = "http://127.0.0.1:1";
    try {
      await using store = sasStore(server, makeSas(["list"]));
      await Array.fromAsync(store.list("none"));
    } finally {
      if (before === undefined) delete process.env["HTTPS_PROXY"];
      else process.env["HTTPS_PROXY"] = before;
    }
  });

  it("keeps what it acknowledged over kill -9, and shows nothing half", async () => {
    const root = join(folder, "killed");
    const key = randomBytes(32);
    const child = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, "test-blob-child.ts"), root],
      {
        stdio: ["pipe", "pipe", "inherit"],
      },
    );
    child.stdin.end(key.toString("base64"));
    const [line] = (await Array.fromAsync(takeLines(createInterface(child.stdout), 1))) as [string];
    const { accountUrl, ca } = JSON.parse(line) as { accountUrl: string; ca: string };
    const running = { accountUrl, ca, key, port: 0, lookup: server.lookup, [Symbol.asyncDispose]: async () => undefined };
    const target = serviceOf(running).getContainerClient("vault1");
    await target.create();
    const acknowledged = new Map<string, Buffer>();
    const exited = new Promise((resolve) => child.once("exit", resolve));
    const writer = async (worker: number): Promise<void> => {
      for (let index = 0; ; index++) {
        const name = `w${worker}/${index}`;
        const bytes = Buffer.alloc(1000 + ((index * 7919) % 3_000_000), `${name} `);
        try {
          await target.getBlockBlobClient(name).upload(bytes, bytes.length);
        } catch {
          return; // The kill.
        }
        acknowledged.set(name, bytes);
        if (acknowledged.size === 40) child.kill("SIGKILL");
      }
    };
    await Promise.all([0, 1, 2, 3].map(writer));
    await exited;
    await using again = await startTestBlobServer(root, { key });
    const reopened = serviceOf(again).getContainerClient("vault1");
    const found = (await Array.fromAsync(reopened.listBlobsFlat())).map(({ name }) => name);
    for (const [name, bytes] of acknowledged) {
      assert.ok(found.includes(name), `${name} was acknowledged`);
      assert.ok(bytes.equals(await reopened.getBlockBlobClient(name).downloadToBuffer()));
    }
    for (const name of found.filter((each) => !acknowledged.has(each))) {
      const index = Number(name.split("/")[1]);
      const bytes = Buffer.alloc(1000 + ((index * 7919) % 3_000_000), `${name} `);
      assert.ok(bytes.equals(await reopened.getBlockBlobClient(name).downloadToBuffer()), `${name} is whole`);
    }
  });
});

async function* takeLines(lines: AsyncIterable<string>, count: number): AsyncGenerator<string, void, undefined> {
  let taken = 0;
  for await (const line of lines) {
    yield line;
    if (++taken === count) return;
  }
}
