// The embedded blob service: the part of the Azure Blob REST API that @azure/storage-blob needs, over a folder.
// What it acknowledges is durable. The account comes from the Host header: <account>.blob.<domain>.

import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { BlobError } from "./blob-error.ts";
import { BlobFiles } from "./blob-files.ts";
import {
  createContainer,
  deleteBlob,
  deleteContainer,
  getBlob,
  getBlobProperties,
  getContainer,
  listBlobs,
  putBlob,
} from "./blob-operations.ts";
import { checkContainerSas, type BlobPermission } from "./sas.ts";
import { refuseSharedKey } from "./shared-key.ts";
import { httpDate } from "./xml.ts";

export interface BlobAccounts {
  /** Keys of an account, any of which signs; undefined when there is no such account. Secret. */
  keysOf(account: string): Promise<readonly Uint8Array[] | undefined>;
}

export interface BlobListenerOptions {
  /** Folder of this service alone. */
  readonly root: string;
  readonly accounts: BlobAccounts;
  readonly clock: Clock;
  readonly log: Log;
  /** Calls under way at once; more are told to come again. 64 unless told. */
  readonly requestsMax?: number;
}

export type BlobListener = (request: IncomingMessage, response: ServerResponse) => void;

/** One call of the service, authorised. */
export interface BlobCall {
  readonly files: BlobFiles;
  readonly clock: Clock;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly account: string;
  readonly container: string;
  /** Empty for calls on the container. */
  readonly name: string;
  readonly query: URLSearchParams;
}

interface Operation {
  /** Any of these permissions allows it; none: only with an account key. */
  readonly permission: readonly BlobPermission[];
  readonly run: (call: BlobCall) => Promise<void>;
}

const containerOperations: Readonly<Record<string, Operation>> = {
  "PUT ": { permission: [], run: createContainer },
  "GET ": { permission: [], run: getContainer },
  "HEAD ": { permission: [], run: getContainer },
  "DELETE ": { permission: [], run: deleteContainer },
  "GET list": { permission: ["list"], run: listBlobs },
};
const blobOperations: Readonly<Record<string, Operation>> = {
  "PUT ": { permission: ["write", "create"], run: putBlob },
  "GET ": { permission: ["read"], run: getBlob },
  "HEAD ": { permission: ["read"], run: getBlobProperties },
  "DELETE ": { permission: ["delete"], run: deleteBlob },
};

const versionPattern = /^\d{4}-\d{2}-\d{2}$/;
const defaultVersion = "2021-12-02";
const accountPattern = /^[a-z0-9]{3,24}$/;
const containerPattern = /^[a-z0-9](-?[a-z0-9]){2,62}$/;

/** Opens the folder and gives a listener to mount behind a server. */
export async function createBlobListener(options: BlobListenerOptions): Promise<BlobListener> {
  const files = await BlobFiles.open(options.root);
  const requestsMax = options.requestsMax ?? 64;
  let running = 0;
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    running += 1;
    try {
      beginAnswer(request, response, options.clock);
      if (running > requestsMax) throw new BlobError("ServerBusy", "The server is busy. Try again later.");
      await handle(options, files, request, response);
    } catch (error) {
      answerError(options.log, request, response, error);
    } finally {
      running -= 1;
    }
  };
  return (request, response) => void serve(request, response);
}

function beginAnswer(request: IncomingMessage, response: ServerResponse, clock: Clock): void {
  const version = request.headers["x-ms-version"];
  const clientRequestId = request.headers["x-ms-client-request-id"];
  response.setHeader("x-ms-version", typeof version === "string" && versionPattern.test(version) ? version : defaultVersion);
  response.setHeader("x-ms-request-id", randomUUID());
  response.setHeader("date", httpDate(clock.nowMs()));
  response.setHeader("server", "watari-blob");
  if (typeof clientRequestId === "string" && /^[\w-]{1,128}$/.test(clientRequestId))
    response.setHeader("x-ms-client-request-id", clientRequestId);
}

async function handle(options: BlobListenerOptions, files: BlobFiles, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [path, queryText] = splitOnce(request.url ?? "/", "?");
  const query = new URLSearchParams(queryText);
  const [account = ""] = (request.headers.host ?? "").split(".");
  const [container, name] = splitOnce(decodePath(path).slice(1), "/");
  const keys = accountPattern.test(account) ? await options.accounts.keysOf(account) : undefined;
  if (keys === undefined) throw new BlobError("ResourceNotFound", "There is no such account here.");
  const operation = findOperation(request.method ?? "", query, name);
  authorise(operation, { request, path, query, account, container, keys, nowMs: options.clock.nowMs() });
  if (operation === undefined) throw new BlobError("NotImplemented", "This front does not have this operation.");
  if (!containerPattern.test(container)) throw new BlobError("InvalidUri", "The container's name has a wrong form.");
  await operation.run({ files, clock: options.clock, request, response, account, container, name, query });
}

function findOperation(method: string, query: URLSearchParams, name: string): Operation | undefined {
  const component = query.get("comp") ?? "";
  if (name !== "")
    return query.has("restype") || query.has("snapshot") || query.has("versionid") ? undefined : blobOperations[`${method} ${component}`];
  return query.get("restype") === "container" ? containerOperations[`${method} ${component}`] : undefined;
}

interface Caller {
  readonly request: IncomingMessage;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly account: string;
  readonly container: string;
  readonly keys: readonly Uint8Array[];
  readonly nowMs: number;
}

/** Throws unless the call is signed well and allowed. The reason of a bad signature is told; the signed text never. */
function authorise(operation: Operation | undefined, caller: Caller): void {
  const { request, query } = caller;
  const refuse = (reason: string): BlobError =>
    new BlobError("AuthenticationFailed", `Server failed to authenticate the request: ${reason}.`);
  if (request.headers.authorization !== undefined) {
    const reason = refuseSharedKey({ ...caller, method: request.method ?? "", headers: request.headers });
    if (reason !== undefined) throw refuse(reason);
    return;
  }
  if (!query.has("sig")) throw refuse("it is not signed");
  const verdict = checkContainerSas({
    ...caller,
    permission: operation?.permission ?? [],
    isEncrypted: request.socket instanceof TLSSocket,
  });
  if (verdict.kind === "refused") throw refuse(verdict.reason);
  if (verdict.kind === "insufficient")
    throw new BlobError("AuthorizationPermissionMismatch", "The signature does not allow this operation.");
}

function answerError(log: Log, request: IncomingMessage, response: ServerResponse, error: unknown): void {
  const isSpace = error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT");
  const refusal =
    error instanceof BlobError
      ? error
      : new BlobError(
          isSpace ? "ServerBusy" : "InternalError",
          isSpace ? "The disk of the service is full." : "The service met an error.",
          { cause: error },
        );
  if (refusal.status >= 500)
    log.error("blob call failed", {
      method: request.method,
      path: splitOnce(request.url ?? "", "?")[0],
      cause: refusal.cause instanceof Error ? refusal.cause.message : refusal.message,
    });
  if (response.headersSent || request.socket.destroyed) {
    response.destroy();
    return;
  }
  // A body that was not read would stand before the next request of the connection.
  if (!request.complete) response.setHeader("connection", "close");
  const body = request.method === "HEAD" ? "" : refusal.toXml();
  response.writeHead(refusal.status, {
    "x-ms-error-code": refusal.code,
    "content-type": "application/xml",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch (cause) {
    throw new BlobError("InvalidUri", "The path is not well encoded.", { cause });
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
