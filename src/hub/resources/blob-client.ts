// The hub as a client of a storage account: the same Blob API that appliances use, dialled at the account's private endpoint.

import { ContainerClient, newPipeline, RestError, StorageSharedKeyCredential, type StoragePipelineOptions } from "@azure/storage-blob";
import { Agent } from "node:https";
import type { LookupFunction } from "node:net";
import { Fault } from "../../contract/errors.ts";
import type { VaultPlace } from "./vault-access.ts";

/** Creates the vault's container unless it is there. */
export async function ensureContainer(storage: VaultPlace["storage"], signal: AbortSignal): Promise<void> {
  const agent = new Agent({ ca: storage.caPem, lookup: lookupOf(storage.address), keepAlive: false });
  // The pipeline passes `agent` on to every request; the option's type does not name it.
  const options: StoragePipelineOptions & { readonly agent: Agent } = { agent };
  const pipeline = newPipeline(new StorageSharedKeyCredential(storage.accountName, storage.accountKey), options);
  const client = new ContainerClient(`${storage.accountUrl}/${storage.container}`, pipeline);
  try {
    await client.createIfNotExists({ abortSignal: signal });
  } catch (error) {
    throw new Fault("StoreUnavailable", `could not prepare the container ${storage.container}`, {
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
