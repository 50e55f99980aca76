// A TLS listener that serves some names and no others: the TLS name and the Host header are both checked, and must agree.

import { createServer, type Server } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createSecureContext, TLSSocket, type SecureContext } from "node:tls";
import type { Log } from "../../base/log.ts";
import { Fault, toReport } from "../../contract/errors.ts";
import { toErrorBody } from "../api/arm-errors.ts";
import type { Authority } from "../pki/authority.ts";

export interface HttpHandler {
  (request: IncomingMessage, response: ServerResponse): void;
  /** Takes over a connection that asks to become a WebSocket; absent: such a request is one like any other. */
  readonly upgrade?: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
}

export interface DoorOptions {
  readonly address: string;
  /** 0: any free port. */
  readonly port: number;
  readonly authority: Authority;
  /** The handler of a name in lower case; undefined: the name is not served here. */
  readonly handlerOf: (name: string) => Promise<HttpHandler | undefined>;
  /** Ask clients for a certificate of the hub's CA; the handler looks at what was proved. */
  readonly asksClients: boolean;
  readonly log: Log;
}

export interface Door extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
}

/** A thousand appliances keep one for their long poll and a few for what they tell. */
const connectionsMax = 8000;
const handshakeMsMax = 10_000;
const headersMsMax = 20_000;
const requestMsMax = 15 * 60_000;
/** How long requests under way may take when the door closes. */
const drainMs = 2_000;

/** Listens on return. Fault Internal names the address when it cannot. */
export async function openDoor(options: DoorOptions): Promise<Door> {
  const contexts = new Map<string, { readonly pem: string; readonly context: SecureContext }>();
  const server = createServer(
    {
      SNICallback: (name, answer) => {
        contextOf(options, contexts, name.toLowerCase()).then(
          (context) => answer(null, context),
          (error: unknown) => answer(error instanceof Error ? error : new Error(String(error))),
        );
      },
      requestCert: options.asksClients,
      rejectUnauthorized: false,
      ca: options.authority.caPem,
      minVersion: "TLSv1.2",
      handshakeTimeout: handshakeMsMax,
      headersTimeout: headersMsMax,
      requestTimeout: requestMsMax,
      keepAliveTimeout: 65_000,
      // Others' requests to upgrade (as to HTTP/2) are answered as if they asked for nothing.
      shouldUpgradeCallback: (request: IncomingMessage) => request.headers.upgrade?.toLowerCase() === "websocket",
    },
    (request, response) => {
      void dispatch(options, request, response);
    },
  );
  server.maxConnections = connectionsMax;
  server.on("tlsClientError", (error) => options.log.debug("handshake refused", { address: options.address, reason: error.message }));
  // A peer that resets its connection is no event of ours; the request's own handler has told what mattered.
  server.on("clientError", (_error, socket) => socket.destroy());
  const upgraded = new Set<Duplex>();
  server.on("upgrade", (request, socket: Duplex, head: Buffer) => {
    upgraded.add(socket);
    socket.once("close", () => upgraded.delete(socket));
    socket.on("error", () => socket.destroy()); // As of a request: its handler has told what mattered.
    void dispatchUpgrade(options, { request, socket, head });
  });
  await listen(server, options);
  const bound = server.address() as AddressInfo; // A listening TCP server's address has this form.
  return { address: options.address, port: bound.port, [Symbol.asyncDispose]: () => close(server, upgraded) };
}

/** Answers a Fault where no face is in charge: readable as ARM's envelope and as the appliance protocol's report. */
export function answerFault(response: ServerResponse, fault: Fault): void {
  const body = JSON.stringify({ ...toReport(fault), ...toErrorBody(fault) });
  response.writeHead(fault.httpStatus, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "x-ms-error-code": fault.code,
  });
  response.end(body);
}

/** The TLS name that the client asked for, in lower case. */
function serverNameOf(socket: Socket): string | undefined {
  const name = socket instanceof TLSSocket ? socket.servername : undefined;
  return typeof name === "string" ? name.toLowerCase() : undefined;
}

async function contextOf(
  options: DoorOptions,
  contexts: Map<string, { readonly pem: string; readonly context: SecureContext }>,
  name: string,
): Promise<SecureContext> {
  if ((await options.handlerOf(name)) === undefined) throw new Error(`the name ${name} is not served at ${options.address}`);
  const { certificatePem, keyPem } = await options.authority.serverCertificate(name);
  const present = contexts.get(name);
  if (present?.pem === certificatePem) return present.context;
  const context = createSecureContext({ cert: certificatePem, key: keyPem, ca: options.authority.caPem, minVersion: "TLSv1.2" });
  contexts.set(name, { pem: certificatePem, context });
  return context;
}

async function dispatch(options: DoorOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    const handler = await handlerFor(options, request);
    handler(request, response);
  } catch (error) {
    if (!(error instanceof Fault && error.code === "NameNotServed"))
      options.log.error("request failed", { address: options.address, reason: error instanceof Error ? error.message : String(error) });
    answerFault(response, error instanceof Fault ? error : new Fault("Internal", "could not answer the request", { cause: error }));
  }
}

/** Fault NameNotServed unless the TLS name and every name that the request asks for are one, which is served here. */
async function handlerFor(options: DoorOptions, request: IncomingMessage): Promise<HttpHandler> {
  const tlsName = serverNameOf(request.socket);
  const askedNames = toOriginForm(request);
  const handler = tlsName === undefined ? undefined : await options.handlerOf(tlsName);
  if (handler !== undefined && askedNames.length > 0 && askedNames.every((name) => name === tlsName)) return handler;
  const evidence = { tlsName: tlsName ?? "none", host: askedNames.join(" "), address: options.address };
  throw new Fault("NameNotServed", "could not serve the name: it does not belong to this address", { evidence });
}

/** What is not taken over is cut: the parser has let go of it, and no WebSocket was promised there. */
async function dispatchUpgrade(
  options: DoorOptions,
  { request, socket, head }: { readonly request: IncomingMessage; readonly socket: Duplex; readonly head: Buffer },
): Promise<void> {
  try {
    const { upgrade } = await handlerFor(options, request);
    if (upgrade !== undefined) return upgrade(request, socket, head);
  } catch (error) {
    options.log.debug("upgrade refused", { address: options.address, reason: error instanceof Error ? error.message : String(error) });
  }
  socket.end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

/**
 * Every name that the request asks for, in lower case and without port: each Host header and, in absolute form, the target's own (RFC 9112,
 * Request Target). Handlers see the origin form, and one Host.
 */
function toOriginForm(request: IncomingMessage): readonly string[] {
  const hosts = request.rawHeaders.filter((_text, index, all) => index % 2 === 1 && all[index - 1]?.toLowerCase() === "host");
  const [, authority, path] = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)(.*)$/i.exec(request.url ?? "") ?? [];
  if (authority === undefined) return hosts.map(toName);
  request.url = path?.startsWith("/") === true ? path : `/${path ?? ""}`;
  return [...hosts, authority].map(toName);
}

function toName(host: string): string {
  return host.trim().toLowerCase().replace(/:\d+$/, "");
}

async function listen(server: Server, options: DoorOptions): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const fail = (error: Error): void => {
      const evidence = { address: options.address, port: options.port, reason: error.message };
      reject(new Fault("ListenFailed", `could not listen on ${options.address}:${options.port}`, { evidence, cause: error }));
    };
    server.once("error", fail);
    server.listen({ host: options.address, port: options.port }, () => {
      server.off("error", fail);
      resolve();
    });
  });
}

async function close(server: Server, upgraded: ReadonlySet<Duplex>): Promise<void> {
  if (!server.listening) return;
  for (const socket of upgraded) socket.destroy(); // The server does not count them among its connections.
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const timeout = AbortSignal.timeout(drainMs);
  timeout.addEventListener("abort", () => server.closeAllConnections(), { once: true });
  await closed;
}
