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
  listContainers,
  putBlob,
} from "./blob-operations.ts";
import { checkSas, type BlobPermission, type SasLevel } from "./sas.ts";
import { refuseSharedKey } from "./shared-key.ts";
import { httpDate } from "./xml.ts";

export interface BlobAccounts {
  /** Keys of an account, any of which signs; undefined when there is no such account. Secret. */
  keysOf(account: string): Promise<readonly Uint8Array[] | undefined>;
}

export interface BlobListenerOptions {
  readonly files: BlobFiles;
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
  /** False for a signature that may create blobs and not write them. */
  readonly canReplace: boolean;
}

interface Operation {
  readonly level: SasLevel;
  /** Any of these permissions of a container's or blob's signature allows it; none: only an account's key or signature does. */
  readonly permission: readonly BlobPermission[];
  /** Of an account's signature; as `permission` unless told. */
  readonly accountPermission?: readonly BlobPermission[];
  readonly run: (call: BlobCall) => Promise<void>;
}

const serviceOperations: Readonly<Record<string, Operation>> = {
  "GET list": { level: "service", permission: [], accountPermission: ["list"], run: listContainers },
};
const containerOperations: Readonly<Record<string, Operation>> = {
  "PUT ": { level: "container", permission: [], accountPermission: ["create", "write"], run: createContainer },
  "GET ": { level: "container", permission: [], accountPermission: ["read"], run: getContainer },
  "HEAD ": { level: "container", permission: [], accountPermission: ["read"], run: getContainer },
  "DELETE ": { level: "container", permission: [], accountPermission: ["delete"], run: deleteContainer },
  "GET list": { level: "container", permission: ["list"], run: listBlobs },
};
const blobOperations: Readonly<Record<string, Operation>> = {
  "PUT ": { level: "object", permission: ["write", "create"], run: putBlob },
  "GET ": { level: "object", permission: ["read"], run: getBlob },
  "HEAD ": { level: "object", permission: ["read"], run: getBlobProperties },
  "DELETE ": { level: "object", permission: ["delete"], run: deleteBlob },
};

const versionPattern = /^\d{4}-\d{2}-\d{2}$/;
const defaultVersion = "2021-12-02";
const accountPattern = /^[a-z0-9]{3,24}$/;
export const containerPattern = /^[a-z0-9](-?[a-z0-9]){2,62}$/;

/** How often at most the log tells that calls were turned away. */
const busyTellMs = 10_000;

/** A listener to mount behind a server. */
export function createBlobListener(options: BlobListenerOptions): BlobListener {
  const requestsMax = options.requestsMax ?? 64;
  const tellBusy = createBusyTeller(options, requestsMax);
  let running = 0;
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    running += 1;
    try {
      beginAnswer(request, response, options.clock);
      if (running > requestsMax) {
        tellBusy();
        throw new BlobError("ServerBusy", "The server is busy. Try again later.");
      }
      await handle(options, request, response);
    } catch (error) {
      answerError(options.log, request, response, error);
    } finally {
      running -= 1;
    }
  };
  return (request, response) => void serve(request, response);
}

/** Being busy is no error: callers are told to come again, and do. One line now and then tells how many. */
function createBusyTeller({ clock, log }: BlobListenerOptions, requestsMax: number): () => void {
  let turnedAwayCount = 0;
  let toldAtMs = Number.NEGATIVE_INFINITY;
  return () => {
    turnedAwayCount += 1;
    const nowMs = clock.monotonicMs();
    if (nowMs - toldAtMs < busyTellMs) return;
    log.warn("blob calls turned away", { turnedAwayCount, requestsMax });
    turnedAwayCount = 0;
    toldAtMs = nowMs;
  };
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

async function handle(options: BlobListenerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [path, queryText] = splitOnce(request.url ?? "/", "?");
  const query = new URLSearchParams(queryText);
  const [account = ""] = (request.headers.host ?? "").split(".");
  const [container, name] = splitOnce(decodePath(path).slice(1), "/");
  const keys = accountPattern.test(account) ? await options.accounts.keysOf(account) : undefined;
  if (keys === undefined) throw new BlobError("ResourceNotFound", "There is no such account here.");
  const operation = findOperation(request.method ?? "", query, { container, name });
  const { canReplace } = authorise(operation, { request, path, query, account, container, name, keys, nowMs: options.clock.nowMs() });
  if (operation === undefined) throw new BlobError("NotImplemented", "This front does not have this operation.");
  if (operation.level !== "service" && !containerPattern.test(container))
    throw new BlobError("InvalidUri", "The container's name has a wrong form.");
  const { files, clock } = options;
  await operation.run({ files, clock, request, response, account, container, name, query, canReplace });
}

function findOperation(
  method: string,
  query: URLSearchParams,
  { container, name }: { readonly container: string; readonly name: string },
): Operation | undefined {
  const component = query.get("comp") ?? "";
  if (name !== "")
    return query.has("restype") || query.has("snapshot") || query.has("versionid") ? undefined : blobOperations[`${method} ${component}`];
  if (container === "") return query.has("restype") ? undefined : serviceOperations[`${method} ${component}`];
  return query.get("restype") === "container" ? containerOperations[`${method} ${component}`] : undefined;
}

interface Caller {
  readonly request: IncomingMessage;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly account: string;
  readonly container: string;
  readonly name: string;
  readonly keys: readonly Uint8Array[];
  readonly nowMs: number;
}

/** Throws unless the call is signed well and allowed. The reason of a bad signature is told; the signed text never. */
function authorise(operation: Operation | undefined, caller: Caller): { readonly canReplace: boolean } {
  const { request, query } = caller;
  const refuse = (reason: string): BlobError =>
    new BlobError("AuthenticationFailed", `Server failed to authenticate the request: ${reason}.`);
  if (request.headers.authorization !== undefined) {
    const reason = refuseSharedKey({ ...caller, method: request.method ?? "", headers: request.headers });
    if (reason !== undefined) throw refuse(reason);
    return { canReplace: true };
  }
  if (!query.has("sig")) throw refuse("it is not signed");
  const permission = operation?.permission ?? [];
  const verdict = checkSas({
    ...caller,
    level: operation?.level ?? "object",
    permission,
    accountPermission: operation?.accountPermission ?? permission,
    isEncrypted: request.socket instanceof TLSSocket,
    address: request.socket.remoteAddress ?? "",
  });
  if (verdict.kind === "refused") throw refuse(verdict.reason);
  if (verdict.kind === "insufficient")
    throw new BlobError("AuthorizationPermissionMismatch", "The signature does not allow this operation.");
  return { canReplace: verdict.canReplace };
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
  // A call turned away for being one too many is told by createBusyTeller; a full disk is busy too, and someone must act.
  if (refusal.status >= 500 && (refusal.code !== "ServerBusy" || refusal.cause !== undefined))
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
