// The operations of the blob front: each reads its request, acts on the files, and answers as the service does.

import { createHash, randomBytes } from "node:crypto";
import { BlobError } from "./blob-error.ts";
import type { BlobFacts, OpenBlob } from "./blob-files.ts";
import type { BlobCall } from "./blob-listener.ts";
import { blobListXml, containerListXml, httpDate } from "./xml.ts";

/** Largest Put Blob. */
const blobBytesMax = 128 << 20;
const listedMax = 5000;
const copyBytes = 1 << 20;

export async function listContainers({ files, account, query, request, response, clock }: BlobCall): Promise<void> {
  const [prefix, marker] = [query.get("prefix") ?? "", query.get("marker") ?? ""];
  const asked = Number(query.get("maxresults") ?? listedMax);
  if (!Number.isInteger(asked) || asked < 1) throw new BlobError("OutOfRangeInput", "maxresults is out of range.");
  const resultsMax = Math.min(asked, listedMax);
  const all = (await files.containers(account)).filter((name) => name.startsWith(prefix) && name >= marker);
  const list = { prefix, marker, resultsMax, modifiedMs: clock.nowMs() };
  const serviceUrl = `https://${request.headers.host ?? ""}/`;
  const body = containerListXml({ ...list, serviceUrl, containers: all.slice(0, resultsMax), nextMarker: all[resultsMax] ?? "" });
  response.writeHead(200, { "content-type": "application/xml", "content-length": Buffer.byteLength(body) }).end(body);
}

export async function createContainer({ files, account, container, response, clock }: BlobCall): Promise<void> {
  if ((await files.createContainer(account, container)) === "exists")
    throw new BlobError("ContainerAlreadyExists", "The specified container already exists.");
  response.writeHead(201, { etag: newEtag(), "last-modified": httpDate(clock.nowMs()), "content-length": 0 }).end();
}

export async function getContainer(call: BlobCall): Promise<void> {
  await requireContainer(call);
  call.response
    .writeHead(200, { etag: `"0x0"`, "last-modified": httpDate(call.clock.nowMs()), "x-ms-lease-state": "available", "content-length": 0 })
    .end();
}

export async function deleteContainer({ files, account, container, response }: BlobCall): Promise<void> {
  if (!(await files.removeContainer(account, container))) throw noContainer();
  response.writeHead(202, { "content-length": 0 }).end();
}

export async function listBlobs(call: BlobCall): Promise<void> {
  await requireContainer(call);
  const { files, account, container, query, response } = call;
  if (query.has("delimiter")) throw new BlobError("InvalidQueryParameterValue", "Lists are flat here.");
  const [prefix, marker] = [query.get("prefix") ?? "", query.get("marker") ?? ""];
  const asked = Number(query.get("maxresults") ?? listedMax);
  if (!Number.isInteger(asked) || asked < 1) throw new BlobError("OutOfRangeInput", "maxresults is out of range.");
  const resultsMax = Math.min(asked, listedMax);
  const blobs: BlobFacts[] = [];
  let nextMarker = "";
  for await (const name of files.names(account, container, prefix, marker)) {
    if (blobs.length === resultsMax) {
      nextMarker = name;
      break;
    }
    const facts = await files.facts({ account, container, name });
    if (facts !== undefined) blobs.push(facts);
  }
  const serviceUrl = `https://${call.request.headers.host ?? ""}/`;
  const body = blobListXml({ serviceUrl, container, prefix, marker, resultsMax, blobs, nextMarker });
  response.writeHead(200, { "content-type": "application/xml", "content-length": Buffer.byteLength(body) }).end(body);
}

export async function putBlob(call: BlobCall): Promise<void> {
  const { request, response, files, clock, account, container, name } = call;
  if (request.headers["x-ms-blob-type"] !== "BlockBlob") throw new BlobError("NotImplemented", "Only block blobs are known here.");
  const sizeBytes = Number(request.headers["content-length"] ?? Number.NaN);
  if (!Number.isInteger(sizeBytes)) throw new BlobError("MissingContentLengthHeader", "The content's length is missing.");
  if (sizeBytes > blobBytesMax) throw new BlobError("RequestBodyTooLarge", `A blob may have ${blobBytesMax} bytes here.`);
  await requireContainer(call);
  const ifNoneMatch = request.headers["if-none-match"];
  if (request.headers["if-match"] !== undefined || (ifNoneMatch !== undefined && ifNoneMatch !== "*"))
    throw new BlobError("NotImplemented", "The only condition of a write is that nothing is there.");
  const isOnlyNew = ifNoneMatch === "*";
  // Who may create may not replace: as the service has it, what is there stays.
  const mode = isOnlyNew || !call.canReplace ? "onlyNew" : "replace";
  const refuseTaken = (): BlobError => (isOnlyNew ? blobExists() : mayNotReplace());
  // A sender that waits for a signature check but not for the body learns at once that the name is taken.
  if (mode === "onlyNew" && (await files.facts({ account, container, name })) !== undefined) throw refuseTaken();
  const contentMd5 = headerText(call, "content-md5") ?? headerText(call, "x-ms-blob-content-md5");
  const facts = {
    name,
    modifiedMs: clock.nowMs(),
    etag: newEtag(),
    contentType: headerText(call, "x-ms-blob-content-type") ?? headerText(call, "content-type") ?? "application/octet-stream",
    contentMd5,
  };
  const pending = await files.begin(facts, sizeBytes);
  try {
    await receiveBody(call, pending.file, { sizeBytes, expectedMd5: headerText(call, "content-md5") });
    if ((await files.publish(pending, { account, container, name }, mode)) === "exists") throw refuseTaken();
  } finally {
    await files.discard(pending);
  }
  response
    .writeHead(201, {
      etag: facts.etag,
      "last-modified": httpDate(facts.modifiedMs),
      "x-ms-request-server-encrypted": "false",
      "content-length": 0,
      ...(contentMd5 === undefined ? {} : { "content-md5": contentMd5 }),
    })
    .end();
}

async function receiveBody(
  { request }: BlobCall,
  file: { append(bytes: Uint8Array): Promise<void> },
  { sizeBytes, expectedMd5 }: { readonly sizeBytes: number; readonly expectedMd5: string | undefined },
): Promise<void> {
  const md5 = expectedMd5 === undefined ? undefined : createHash("md5");
  let receivedBytes = 0;
  // The connection stays open when the file fails, so that the sender is told why.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(chunk)) throw new BlobError("InternalError", "The body is not bytes.");
    receivedBytes += chunk.length;
    md5?.update(chunk);
    await file.append(chunk);
  }
  if (receivedBytes !== sizeBytes) throw new BlobError("InvalidHeaderValue", "The body has another length than was said.");
  if (md5 !== undefined && md5.digest("base64") !== expectedMd5)
    throw new BlobError("Md5Mismatch", "The MD5 value specified in the request did not match the value calculated by the server.");
}

export async function getBlobProperties(call: BlobCall): Promise<void> {
  await using blob = await openOrRefuse(call);
  call.response.writeHead(200, { ...propertiesOf(call, blob.facts), "content-length": blob.facts.sizeBytes }).end();
}

export async function getBlob(call: BlobCall): Promise<void> {
  const { response } = call;
  await using blob = await openOrRefuse(call);
  const { sizeBytes, contentMd5 } = blob.facts;
  const range = rangeOf(call, sizeBytes);
  const { "content-md5": _, ...properties } = propertiesOf(call, blob.facts);
  if (range === undefined) response.writeHead(200, { ...propertiesOf(call, blob.facts), "content-length": sizeBytes });
  else
    response.writeHead(206, {
      ...properties,
      "content-length": range.end - range.offset,
      "content-range": `bytes ${range.offset}-${range.end - 1}/${sizeBytes}`,
      ...(contentMd5 === undefined ? {} : { "x-ms-blob-content-md5": contentMd5 }),
    });
  await sendContent(call, blob, range ?? { offset: 0, end: sizeBytes });
}

async function sendContent({ response }: BlobCall, blob: OpenBlob, { offset, end }: { offset: number; end: number }): Promise<void> {
  for (let at = offset; at < end;) {
    const part = Buffer.allocUnsafe(Math.min(copyBytes, end - at));
    const bytesRead = await blob.read(at, part);
    if (bytesRead === 0) throw new BlobError("InternalError", "The stored blob is cut.");
    at += bytesRead;
    if (!response.write(part.subarray(0, bytesRead)) && !(await isDrained(response))) return;
  }
  response.end();
}

/** False when the reader went away. */
async function isDrained(response: BlobCall["response"]): Promise<boolean> {
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

export async function deleteBlob(call: BlobCall): Promise<void> {
  await requireContainer(call);
  const { files, account, container, name, response } = call;
  if (!(await files.remove({ account, container, name }))) throw noBlob();
  response.writeHead(202, { "x-ms-delete-type-permanent": "true", "content-length": 0 }).end();
}

async function openOrRefuse(call: BlobCall): Promise<OpenBlob> {
  const { files, account, container, name } = call;
  const blob = await files.openBlob({ account, container, name });
  if (blob !== undefined) return blob;
  await requireContainer(call);
  throw noBlob();
}

/** Headers of an answer that a signature names in place of the blob's own. */
const signedHeaders = {
  rscc: "cache-control",
  rscd: "content-disposition",
  rsce: "content-encoding",
  rscl: "content-language",
  rsct: "content-type",
} as const;

function propertiesOf({ query }: BlobCall, facts: BlobFacts): Record<string, string> {
  // Only signed fields count: without a signature the same names mean nothing.
  const signed = Object.entries(signedHeaders).flatMap(([field, header]) => {
    const value = query.has("sig") ? (query.get(field) ?? "") : "";
    return value === "" ? [] : [[header, value] as const];
  });
  return {
    etag: facts.etag,
    "last-modified": httpDate(facts.modifiedMs),
    "x-ms-creation-time": httpDate(facts.modifiedMs),
    "content-type": facts.contentType,
    "x-ms-blob-type": "BlockBlob",
    "x-ms-lease-status": "unlocked",
    "x-ms-lease-state": "available",
    "accept-ranges": "bytes",
    ...(facts.contentMd5 === undefined ? {} : { "content-md5": facts.contentMd5 }),
    ...Object.fromEntries(signed),
  };
}

/** The asked range as offset and end; undefined for the whole blob. */
function rangeOf(call: BlobCall, sizeBytes: number): { offset: number; end: number } | undefined {
  const text = headerText(call, "x-ms-range") ?? headerText(call, "range");
  if (text === undefined) return undefined;
  const match = /^bytes=(\d{1,15})-(\d{0,15})$/.exec(text);
  if (match === null) throw new BlobError("InvalidHeaderValue", "The range has another form.");
  const offset = Number(match[1]);
  const end = match[2] === "" ? sizeBytes : Math.min(sizeBytes, Number(match[2]) + 1);
  if (end <= offset) throw new BlobError("InvalidRange", "The range specified is invalid for the current size of the resource.");
  return { offset, end };
}

async function requireContainer({ files, account, container }: BlobCall): Promise<void> {
  if (!(await files.hasContainer(account, container))) throw noContainer();
}

function headerText({ request }: BlobCall, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}

function newEtag(): string {
  return `"0x${randomBytes(8).toString("hex").toUpperCase()}"`;
}

const noContainer = (): BlobError => new BlobError("ContainerNotFound", "The specified container does not exist.");
const noBlob = (): BlobError => new BlobError("BlobNotFound", "The specified blob does not exist.");
const mayNotReplace = (): BlobError =>
  new BlobError("AuthorizationPermissionMismatch", "The signature allows to create blobs, not to replace them.");
const blobExists = (): BlobError => new BlobError("BlobAlreadyExists", "The specified blob already exists.");
