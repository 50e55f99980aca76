// Where a managed disk's content is written and read: page blob calls on a signed address, as Azure gives it for an upload.
// What is acknowledged is durable. The address is the proof; no token is asked for.

import { createHash, randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { TLSSocket } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { WritableDisk } from "../../disk/disk.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { BlobError } from "../blob/blob-error.ts";
import { checkSas, makeServiceSas, signedTime, type BlobPermission } from "../blob/sas.ts";
import type { SecretStore } from "../db/secrets.ts";
import { httpDate } from "../blob/xml.ts";
import type { ManagedDisks } from "./managed-disks.ts";

export const diskPathPrefix = "/disks/";
const diskAccessSecret = "access";
const account = "disks";
const pageBytes = 512;
/** Largest Put Page, and largest piece of an answer that is held. */
const writeBytesMax = 4 << 20;
const readPieceBytes = 1 << 20;
const rangesMax = 10_000;
const requestsMax = 64;
const keyBytes = 32;

interface DoorParts {
  readonly secrets: SecretStore;
  readonly disks: ManagedDisks;
  readonly clock: Clock;
  readonly log: Log;
}

/** A new address of the disk's content; good until its time or until the secret of its disk is removed. It is a secret. */
export async function diskAddress(
  hub: { readonly secrets: SecretStore; readonly clock: Clock; readonly random: { bytes(count: number): Uint8Array } },
  wanted: { readonly id: ResourceId; readonly origin: string; readonly access: "Read" | "Write"; readonly lifeSeconds: number },
): Promise<string> {
  const key = await hub.secrets.getOrCreate(wanted.id.key, diskAccessSecret, () => hub.random.bytes(keyBytes));
  const name = blobNameOf(wanted.id);
  const expiresAtMs = hub.clock.nowMs() + wanted.lifeSeconds * 1000;
  const fields = { sr: "b", sp: wanted.access === "Write" ? "rw" : "r", se: signedTime(expiresAtMs), spr: "https" };
  return `${wanted.origin}${diskPathPrefix}${encodeURI(name)}?${makeServiceSas({ account, key, container: account, blob: name, fields })}`;
}

export function createDiskDoor(parts: DoorParts): (request: IncomingMessage, response: ServerResponse) => void {
  let running = 0;
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    running += 1;
    try {
      stamp(request, response, parts.clock);
      if (running > requestsMax) throw new BlobError("ServerBusy", "The server is busy. Try again later.");
      await handle(parts, request, response);
    } catch (error) {
      refuse(parts.log, request, response, error);
    } finally {
      running -= 1;
    }
  };
  return (request, response) => void serve(request, response);
}

interface DiskCall {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly content: WritableDisk;
  readonly clock: Clock;
}

interface Operation {
  readonly permission: BlobPermission;
  readonly run: (call: DiskCall) => Promise<void>;
}

const operations: Readonly<Record<string, Operation>> = {
  "PUT page": { permission: "write", run: putPage },
  "GET ": { permission: "read", run: getContent },
  "HEAD ": { permission: "read", run: getProperties },
  "GET pagelist": { permission: "read", run: getPageRanges },
};

async function handle(parts: DoorParts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "https://disks");
  const name = decodeURIComponent(url.pathname.slice(diskPathPrefix.length));
  const id = idOf(name);
  const operation = operations[`${request.method ?? ""} ${url.searchParams.get("comp") ?? ""}`];
  const key = await parts.secrets.find(id.key, diskAccessSecret);
  const verdict = checkSas({
    query: url.searchParams,
    ...{ account, container: account, name },
    keys: key === undefined ? [] : [key],
    level: "object",
    permission: operation === undefined ? [] : [operation.permission],
    accountPermission: [],
    nowMs: parts.clock.nowMs(),
    isEncrypted: request.socket instanceof TLSSocket,
    address: request.socket.remoteAddress ?? "",
  });
  if (verdict.kind === "refused")
    throw new BlobError("AuthenticationFailed", `Server failed to authenticate the request: ${verdict.reason}.`);
  if (verdict.kind === "insufficient")
    throw new BlobError("AuthorizationPermissionMismatch", "The signature does not allow this operation.");
  if (operation === undefined) throw new BlobError("NotImplemented", "This front does not have this operation.");
  const { clock, disks } = parts;
  const done = await disks.withContent(id, async (content) => await operation.run({ request, response, content, clock }));
  if (done === undefined) throw new BlobError("BlobNotFound", "This host does not have the disk's content.");
}

async function putPage({ request, response, content, clock }: DiskCall): Promise<void> {
  for (const name of ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "x-ms-copy-source", "x-ms-content-crc64"])
    if (request.headers[name] !== undefined) throw new BlobError("NotImplemented", `The header ${name} is not known here.`);
  const range = rangeOf(request, content.sizeBytes);
  if (range === undefined) throw new BlobError("InvalidHeaderValue", "A range is missing.");
  const { offset, length } = range;
  if (offset % pageBytes !== 0 || length % pageBytes !== 0) throw new BlobError("InvalidPageRange", "Pages have 512 bytes.");
  const how = request.headers["x-ms-page-write"];
  if (how === "clear") await clearPages(content, range);
  else if (how === "update") {
    if (length > writeBytesMax) throw new BlobError("RequestBodyTooLarge", `A write may have ${writeBytesMax} bytes.`);
    await content.write(offset, await readBody(request, length));
  } else throw new BlobError("InvalidHeaderValue", "x-ms-page-write is update or clear.");
  await content.flush();
  response.writeHead(201, { ...standing(clock), "x-ms-blob-sequence-number": "0", "content-length": 0 }).end();
}

/** Writes zeros piece by piece: a page that is cleared reads as zeros; its range may still be listed. */
async function clearPages(content: WritableDisk, { offset, length }: Range): Promise<void> {
  const zeros = Buffer.alloc(Math.min(length, readPieceBytes));
  for (let at = offset; at < offset + length; at += zeros.length) await content.write(at, zeros.subarray(0, offset + length - at));
}

async function readBody(request: IncomingMessage, length: number): Promise<Buffer> {
  if (Number(request.headers["content-length"]) !== length)
    throw new BlobError("InvalidHeaderValue", "The body has another length than the range.");
  const body = Buffer.allocUnsafe(length);
  let filled = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(chunk) || filled + chunk.length > length) throw new BlobError("InvalidHeaderValue", "The body is too long.");
    body.set(chunk, filled);
    filled += chunk.length;
  }
  if (filled !== length) throw new BlobError("InvalidHeaderValue", "The body is cut.");
  const expected = request.headers["content-md5"];
  if (expected !== undefined && createHash("md5").update(body).digest("base64") !== expected)
    throw new BlobError("Md5Mismatch", "The MD5 value specified in the request did not match the value calculated by the server.");
  return body;
}

async function getContent({ request, response, content, clock }: DiskCall): Promise<void> {
  const range = rangeOf(request, content.sizeBytes);
  const { offset, length } = range ?? { offset: 0, length: content.sizeBytes };
  response.writeHead(range === undefined ? 200 : 206, {
    ...properties(clock),
    "content-length": length,
    ...(range === undefined ? {} : { "content-range": `bytes ${offset}-${offset + length - 1}/${content.sizeBytes}` }),
  });
  for (let at = offset; at < offset + length;) {
    const piece = Buffer.allocUnsafe(Math.min(readPieceBytes, offset + length - at));
    await content.read(at, piece);
    at += piece.length;
    if (!response.write(piece) && !(await isDrained(response))) return;
  }
  response.end();
}

/** False when the reader went away. */
async function isDrained(response: ServerResponse): Promise<boolean> {
  if (response.destroyed) return false;
  return await new Promise((resolve) => {
    const settle = (isOpen: boolean): void => {
      response.off("drain", onDrain).off("close", onClose);
      resolve(isOpen);
    };
    const onDrain = (): void => settle(true);
    const onClose = (): void => settle(false);
    response.once("drain", onDrain).once("close", onClose);
  });
}

async function getProperties({ response, content, clock }: DiskCall): Promise<void> {
  response.writeHead(200, { ...properties(clock), "x-ms-blob-sequence-number": "0", "content-length": content.sizeBytes }).end();
}

/** What the file holds, in the units of its filesystem: a range may be longer than what was written, never shorter. */
async function getPageRanges({ request, response, content, clock }: DiskCall): Promise<void> {
  const range = rangeOf(request, content.sizeBytes) ?? { offset: 0, length: content.sizeBytes };
  const extents = await content.extents(range.offset, range.length);
  const data = extents.filter(({ kind }) => kind === "data");
  if (data.length > rangesMax) throw new BlobError("OutOfRangeInput", `More than ${rangesMax} ranges: ask for a part of the disk.`);
  const items = data.map(({ offset, length }) => `<PageRange><Start>${offset}</Start><End>${offset + length - 1}</End></PageRange>`);
  const body = `<?xml version="1.0" encoding="utf-8"?><PageList>${items.join("")}</PageList>`;
  response
    .writeHead(200, {
      ...standing(clock),
      "x-ms-blob-content-length": content.sizeBytes,
      "content-type": "application/xml",
      "content-length": Buffer.byteLength(body),
    })
    .end(body);
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

function rangeOf({ headers }: IncomingMessage, sizeBytes: number): Range | undefined {
  const text = headers["x-ms-range"] ?? headers["range"];
  if (text === undefined) return undefined;
  const match = /^bytes=(\d{1,15})-(\d{1,15})?$/.exec(String(text));
  if (match === null) throw new BlobError("InvalidHeaderValue", "The range has another form.");
  const offset = Number(match[1]);
  const end = match[2] === undefined ? sizeBytes : Number(match[2]) + 1;
  if (end <= offset || end > sizeBytes)
    throw new BlobError("InvalidRange", "The range specified is invalid for the current size of the resource.");
  return { offset, length: end - offset };
}

/** The content's own tag and time would need a record of each write; nobody here writes under a condition. */
function standing(clock: Clock): Record<string, string> {
  return { etag: `"0x0"`, "last-modified": httpDate(clock.nowMs()) };
}

function properties(clock: Clock): Record<string, string> {
  return { ...standing(clock), "content-type": "application/octet-stream", "x-ms-blob-type": "PageBlob", "accept-ranges": "bytes" };
}

function blobNameOf({ names, parentText, name }: ResourceId): string {
  const [, , subscription = "", , group = ""] = parentText.split("/");
  if (names.length !== 1) throw new Error("assertion failed: a disk stands right in its group");
  return `${subscription}/${group}/${name}`.toLowerCase();
}

function idOf(name: string): ResourceId {
  const parts = name.split("/");
  if (parts.length !== 3 || parts.some((part) => part === "")) throw new BlobError("InvalidUri", "The address is of no disk.");
  const [subscription = "", group = "", disk = ""] = parts;
  try {
    return parseResourceId(`/subscriptions/${subscription}/resourceGroups/${group}/providers/Microsoft.Compute/disks/${disk}`);
  } catch (cause) {
    throw new BlobError("InvalidUri", "The address is of no disk.", { cause });
  }
}

function stamp(request: IncomingMessage, response: ServerResponse, clock: Clock): void {
  const clientRequestId = request.headers["x-ms-client-request-id"];
  response.setHeader("x-ms-version", "2021-12-02");
  response.setHeader("x-ms-request-id", randomUUID());
  response.setHeader("date", httpDate(clock.nowMs()));
  if (typeof clientRequestId === "string" && /^[\w-]{1,128}$/.test(clientRequestId))
    response.setHeader("x-ms-client-request-id", clientRequestId);
}

function refuse(log: Log, request: IncomingMessage, response: ServerResponse, error: unknown): void {
  const isFull = error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT");
  const refusal =
    error instanceof BlobError
      ? error
      : isFull
        ? new BlobError("ServerBusy", "The disk of the service is full.", { cause: error })
        : new BlobError("InternalError", "The service met an error.", { cause: error });
  if (refusal.status >= 500 && refusal.cause !== undefined)
    log.error("disk call failed", {
      method: request.method,
      cause: refusal.cause instanceof Error ? refusal.cause.message : refusal.message,
    });
  if (response.headersSent || request.socket.destroyed) {
    response.destroy();
    return;
  }
  if (!request.complete) response.setHeader("connection", "close");
  const body = request.method === "HEAD" ? "" : refusal.toXml();
  response.writeHead(refusal.status, {
    "x-ms-error-code": refusal.code,
    "content-type": "application/xml",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}
