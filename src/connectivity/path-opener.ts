// Opens one connection by the topology's decision: name, TCP, proxy tunnel, TLS, each checked, the whole logged.

import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { getCACertificates, type TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Fault } from "../contract/errors.ts";
import { decide, type Decision } from "./decision.ts";
import { dialAny, openTunnel, proxyUnreachable, startTls, type HostPort, type ProxyCredentials } from "./dial.ts";
import { checkAnswers, createNameResolver, type NameResolver, type Resolution } from "./resolve.ts";
import { normaliseHost, type Topology } from "./topology.ts";

const connectTimeoutMsDefault = 10_000;

export interface PathOptions {
  readonly topology: Topology;
  readonly clock: Clock;
  readonly log: Log;
  /** Trusted for private and site names instead of the system's authorities, and besides them for public names. */
  readonly caPem?: string;
  /** Shown to private names only. */
  readonly clientCertificate?: { readonly certPem: string; readonly keyPem: string };
  /** Where the proxy's user and password come from; the topology's credentialsFile unless told. */
  readonly proxyCredentials?: () => Promise<ProxyCredentials | undefined>;
  /** Bound of name, TCP, proxy and TLS together; 10 000 unless told. */
  readonly connectTimeoutMs?: number;
}

export type OpenPath = (target: HostPort, isTls: "tls" | "plain", signal?: AbortSignal) => Promise<Socket>;

export type Allowed = Exclude<Decision, { kind: "undeclared" }>;
export type Direct = Exclude<Allowed, { kind: "proxy" }>;

/** Opens decided paths, whole or hop by hop; owns the kept answers. */
export class PathOpener {
  readonly #options: PathOptions;
  readonly #resolver: NameResolver;

  constructor(options: PathOptions) {
    this.#options = options;
    this.#resolver = createNameResolver(options);
  }

  /** All answers for a host that is reached directly, and who gave them. Throws PrivateNamePublic and NameUnresolved. */
  async resolve(decision: Direct, signal?: AbortSignal): Promise<Resolution> {
    const resolution = await this.#lookUp(decision.host, signal);
    checkAnswers(this.#options.topology, decision, resolution);
    return resolution;
  }

  allow(host: string): Allowed {
    const decision = decide(this.#options.topology, host);
    if (decision.kind !== "undeclared") return decision;
    throw new Fault("HostUndeclared", `refused to reach ${decision.host}: the network topology does not name it`, {
      evidence: { host: decision.host },
    });
  }

  async open(rawTarget: HostPort, isTls: "tls" | "plain", signal?: AbortSignal): Promise<Socket> {
    const { clock, log } = this.#options;
    const target = { host: normaliseHost(rawTarget.host), port: rawTarget.port };
    const deadline = AbortSignal.timeout(this.#options.connectTimeoutMs ?? connectTimeoutMsDefault);
    const both = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
    const startedMs = clock.monotonicMs();
    const fields = { host: target.host, port: target.port };
    try {
      const decision = this.allow(target.host);
      const plain = await this.#openPlain(decision, target, both);
      const socket = isTls === "tls" ? await this.secure(decision, plain, target, both) : plain;
      const via = decision.kind === "proxy" ? { proxy: decision.proxyUrl } : { address: plain.remoteAddress };
      log.info("connection opened", {
        ...fields,
        decision: decision.kind,
        because: decision.because,
        ...via,
        localAddress: plain.localAddress,
        tookMs: Math.round(clock.monotonicMs() - startedMs),
      });
      return socket;
    } catch (error) {
      const fault = error instanceof Fault ? { fault: error.code, ...error.evidence } : {};
      log.warn("connection not opened", { ...fields, ...fault });
      signal?.throwIfAborted();
      throw error;
    }
  }

  async #openPlain(decision: Allowed, target: HostPort, signal: AbortSignal): Promise<Socket> {
    if (decision.kind === "proxy") return await this.tunnel(decision.proxyUrl, target, signal);
    const { addresses } = await this.resolve(decision, signal);
    return await dialAny(target, addresses, signal);
  }

  /** Connects to the proxy and asks it for a tunnel. */
  async tunnel(proxyUrl: string, target: HostPort, signal: AbortSignal): Promise<Socket> {
    const credentials = await this.#proxyCredentials();
    const socket = await this.#dialProxy(proxyUrl, signal);
    return await openTunnel({ socket, proxyUrl, target, credentials, signal });
  }

  async #dialProxy(proxyUrl: string, signal: AbortSignal): Promise<Socket> {
    const url = new URL(proxyUrl);
    const isTls = url.protocol === "https:";
    const proxy = { host: normaliseHost(url.hostname), port: Number(url.port) || (isTls ? 443 : 80) };
    try {
      const { addresses } = await this.#lookUp(proxy.host, signal);
      const socket = await dialAny(proxy, addresses, signal);
      return isTls ? await startTls(socket, { ...proxy, ca: this.#publicAuthorities(), signal }) : socket;
    } catch (error) {
      throw proxyUnreachable(proxyUrl, signal, error);
    }
  }

  /** TLS with the authorities and the identity that the decision calls for. */
  async secure(
    decision: Allowed,
    plain: Socket,
    target: HostPort & { readonly ecdhCurve?: string },
    signal: AbortSignal,
  ): Promise<TLSSocket> {
    const { caPem, clientCertificate } = this.#options;
    const isNear = decision.kind === "private" || decision.kind === "site";
    const identity =
      decision.kind === "private" && clientCertificate !== undefined
        ? { cert: clientCertificate.certPem, key: clientCertificate.keyPem }
        : {};
    const ca = isNear && caPem !== undefined ? [caPem] : this.#publicAuthorities();
    return await startTls(plain, { ...target, ...identity, ca, ALPNProtocols: ["http/1.1"], signal });
  }

  /** A resolver may wait longer than its caller; the abort ends the waiting, the answer is kept for the next one. */
  async #lookUp(host: string, signal: AbortSignal | undefined): Promise<Resolution> {
    const answer = this.#resolver.resolve(host);
    if (signal === undefined) return await answer;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => {
      aborted.reject(new Fault("NameUnresolved", `could not resolve ${host} in time`, { evidence: { name: host }, cause: signal.reason }));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([answer, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #publicAuthorities(): string[] {
    const own = this.#options.caPem === undefined ? [] : [this.#options.caPem];
    return [...own, ...getCACertificates("default")];
  }

  async #proxyCredentials(): Promise<ProxyCredentials | undefined> {
    if (this.#options.proxyCredentials !== undefined) return await this.#options.proxyCredentials();
    const path = this.#options.topology.proxy?.credentialsFile;
    return path === undefined ? undefined : await readProxyCredentials(path);
  }
}

/** Reads "user:password" from a file. Throws InputInvalid without showing the content. */
async function readProxyCredentials(path: string): Promise<ProxyCredentials> {
  const action = `write one line user:password to ${path} and make it readable by this program only`;
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new Fault("InputInvalid", "could not read the proxy's credentials file", { evidence: { path }, action, cause: error });
  });
  const line = text.split("\n", 1)[0] ?? "";
  const colon = line.indexOf(":");
  if (colon < 1) throw new Fault("InputInvalid", "the proxy's credentials file has no line user:password", { evidence: { path }, action });
  return { user: line.slice(0, colon), password: line.slice(colon + 1).replace(/\r$/, "") };
}
