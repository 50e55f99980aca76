// A store in a container of an Azure storage account, real or our own front, through @azure/storage-blob.

import { createHash } from "node:crypto";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent, type AgentOptions } from "node:https";
import { Readable } from "node:stream";
import {
  AnonymousCredential,
  ContainerClient,
  newPipeline,
  RestError,
  StorageSharedKeyCredential,
  type Pipeline,
  type StoragePipelineOptions,
} from "@azure/storage-blob";
import { assert } from "../base/assert.ts";
import { Fault } from "../contract/errors.ts";
import { assertKey, assertPrefix } from "./key.ts";
import { rangeFault, takenKeyFault, unavailableFault } from "./store-faults.ts";
import type { BlobRange, Store, StoredBlob, StoreKey } from "./store.ts";

export type BlobCredential =
  /** Asked before each call, so that a grant can be replaced while the store is open; with or without a leading "?". Secret. */
  | { readonly kind: "sas"; readonly sas: () => Promise<string> }
  /** Base64 account key. Secret. */
  | { readonly kind: "sharedKey"; readonly accountName: string; readonly accountKey: string };

export interface AzureBlobStoreOptions {
  /** "https://<account>.blob.<domain>", or with the account in the path for an emulator. */
  readonly accountUrl: string;
  readonly container: string;
  readonly credential: BlobCredential;
  /** How connections are made: lookup, ca and whatever node:https offers. Proxies of the environment are never used. */
  readonly connection?: Pick<AgentOptions, "lookup" | "ca" | "localAddress" | "servername">;
  /** A ready agent instead, for callers that decide connections by themselves; it stays the caller's. */
  readonly agent?: HttpsAgent;
  /** Connections at once; 16 unless told. */
  readonly connectionsMax?: number;
  /** Called before each piece of a body is sent and after each that came; what it answers is waited for. A limit of the line sits here. */
  readonly pace?: (bytes: number, signal?: AbortSignal) => Promise<void> | undefined;
}

/** What passes at once under a limit. */
const paceBytes = 64 << 10;
/** Heads of a request and its answer, about. */
const headsBytes = 1200;

const blobBytesMax = 128 << 20;

/** Opens the store; the container exists already. Does not call the account yet. */
export function openAzureBlobStore(options: AzureBlobStoreOptions): Store {
  return new AzureBlobStore(options);
}

class AzureBlobStore implements Store {
  readonly #options: AzureBlobStoreOptions;
  readonly #agent: HttpsAgent | HttpAgent;
  readonly #pipeline: Pipeline;
  #sas = "";
  #client: ContainerClient | undefined;

  constructor(options: AzureBlobStoreOptions) {
    this.#options = options;
    const agentOptions: AgentOptions = { keepAlive: true, maxSockets: options.connectionsMax ?? 16, ...options.connection };
    this.#agent = options.agent ?? (options.accountUrl.startsWith("http:") ? new HttpAgent(agentOptions) : new HttpsAgent(agentOptions));
    const { credential } = options;
    // The pipeline passes `agent` on to every request, where it comes before any proxy; the option's type does not name it.
    const pipelineOptions: StoragePipelineOptions & { readonly agent: HttpsAgent | HttpAgent } = {
      agent: this.#agent,
      retryOptions: { maxTries: 1 },
    };
    this.#pipeline = newPipeline(
      credential.kind === "sas" ? new AnonymousCredential() : new StorageSharedKeyCredential(credential.accountName, credential.accountKey),
      pipelineOptions,
    );
  }

  async put(key: StoreKey, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    assertKey(key);
    assert(bytes.length <= blobBytesMax, "a blob is put in one call");
    const md5 = await md5Of(bytes);
    const isTaken = await this.#call("store an object", key, signal, async (container) => {
      try {
        const { pace } = this.#options;
        const body = pace === undefined ? bytes : (): NodeJS.ReadableStream => Readable.from(pacedPieces(bytes, pace, signal));
        await container.getBlockBlobClient(key).upload(body, bytes.length, {
          conditions: { ifNoneMatch: "*" },
          transactionalContentMD5: md5,
          blobHTTPHeaders: { blobContentType: "application/octet-stream" },
          ...withSignal(signal),
        });
        return false;
      } catch (error) {
        if (error instanceof RestError && (error.statusCode === 409 || error.statusCode === 412)) return true;
        throw error;
      }
    });
    if (!isTaken) return;
    const stored = await this.get(key, undefined, signal);
    if (stored === undefined || Buffer.compare(stored, bytes) !== 0) throw takenKeyFault(key);
  }

  async get(key: StoreKey, range?: BlobRange, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    assertKey(key);
    if (range?.length === 0) return await this.#getNothing(key, range, signal);
    return await this.#call("read an object", key, signal, async (container) => {
      try {
        const response = await container.getBlobClient(key).download(range?.offset ?? 0, range?.length, withSignal(signal));
        const stream = response.readableStreamBody;
        assert(stream !== undefined && response.contentLength !== undefined, "a download has a length and a body");
        const wantedBytes = range?.length ?? response.contentLength;
        if (response.contentLength !== wantedBytes) {
          if ("destroy" in stream && typeof stream.destroy === "function") stream.destroy();
          throw rangeFault(key, range ?? { offset: 0, length: wantedBytes }, (range?.offset ?? 0) + response.contentLength);
        }
        return await collect(stream, wantedBytes, this.#options.pace);
      } catch (error) {
        if (error instanceof RestError && error.statusCode === 404 && error.code === "BlobNotFound") return undefined;
        if (error instanceof RestError && error.statusCode === 416 && range !== undefined) throw rangeFault(key, range, -1);
        if (error instanceof RestError && error.statusCode === 416) return new Uint8Array(0);
        throw error;
      }
    });
  }

  async head(key: StoreKey, signal?: AbortSignal): Promise<StoredBlob | undefined> {
    assertKey(key);
    return await this.#call("look at an object", key, signal, async (container) => {
      try {
        const { contentLength } = await container.getBlobClient(key).getProperties(withSignal(signal));
        return { key, sizeBytes: contentLength ?? 0 };
      } catch (error) {
        if (error instanceof RestError && error.statusCode === 404) return undefined;
        throw error;
      }
    });
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredBlob, void, undefined> {
    assertPrefix(prefix);
    let continuationToken: string | undefined;
    do {
      const token: string | undefined = continuationToken;
      const page = await this.#call("list objects", prefix, signal, async (container) => {
        const pages = container
          .listBlobsFlat({ prefix, ...withSignal(signal) })
          .byPage({ maxPageSize: 5000, ...(token === undefined ? {} : { continuationToken: token }) });
        for await (const each of pages) return each;
        return undefined;
      });
      for (const { name, properties } of page?.segment.blobItems ?? []) yield { key: name, sizeBytes: properties.contentLength ?? 0 };
      continuationToken = page?.continuationToken === "" ? undefined : page?.continuationToken;
    } while (continuationToken !== undefined);
  }

  async remove(key: StoreKey, signal?: AbortSignal): Promise<void> {
    assertKey(key);
    await this.#call("remove an object", key, signal, async (container) => {
      await container.getBlobClient(key).deleteIfExists(withSignal(signal));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#options.agent === undefined) this.#agent.destroy();
  }

  /** An empty range of a blob: Azure has no word for it, so only the size is asked. */
  async #getNothing(key: StoreKey, range: BlobRange, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const blob = await this.head(key, signal);
    if (blob === undefined) return undefined;
    if (range.offset > blob.sizeBytes) throw rangeFault(key, range, blob.sizeBytes);
    return new Uint8Array(0);
  }

  async #call<T>(
    doing: string,
    key: string,
    signal: AbortSignal | undefined,
    task: (container: ContainerClient) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted();
    try {
      return await task(await this.#container());
    } catch (error) {
      signal?.throwIfAborted();
      throw asStoreFault(doing, key, error);
    }
  }

  async #container(): Promise<ContainerClient> {
    const { credential, accountUrl, container } = this.#options;
    const sas = credential.kind === "sas" ? (await credential.sas()).replace(/^\?/, "") : "";
    if (this.#client === undefined || sas !== this.#sas) {
      this.#sas = sas;
      this.#client = new ContainerClient(`${accountUrl.replace(/\/$/, "")}/${container}${sas === "" ? "" : `?${sas}`}`, this.#pipeline);
    }
    return this.#client;
  }
}

/** Lets others run between pieces: a whole pack takes a tenth of a second. */
async function md5Of(bytes: Uint8Array): Promise<Uint8Array> {
  const pieceBytes = 4 << 20;
  const md5 = createHash("md5");
  for (let offset = 0; offset < bytes.length; offset += pieceBytes) {
    md5.update(bytes.subarray(offset, offset + pieceBytes));
    await new Promise((resolve) => setImmediate(resolve));
  }
  return md5.digest();
}

function withSignal(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

type Pace = NonNullable<AzureBlobStoreOptions["pace"]>;

async function* pacedPieces(bytes: Uint8Array, pace: Pace, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  await pace(headsBytes, signal);
  for (let offset = 0; offset < bytes.length; offset += paceBytes) {
    const piece = bytes.subarray(offset, offset + paceBytes);
    const passing = pace(piece.length, signal);
    if (passing !== undefined) await passing;
    yield piece;
  }
}

async function collect(stream: NodeJS.ReadableStream, sizeBytes: number, pace: Pace | undefined): Promise<Uint8Array> {
  await pace?.(headsBytes);
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let filled = 0;
  for await (const chunk of stream) {
    assert(Buffer.isBuffer(chunk), "a download gives bytes");
    if (filled + chunk.length > sizeBytes) break;
    bytes.set(chunk, filled);
    filled += chunk.length;
    const passing = pace?.(chunk.length);
    if (passing !== undefined) await passing;
  }
  if (filled !== sizeBytes) throw new Error(`the body ended after ${filled} of ${sizeBytes} bytes`);
  return bytes;
}

/** The SDK's errors hold the address with its signature: they stay private causes, only status and code are told. */
function asStoreFault(doing: string, key: string, error: unknown): Fault {
  if (error instanceof Fault) return error;
  if (!(error instanceof RestError) || error.statusCode === undefined || error.statusCode >= 500 || error.statusCode === 429)
    return unavailableFault(doing, key, error);
  const evidence = { key, status: error.statusCode, errorCode: error.code ?? "" };
  if (error.statusCode === 401 || error.statusCode === 403)
    return new Fault("Forbidden", `could not ${doing}: the storage account refuses the access`, {
      evidence,
      causes: [
        "the storage grant has expired or was withdrawn",
        "the clock of this machine is wrong",
        "public access is off and the call came by the public door",
      ],
      action: "check the clock and the storage account's private endpoint, then ask for a new storage grant",
      cause: error,
    });
  if (error.statusCode === 404)
    return new Fault("NotFound", `could not ${doing}: the storage account has no such container`, { evidence, cause: error });
  return new Fault("StoreUnavailable", `could not ${doing}: the storage account refuses the call`, {
    evidence,
    retry: "never",
    cause: error,
  });
}
