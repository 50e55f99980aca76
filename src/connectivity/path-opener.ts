// Opens one connection by the topology's decision: name, TCP, proxy tunnel, TLS, each checked, the whole logged.

import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { getCACertificates } from "node:tls";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { Fault } from "../contract/errors.ts";
import { decide, type Decision } from "./decision.ts";
import { dialAny, openTunnel, proxyUnreachable, startTls, type HostPort, type ProxyCredentials } from "./dial.ts";
import { checkAnswers, createNameResolver, type NameResolver } from "./resolve.ts";
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

/** Opens decided paths; owns the kept answers and the proxy's credentials. */
export class PathOpener {
  readonly #options: PathOptions;
  readonly #resolver: NameResolver;

  constructor(options: PathOptions) {
    this.#options = options;
    this.#resolver = createNameResolver(options);
  }

  /** Checked addresses of a host that is reached directly. */
  async addresses(decision: Exclude<Decision, { kind: "proxy" | "undeclared" }>): Promise<readonly string[]> {
    const resolution = await this.#resolver.resolve(decision.host);
    checkAnswers(this.#options.topology, decision, resolution);
    return resolution.addresses;
  }

  allow(host: string): Exclude<Decision, { kind: "undeclared" }> {
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
      const socket = isTls === "tls" ? await this.#openTls(decision, plain, target, both) : plain;
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

  async #openPlain(decision: Exclude<Decision, { kind: "undeclared" }>, target: HostPort, signal: AbortSignal): Promise<Socket> {
    if (decision.kind !== "proxy") return await dialAny(target, await this.addresses(decision), signal);
    const credentials = await this.#proxyCredentials();
    const socket = await this.#dialProxy(decision.proxyUrl, signal);
    return await openTunnel({ socket, proxyUrl: decision.proxyUrl, target, credentials, signal });
  }

  async #dialProxy(proxyUrl: string, signal: AbortSignal): Promise<Socket> {
    const url = new URL(proxyUrl);
    const isTls = url.protocol === "https:";
    const proxy = { host: normaliseHost(url.hostname), port: Number(url.port) || (isTls ? 443 : 80) };
    try {
      const { addresses } = await this.#resolver.resolve(proxy.host);
      const socket = await dialAny(proxy, addresses, signal);
      return isTls ? await startTls(socket, { ...proxy, ca: this.#publicAuthorities(), signal }) : socket;
    } catch (error) {
      throw proxyUnreachable(proxyUrl, signal, error);
    }
  }

  async #openTls(decision: Decision, plain: Socket, target: HostPort, signal: AbortSignal): Promise<Socket> {
    const { caPem, clientCertificate } = this.#options;
    const isNear = decision.kind === "private" || decision.kind === "site";
    const identity =
      decision.kind === "private" && clientCertificate !== undefined
        ? { cert: clientCertificate.certPem, key: clientCertificate.keyPem }
        : {};
    const ca = isNear && caPem !== undefined ? [caPem] : this.#publicAuthorities();
    return await startTls(plain, { ...target, ...identity, ca, ALPNProtocols: ["http/1.1"], signal });
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
export async function readProxyCredentials(path: string): Promise<ProxyCredentials> {
  const action = `write one line user:password to ${path} and make it readable by this program only`;
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new Fault("InputInvalid", "could not read the proxy's credentials file", { evidence: { path }, action, cause: error });
  });
  const line = text.split("\n", 1)[0] ?? "";
  const colon = line.indexOf(":");
  if (colon < 1) throw new Fault("InputInvalid", "the proxy's credentials file has no line user:password", { evidence: { path }, action });
  return { user: line.slice(0, colon), password: line.slice(colon + 1).replace(/\r$/, "") };
}
