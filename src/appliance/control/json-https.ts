// A small HTTPS server of JSON routes for agents: client certificates, bounded bodies, faults as answers.

import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Server as NetServer } from "node:net";
import { TLSSocket, type TlsOptions } from "node:tls";
import type { z } from "zod";
import type { Log } from "../../base/log.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import { parseMachineId, type MachineId } from "../../contract/ids.ts";
import type { ServerIdentity } from "../identity/server-identity.ts";

const requestBytesMax = 1 << 20;
const connectionsMax = 4096;

/** Who is at the other end, proved by a client certificate of the site authority. */
export interface Peer {
  readonly machineId: MachineId;
  readonly certificateDigest: string;
  readonly certificateEndsAtMs: number;
}

export interface JsonRequest {
  readonly body: unknown;
  readonly socket: TLSSocket;
  /** Aborted when the agent is gone. */
  readonly signal: AbortSignal;
}

export type JsonRoutes = Readonly<Record<string, (request: JsonRequest) => Promise<unknown>>>;

export interface ListenAddress {
  readonly address: string;
  readonly port: number;
}

export interface TlsListenOptions {
  readonly addresses: readonly string[];
  readonly port: number;
  readonly identity: ServerIdentity;
  readonly caPem: string;
}

/** Settings that both agent ports share. A client certificate is asked for, and judged by `peerOf`. */
export function tlsServerOptions({ identity, caPem }: Pick<TlsListenOptions, "identity" | "caPem">): TlsOptions {
  const { certPem, keyPem } = identity.issued;
  const SNICallback: TlsOptions["SNICallback"] = (_name, answer) => {
    identity.context().then(
      (context) => answer(null, context),
      (error: unknown) => answer(error instanceof Error ? error : new Error(String(error))),
    );
  };
  return { cert: certPem, key: keyPem, ca: caPem, minVersion: "TLSv1.3", requestCert: true, SNICallback };
}

/** As peerOf, for what only a machine may ask. */
export function requirePeer(socket: TLSSocket): Peer {
  const peer = peerOf(socket);
  if (peer !== undefined) return peer;
  // Node's types say Error; it is the code of the failed check.
  if (String(socket.authorizationError) === "CERT_HAS_EXPIRED")
    throw new Fault("AgentCertificateEnded", "refused an agent: its certificate has ended", {
      evidence: { endedAt: socket.getPeerX509Certificate()?.validTo ?? "" },
    });
  throw new Fault("Unauthorized", "refused an agent: it showed no certificate of this site");
}

/** The machine that the connection's certificate names; undefined without a trusted certificate. */
export function peerOf(socket: TLSSocket): Peer | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (!socket.authorized || certificate === undefined) return undefined;
  const commonName = /^CN=([0-9a-f-]{36})$/m.exec(certificate.subject)?.[1];
  if (commonName === undefined) return undefined;
  return {
    machineId: parseMachineId(commonName),
    certificateDigest: certificate.fingerprint256.replaceAll(":", "").toLowerCase(),
    certificateEndsAtMs: certificate.validToDate.getTime(),
  };
}

export interface JsonServer extends AsyncDisposable {
  readonly listening: readonly ListenAddress[];
}

/** Listens on every address. The answer of a route is 200 and JSON; a thrown Fault is its status and report. */
export async function startJsonServer(options: TlsListenOptions & { readonly routes: JsonRoutes; readonly log: Log }): Promise<JsonServer> {
  const { routes, log } = options;
  await using cleanup = new AsyncDisposableStack();
  const listening: ListenAddress[] = [];
  for (const address of options.addresses) {
    const server = createServer({
      ...tlsServerOptions(options),
      rejectUnauthorized: false,
      headersTimeout: 15_000,
      requestTimeout: 60_000,
    });
    server.maxConnections = connectionsMax;
    server.keepAliveTimeout = 75_000;
    server.on("request", (request, response) => void answer(routes, log, request, response));
    server.on("tlsClientError", (error) => log.debug("TLS handshake refused", { reason: error.message }));
    cleanup.defer(async () => await closeServer(server));
    listening.push(await listen(server, { address, port: options.port }));
  }
  const owned = cleanup.move();
  return { listening, [Symbol.asyncDispose]: async () => await owned.disposeAsync() };
}

export async function listen(server: NetServer, wanted: ListenAddress): Promise<ListenAddress> {
  return await new Promise((resolve, reject) => {
    const onError = (error: Error): void =>
      reject(
        new Fault("StateConflict", `could not listen on ${wanted.address} port ${wanted.port}`, {
          causes: ["another program listens there", "the address is not one of this machine"],
          action: "free the port or change the appliance's listenAddresses, then start it again",
          evidence: { address: wanted.address, port: wanted.port },
          cause: error,
        }),
      );
    server.once("error", onError);
    server.listen(wanted.port, wanted.address, () => {
      server.off("error", onError);
      resolve({ address: wanted.address, port: (server.address() as AddressInfo).port }); // A TCP server has a port.
    });
  });
}

async function closeServer(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

async function answer(routes: JsonRoutes, log: Log, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    const handle = request.method === "POST" && Object.hasOwn(routes, request.url ?? "") ? routes[request.url ?? ""] : undefined;
    if (handle === undefined) throw new Fault("NotFound", "there is no such route");
    if (!(request.socket instanceof TLSSocket)) throw new Fault("Forbidden", "the connection is not encrypted");
    const body = await readJsonBody(request);
    send(response, 200, await handle({ body, socket: request.socket, signal: gone.signal }));
  } catch (error) {
    if (gone.signal.aborted) return;
    const fault = asFault(error, "answer an agent");
    const level = fault.code === "Internal" ? "error" : "warn";
    log[level]("agent request refused", { route: request.url?.slice(0, 80), fault: fault.code, reason: fault.message });
    send(response, fault.httpStatus, toReport(fault));
  }
}

async function readJsonBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    if (!(chunk instanceof Buffer)) continue;
    bytes += chunk.length;
    if (bytes > requestBytesMax) throw new Fault("InputInvalid", "the request is too large", { evidence: { requestBytesMax } });
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch (error) {
    throw new Fault("InputInvalid", "the request's body is not JSON", { cause: error });
  }
}

function send(response: ServerResponse, status: number, value: unknown): void {
  const bytes = Buffer.from(JSON.stringify(value ?? {}), "utf8");
  response.writeHead(status, { "content-type": "application/json", "content-length": bytes.length });
  response.end(bytes);
}

/** Parses a body with its schema; throws InputInvalid that names the fields. */
export function parseBody<T>(shape: z.ZodType<T>, body: unknown): T {
  const parsed = shape.safeParse(body);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 20).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Fault("InputInvalid", "the request does not fit its schema", { evidence: { problems } });
}
