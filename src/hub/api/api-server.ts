// The management API over HTTP: fastify parses, the token names the caller, the ARM router answers, Faults become envelopes.

import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { systemClock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { traceRequests, type FaceTracing } from "../telemetry/request-spans.ts";
import { armCodes, ArmFault, toErrorBody } from "./arm-errors.ts";
import type { CallView } from "../db/call-view.ts";
import type { JsonObject } from "../db/resources.ts";
import { isConnectionFault } from "../jobs/connection-fault.ts";
import { takeJson } from "./json-body.ts";
import { signedPrefix, type SignedReads } from "./signed-reads.ts";
import { keysOfPath, unknownType, type AnswerWatch } from "./arm-call.ts";
import type { ArmRouter } from "./arm-router.ts";
import type { CallLimits, Taken } from "./rate-limits.ts";
import type { Caller } from "./resource-type.ts";
import { requireApiVersion } from "./type-dialect.ts";

const bodyBytesMax = 4 << 20;
/** Of a whole body: who sends it byte by byte must not keep a connection for long. A door lets requests of other kinds take longer. */
const bodyMsDefault = 60_000;

/** Why what is left of a call may stop. */
const answered = new Error("the call was answered");

/** For counting; `route` is the face's template, never a client's text. */
export interface AnsweredRequest {
  readonly method: string;
  readonly route: string;
  readonly path: string;
  readonly status: number;
  readonly seconds: number;
}

/** A fastify instance with the house's limits, ids, logs and faults. Every HTTP face of the hub is made by it. */
export function createHttpFace(dependencies: {
  readonly log: Log;
  readonly random: Random;
  /** Body of a refusal; ARM's error envelope unless told. */
  readonly toBody?: (fault: Fault) => unknown;
  readonly onAnswered?: ((request: AnsweredRequest) => void) | undefined;
  /** Told of every route: "POST /path". */
  readonly onRoute?: ((route: string) => void) | undefined;
  readonly tracing?: FaceTracing | undefined;
  readonly bodyMsMax?: number;
}): FastifyInstance {
  const { log, random, toBody = toErrorBody, bodyMsMax = bodyMsDefault } = dependencies;
  const face = Fastify({
    bodyLimit: bodyBytesMax,
    requestTimeout: 120_000,
    genReqId: () => random.uuid(),
    routerOptions: { maxParamLength: 2048, caseSensitive: false, ignoreDuplicateSlashes: true },
    logger: false,
    // Paths that the server itself cannot read come past every hook.
    frameworkErrors: (error, request, reply) => {
      stamp(request, reply);
      answerFault(request, reply, { fault: toFault(error), toBody, log });
    },
  });
  face.addHook("onRoute", ({ method, url }) => {
    for (const each of [method].flat()) if (each !== "HEAD") dependencies.onRoute?.(`${each} ${url}`);
  });
  face.addHook("onRequest", async (request, reply) => stamp(request, reply));
  face.addHook("preParsing", async ({ raw }) => {
    if (!raw.complete) endWhenLate(raw, bodyMsMax);
  });
  face.addHook("onResponse", async (request, reply) => {
    const path = request.url.split("?", 1)[0] ?? "";
    const fields = { method: request.method, host: request.headers.host, path, status: reply.statusCode, requestId: request.id };
    log.debug("request answered", { ...fields, correlationId: toCorrelationId(request), ms: Math.round(reply.elapsedTime) });
    const route = request.routeOptions.url ?? "none";
    dependencies.onAnswered?.({ method: request.method, route, path, status: reply.statusCode, seconds: reply.elapsedTime / 1000 });
  });
  if (dependencies.tracing !== undefined) traceRequests(face, dependencies.tracing, toCorrelationId);
  face.setNotFoundHandler((request, reply) => {
    answerFault(request, reply, { fault: new Fault("NotFound", `could not find ${request.url.split("?", 1)[0] ?? ""}`), toBody, log });
  });
  face.setErrorHandler((error, request, reply) => {
    answerFault(request, reply, { fault: toFault(error), toBody, log });
  });
  return face;
}

/** Cuts the connection unless the body has come in time. */
function endWhenLate(request: IncomingMessage, waitMs: number): void {
  const come = new AbortController();
  for (const end of ["end", "close"] as const) request.once(end, () => come.abort());
  systemClock.sleep(waitMs, come.signal).then(
    () => void (request.complete || request.destroy()),
    () => undefined, // It came.
  );
}

/** What every answer carries. */
function stamp(request: FastifyRequest, reply: FastifyReply): void {
  void reply.header("x-ms-request-id", request.id).header("x-ms-correlation-request-id", toCorrelationId(request));
  void reply.header("cache-control", "no-store").header("x-content-type-options", "nosniff");
  const clientId = request.headers["x-ms-client-request-id"];
  if (typeof clientId === "string" && /^[\w-]{1,64}$/.test(clientId)) void reply.header("x-ms-client-request-id", clientId);
}

export interface AuthenticatedCall {
  readonly caller: Caller;
  readonly view: CallView;
}

export type Authenticate = (authorization: string | undefined, keys: readonly string[]) => Promise<AuthenticatedCall>;

export function createManagementApi(dependencies: {
  readonly router: ArmRouter;
  /** Throws Fault Unauthorized unless the Authorization header proves a caller. Looks for what the call is about by the same question. */
  readonly authenticate: Authenticate;
  /** Those that the caller may read. */
  readonly subscriptions: (caller: Caller) => Promise<readonly JsonObject[]>;
  /** What may be asked of a namespace; undefined when the hub has nothing of it. */
  readonly operationsOf: (namespace: string) => readonly JsonObject[] | undefined;
  /** Outside subscriptions: the providers of the hub, and its tenant. */
  readonly namespaces: () => readonly string[];
  readonly providerOf: (namespace: string) => JsonObject | undefined;
  readonly tenant: JsonObject;
  readonly health: () => Promise<Readonly<Record<string, unknown>>>;
  readonly limits: CallLimits;
  /** OpenAPI of every type. The same for every hub of a version, so anyone may read it. */
  readonly document: () => Promise<unknown>;
  readonly onAnswered?: ((request: AnsweredRequest) => void) | undefined;
  /** Told of every route: "POST /path". */
  readonly onRoute?: ((route: string) => void) | undefined;
  readonly tracing?: FaceTracing | undefined;
  readonly signedReads: SignedReads;
  readonly onSent?: AnswerWatch["onSent"] | undefined;
  readonly log: Log;
  readonly random: Random;
}): FastifyInstance {
  const { router, health, log, limits, onSent } = dependencies;
  const face = createHttpFace(dependencies);
  if (onSent !== undefined) tellSent(face, onSent);
  face.addHook("onRequest", async (request) => refuseBeyond(limits.address.take(request.ip), "this address"));
  const authenticate = async (request: FastifyRequest, reply: FastifyReply, keys: readonly string[] = []): Promise<AuthenticatedCall> => {
    const { caller, view } = await dependencies.authenticate(request.headers.authorization, keys);
    dependencies.tracing?.traces.current()?.set({ "watari.principal_id": caller.principalId });
    const remaining = refuseBeyond(limits.principal.take(caller.principalId), "this principal");
    void reply.header(`x-ms-ratelimit-remaining-subscription-${kindOf(request.method)}`, String(remaining));
    return { caller, view };
  };
  takeJson(face);
  face.get("/health", async (_request, reply) => await reply.send(await health()));
  face.get("/openapi.json", async (_request, reply) => await reply.type("application/json").send(await dependencies.document()));
  readSigned(face, dependencies.signedReads);
  face.get("/subscriptions", async (request, reply) => {
    const { caller } = await authenticate(request, reply);
    return await reply.send({ value: await dependencies.subscriptions(caller) });
  });
  readTenant(face, dependencies, async (request, reply) => (await authenticate(request, reply)).caller);
  face.all("/subscriptions/*", async (request, reply) => {
    const { caller, view } = await authenticate(request, reply, keysOfUrl(request.url));
    const gone = new AbortController();
    // Each abort without a reason makes one with a stack, which costs more than the rest of a quick call's end.
    reply.raw.once("close", () => gone.abort(reply.raw.writableFinished ? answered : undefined));
    const { path, query } = readUrl(request.url);
    const correlationId = toCorrelationId(request);
    const answer = await router({
      method: request.method,
      path,
      query,
      ifMatch: request.headers["if-match"],
      ifNoneMatch: request.headers["if-none-match"],
      body: request.body,
      caller,
      view,
      correlationId,
      origin: `https://${request.headers.host ?? ""}`,
      log: log.with({ correlationId, requestId: request.id }),
      signal: gone.signal,
    });
    for (const [name, value] of Object.entries(answer.headers ?? {})) void reply.header(name, value);
    return await reply.code(answer.status).send(answer.body);
  });
  return face;
}

function tellSent(face: FastifyInstance, onSent: AnswerWatch["onSent"]): void {
  face.addHook("preSerialization", async (request, reply, body: unknown) => {
    onSent({ route: request.routeOptions.url ?? "none", status: reply.statusCode, body });
    return body;
  });
}

/** What any known caller may read: nothing in it is anyone's. */
function readTenant(
  face: FastifyInstance,
  hub: Pick<Parameters<typeof createManagementApi>[0], "namespaces" | "providerOf" | "operationsOf" | "tenant">,
  authenticate: (request: FastifyRequest, reply: FastifyReply) => Promise<Caller>,
): void {
  const query = (request: FastifyRequest): void => void requireApiVersion(readUrl(request.url).query["api-version"]);
  face.get("/tenants", async (request, reply) => {
    await authenticate(request, reply);
    query(request);
    return await reply.send({ value: [hub.tenant] });
  });
  face.get("/providers", async (request, reply) => {
    await authenticate(request, reply);
    query(request);
    const all = hub.namespaces().map(hub.providerOf);
    return await reply.send({ value: all.filter((provider) => provider !== undefined) });
  });
  face.get("/providers/:namespace", async (request, reply) => {
    await authenticate(request, reply);
    query(request);
    const namespace = readUrl(request.url).path.split("/")[2] ?? "";
    const provider = hub.providerOf(namespace);
    if (provider === undefined) throw unknownType(namespace);
    return await reply.send(provider);
  });
  face.get("/providers/:namespace/operations", async (request, reply) => {
    await authenticate(request, reply);
    query(request);
    const namespace = readUrl(request.url).path.split("/")[2] ?? "";
    const value = hub.operationsOf(namespace);
    if (value === undefined) throw unknownType(`${namespace}/operations`);
    return await reply.send({ value });
  });
}

/** What is left; Fault TooManyRequests when that is nothing. */
function refuseBeyond(taken: Taken, whose: string): number {
  if (taken.kind === "taken") return taken.remaining;
  throw new Fault("TooManyRequests", `could not take the call: too many came from ${whose}`, {
    evidence: { retryAfterSeconds: taken.waitSeconds },
  });
}

function kindOf(method: string): "reads" | "writes" | "deletes" {
  if (method === "GET" || method === "HEAD") return "reads";
  return method === "DELETE" ? "deletes" : "writes";
}

/** The caller's own correlation id when it is one, else this request's. */
function toCorrelationId(request: FastifyRequest): string {
  const given = request.headers["x-ms-correlation-request-id"];
  return typeof given === "string" && /^[\w-]{1,64}$/.test(given) ? given : request.id;
}

function readUrl(url: string): { readonly path: string; readonly query: Readonly<Record<string, string>> } {
  const at = url.indexOf("?");
  const [rawPath, rawQuery] = at === -1 ? [url, ""] : [url.slice(0, at), url.slice(at + 1)];
  const query: Record<string, string> = {};
  for (const [name, value] of new URLSearchParams(rawQuery)) query[name.toLowerCase()] = value;
  // Azure's clients write "//" where a scope begins with a slash or a parent path is empty; no name is empty.
  return {
    path: rawPath
      .replaceAll(/\/{2,}/g, "/")
      .split("/")
      .map(decodeSegment)
      .join("/"),
    query,
  };
}

/** The signature in the address is the proof; no token is asked for. */
function readSigned(face: FastifyInstance, signedReads: SignedReads): void {
  face.get(`${signedPrefix}*`, async (request, reply) => {
    const { path, query } = readUrl(request.url);
    const gone = new AbortController();
    reply.raw.once("close", () => gone.abort());
    const found = await signedReads.read(path, query, gone.signal);
    if (found.kind === "text") return await reply.type("text/plain; charset=utf-8").send(found.text);
    return await reply.type("application/octet-stream").send(Readable.from(found.bytes, { objectMode: false }));
  });
}

function keysOfUrl(url: string): readonly string[] {
  try {
    return keysOfPath(readUrl(url).path);
  } catch (error) {
    if (error instanceof Fault) return []; // Told below, once the caller is known.
    throw error;
  }
}

function decodeSegment(segment: string): string {
  let decoded: string | undefined;
  try {
    decoded = decodeURIComponent(segment);
  } catch {
    // Malformed percent signs: told below as bad input.
  }
  if (decoded !== undefined && !decoded.includes("/")) return decoded;
  throw new Fault("InputInvalid", "could not read the path: a segment is not well encoded", {
    evidence: { segment: segment.slice(0, 100) },
  });
}

function toFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const status = error instanceof Error && "statusCode" in error ? error.statusCode : undefined;
  if (status === 415) return new Fault("MediaTypeUnsupported", "could not read the request's body: it is no JSON", { cause: error });
  if (status === 413)
    return new Fault("BodyTooLarge", "could not take the request's body: it is too large", { evidence: { bodyBytesMax }, cause: error });
  if (typeof status === "number" && status >= 400 && status < 500)
    return new Fault("InputInvalid", `could not read the request: ${error instanceof Error ? error.message : "bad request"}`, {
      cause: error,
    });
  if (isConnectionFault(error))
    return new Fault("DatabaseUnavailable", "could not answer the request: the database is away or has no room", { cause: error });
  return new Fault("Internal", "could not answer the request", { cause: error });
}

function answerFault(
  request: FastifyRequest,
  reply: FastifyReply,
  { fault, toBody, log }: { readonly fault: Fault; readonly toBody: (fault: Fault) => unknown; readonly log: Log },
): void {
  const fields = { requestId: request.id, correlationId: toCorrelationId(request), fault: fault.code };
  if (fault.code === "Internal") {
    const cause = fault.cause instanceof Error ? fault.cause : fault;
    log.error("request failed", { ...fields, reason: cause.stack ?? cause.message });
  } else log.info("request refused", { ...fields, reason: fault.message });
  const { operations, retryAfterSeconds } = fault.evidence;
  if (fault.code === "TooManyRequests") void reply.header("retry-after", String(retryAfterSeconds ?? 1));
  if (fault.httpStatus === 405 && Array.isArray(operations)) void reply.header("allow", operations.join(", "));
  void reply.header("x-ms-error-code", fault instanceof ArmFault ? fault.armCode : (armCodes[fault.code] ?? fault.code));
  if (fault.code === "Unauthorized") void reply.header("www-authenticate", 'Bearer error="invalid_token"');
  void reply.code(fault.httpStatus).type("application/json").send(toBody(fault));
}
