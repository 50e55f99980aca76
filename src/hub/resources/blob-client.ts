// The hub as a client of a storage account: the same Blob API that appliances use, dialled at the account's private endpoint.

import { ContainerClient, newPipeline, RestError, StorageSharedKeyCredential, type StoragePipelineOptions } from "@azure/storage-blob";
import { Agent } from "node:https";
import type { LookupFunction } from "node:net";
import { Fault } from "../../contract/errors.ts";
import type { VaultPlace } from "./vault-access.ts";

/** Creates the vault's container unless it is there. */
export async function ensureContainer(storage: VaultPlace["storage"], signal: AbortSignal): Promise<void> {
  await withContainer(storage, `prepare the container ${storage.container}`, async (client) => {
    await client.createIfNotExists({ abortSignal: signal });
  });
}

const droppedMax = 1000;

/** Writes a small file, whole, into a container that is made if need be; files of it that are older than told are removed. */
export async function putFile(
  storage: VaultPlace["storage"],
  file: { readonly name: string; readonly text: string; readonly contentType: string; readonly dropBeforeMs: number },
  signal: AbortSignal,
): Promise<void> {
  await withContainer(storage, `write ${file.name} to the container ${storage.container}`, async (client) => {
    await client.createIfNotExists({ abortSignal: signal });
    const bytes = Buffer.from(file.text, "utf8");
    const options = { abortSignal: signal, blobHTTPHeaders: { blobContentType: file.contentType } };
    await client.getBlockBlobClient(file.name).upload(bytes, bytes.length, options);
    let seenCount = 0;
    for await (const { name, properties } of client.listBlobsFlat({ abortSignal: signal })) {
      if (properties.lastModified.getTime() < file.dropBeforeMs) await client.deleteBlob(name, { abortSignal: signal });
      if (++seenCount >= droppedMax) return;
    }
  });
}

async function withContainer(
  storage: VaultPlace["storage"],
  doing: string,
  task: (client: ContainerClient) => Promise<void>,
): Promise<void> {
  const agent = new Agent({ ca: storage.caPem, lookup: lookupOf(storage.address), keepAlive: false });
  // The pipeline passes `agent` on to every request; the option's type does not name it.
  const options: StoragePipelineOptions & { readonly agent: Agent } = { agent };
  const pipeline = newPipeline(new StorageSharedKeyCredential(storage.accountName, storage.accountKey), options);
  try {
    await task(new ContainerClient(`${storage.accountUrl}/${storage.container}`, pipeline));
  } catch (error) {
    throw new Fault("StoreUnavailable", `could not ${doing}`, {
      evidence: {
        account: storage.accountName,
        address: storage.address,
        reason: error instanceof RestError ? (error.code ?? String(error.statusCode)) : "unknown",
      },
      cause: error,
    });
  } finally {
    agent.destroy();
  }
}

/** Answers every name with one address: the private endpoint's, whatever DNS says. */
export function lookupOf(address: string): LookupFunction {
  return (_name, options, answer) => {
    if (options.all === true) answer(null, [{ address, family: 4 }]);
    else answer(null, address, 4);
  };
}
