// AzureBlobStore against the public emulator, which runs as a child of this test.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { BlobServiceClient, StorageSharedKeyCredential } from "@azure/storage-blob";
import { openAzureBlobStore } from "./azure-blob-store.ts";
import { testStore } from "./store-suite.ts";

// The emulator's well-known account; it guards nothing.
const accountName = "devstoreaccount1";
const accountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

let folder = "";
let child: ChildProcess;
let accountUrl = "";

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-azurite-"));
  const program = join(import.meta.dirname, "../../node_modules/.bin/azurite-blob");
  const started = spawn(
    process.execPath,
    [program, "--blobPort", "0", "--location", folder, "--skipApiVersionCheck", "--disableTelemetry"],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  child = started;
  for await (const line of createInterface(started.stdout)) {
    const match = /listens on (http:\S+)/.exec(line);
    if (match === null) continue;
    accountUrl = `${match[1]}/${accountName}`;
    break;
  }
  started.stdout.resume();
  assert.ok(accountUrl, "the emulator says where it listens");
  const service = new BlobServiceClient(accountUrl, new StorageSharedKeyCredential(accountName, accountKey));
  await service.createContainer("vault1");
});
after(async () => {
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
  await rm(folder, { recursive: true });
});

testStore("Azurite", async () =>
  openAzureBlobStore({ accountUrl, container: "vault1", credential: { kind: "sharedKey", accountName, accountKey } }),
);

describe("AzureBlobStore", () => {
  it("says what is wrong when the account does not answer, has no container or refuses the key", async () => {
    const credential = { kind: "sharedKey", accountName, accountKey } as const;
    await using closed = openAzureBlobStore({ accountUrl: "http://127.0.0.1:1/devstoreaccount1", container: "vault1", credential });
    await assert.rejects(closed.get("a"), { code: "StoreUnavailable" });
    await using absent = openAzureBlobStore({ accountUrl, container: "absent", credential });
    await assert.rejects(absent.put("a", Buffer.from("x")), { code: "NotFound" });
    await using foreign = openAzureBlobStore({
      accountUrl,
      container: "vault1",
      credential: { kind: "sharedKey", accountName, accountKey: Buffer.alloc(64).toString("base64") },
    });
    await assert.rejects(foreign.head("a"), { code: "Forbidden" });
  });
});
