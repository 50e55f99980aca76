// The single hops of a connection: TCP to an address, a tunnel through a proxy, TLS over a socket. Each fault names its hop.

import { request as httpRequest } from "node:http";
import { connect as tcpConnect, isIP, type Socket } from "node:net";
import { checkServerIdentity, connect as tlsConnect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { Fault } from "../contract/errors.ts";
import { errorCode } from "./resolve.ts";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Addresses tried for one name. */
const addressesTriedMax = 4;
/** Bound of one address when others are left to try. */
const addressTimeoutMs = 3_000;

/** Connects to the first address that answers. Throws ConnectionFailed with what each address did. */
export async function dialAny(target: HostPort, addresses: readonly string[], signal: AbortSignal): Promise<Socket> {
  const told: string[] = [];
  let lastError: unknown;
  const tried = addresses.slice(0, addressesTriedMax);
  for (const [index, address] of tried.entries()) {
    const isLast = index === tried.length - 1;
    try {
      return await dialAddress(address, target.port, isLast ? signal : AbortSignal.any([signal, AbortSignal.timeout(addressTimeoutMs)]));
    } catch (error) {
      lastError = error;
      told.push(`${address}: ${errorCode(error)}`);
      if (signal.aborted) break;
    }
  }
  throw new Fault("ConnectionFailed", `could not connect to ${target.host} port ${target.port}`, {
    evidence: { host: target.host, port: target.port, tried: told, timedOut: isTimeout(signal) },
    cause: lastError,
  });
}

async function dialAddress(address: string, port: number, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  return await new Promise((resolve, reject) => {
    const socket = tcpConnect({ host: address, port, noDelay: true, keepAlive: true });
    const settle = settleOnce(signal, (error) => {
      if (error === undefined) return resolve(socket);
      socket.destroy();
      return reject(error);
    });
    socket.once("connect", () => settle());
    socket.once("error", settle);
  });
}

export interface ProxyCredentials {
  readonly user: string;
  readonly password: string;
}

export interface TunnelOptions {
  /** An open connection to the proxy; owned by the tunnel from here on. */
  readonly socket: Socket;
  /** The proxy's address as people know it, for evidence. */
  readonly proxyUrl: string;
  readonly target: HostPort;
  readonly credentials?: ProxyCredentials | undefined;
  readonly signal: AbortSignal;
}

/** Asks the proxy for a tunnel (RFC 9110, CONNECT). Throws ProxyAuthRequired, ProxyRefused or ProxyUnreachable. */
export async function openTunnel(options: TunnelOptions): Promise<Socket> {
  const { socket, target, credentials, signal } = options;
  const authority = `${isIP(target.host) === 6 ? `[${target.host}]` : target.host}:${target.port}`;
  const headers: Record<string, string> = { host: authority };
  if (credentials !== undefined) headers["proxy-authorization"] = basicAuthorization(credentials);
  try {
    return await new Promise((resolve, reject) => {
      const request = httpRequest({ method: "CONNECT", path: authority, headers, createConnection: () => socket });
      const settle = settleOnce(signal, (error) => {
        if (error === undefined) return resolve(socket);
        request.destroy();
        return reject(error);
      });
      request.once("connect", (response, _socket, head) => {
        if (response.statusCode !== 200) return settle(refusal(options, response.statusCode ?? 0, response.headers));
        if (head.length > 0) socket.unshift(head);
        return settle();
      });
      request.once("error", settle);
      request.end();
    });
  } catch (error) {
    socket.destroy();
    if (error instanceof Fault) throw error;
    throw proxyUnreachable(options.proxyUrl, signal, error);
  }
}

export function proxyUnreachable(proxyUrl: string, signal: AbortSignal, cause: unknown): Fault {
  const tried = cause instanceof Fault ? cause.evidence : { code: errorCode(cause) };
  return new Fault("ProxyUnreachable", `could not reach the proxy ${proxyUrl}`, {
    evidence: { ...tried, proxy: proxyUrl, timedOut: isTimeout(signal) },
    cause,
  });
}

function refusal(options: TunnelOptions, status: number, headers: NodeJS.Dict<string | string[]>): Fault {
  const { target, proxyUrl } = options;
  const evidence = { proxy: proxyUrl, target: `${target.host}:${target.port}`, status };
  if (status === 407) {
    const offered = [headers["proxy-authenticate"] ?? []].flat().map((line) => line.split(" ")[0] ?? "");
    return new Fault("ProxyAuthRequired", `the proxy ${proxyUrl} asks for a user and a password`, {
      evidence: { ...evidence, offered, credentialsGiven: options.credentials !== undefined },
    });
  }
  return new Fault("ProxyRefused", `the proxy ${proxyUrl} refused a tunnel to ${target.host}`, {
    evidence,
    retry: status >= 500 ? "later" : "never",
  });
}

function basicAuthorization({ user, password }: ProxyCredentials): string {
  return `Basic ${Buffer.from(`${user}:${password}`, "utf8").toString("base64")}`;
}

export interface TlsOptions extends Pick<ConnectionOptions, "ca" | "cert" | "key" | "ALPNProtocols" | "ecdhCurve"> {
  /** The name that the peer's certificate must carry. */
  readonly host: string;
  readonly port: number;
  readonly signal: AbortSignal;
}

/** TLS over an open socket, which it owns from here on. Throws TlsRefused or TlsAuthorityUnknown with the peer's subject, issuer and dates. */
export async function startTls(socket: Socket, options: TlsOptions): Promise<TLSSocket> {
  const { host, port, signal, ...rest } = options;
  const name = isIP(host) === 0 ? { servername: host } : {};
  // NOTE: an untrusted peer is refused below and not inside the handshake, because only then its certificate can be told.
  const secure = tlsConnect({ socket, host, minVersion: "TLSv1.2", ...rest, ...name, rejectUnauthorized: false });
  try {
    return await new Promise((resolve, reject) => {
      const settle = settleOnce(signal, (error) => (error === undefined ? resolve(secure) : reject(error)));
      secure.once("secureConnect", () => settle(secure.authorized ? undefined : distrust(secure)));
      secure.once("error", settle);
      secure.once("close", () => settle(new Error("the peer closed the connection during the handshake")));
    });
  } catch (error) {
    const evidence = { host, port, code: errorCode(error), ...describePeer(secure), timedOut: isTimeout(signal) };
    const code = isForeignAuthority(secure, host) ? "TlsAuthorityUnknown" : "TlsRefused";
    secure.destroy();
    throw new Fault(code, `could not make a trusted TLS connection to ${host} port ${port}`, { evidence, cause: error });
  }
}

const untrustedIssuer: ReadonlySet<string> = new Set([
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "SELF_SIGNED_CERT_IN_CHAIN",
]);

/** The right name, signed by an authority that is not trusted here: what TLS inspection looks like. */
function isForeignAuthority(secure: TLSSocket, host: string): boolean {
  if (!untrustedIssuer.has(String(secure.authorizationError))) return false;
  const certificate = secure.getPeerCertificate();
  return certificate?.subject !== undefined && checkServerIdentity(host, certificate) === undefined;
}

function distrust(secure: TLSSocket): Error {
  const code = String(secure.authorizationError);
  return Object.assign(new Error(`the peer's certificate is not trusted: ${code}`), { code });
}

/** Subject, issuer, names and dates of the peer's certificate, as far as the handshake came. */
export function describePeer(secure: TLSSocket): Record<string, string> {
  const certificate = secure.getPeerCertificate();
  if (certificate?.subject === undefined) return {};
  return {
    subject: String(certificate.subject.CN ?? ""),
    issuer: String(certificate.issuer.CN ?? ""),
    names: certificate.subjectaltname ?? "",
    validFrom: certificate.valid_from,
    validTo: certificate.valid_to,
  };
}

/** Calls `done` once: for the first settle, or for the abort; the listener on the signal is always removed. */
function settleOnce(signal: AbortSignal, done: (error?: Error) => void): (error?: Error) => void {
  let isSettled = false;
  const settle = (error?: Error): void => {
    if (isSettled) return;
    isSettled = true;
    signal.removeEventListener("abort", onAbort);
    done(error);
  };
  const onAbort = (): void => {
    const reason: unknown = signal.reason;
    settle(reason instanceof Error ? reason : new Error("aborted"));
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  return settle;
}

function isTimeout(signal: AbortSignal): boolean {
  const reason: unknown = signal.reason;
  return signal.aborted && reason instanceof Error && reason.name === "TimeoutError";
}
