// Proves one way hop by hop, with the same code that a connection uses: decision, DNS, proxy, TCP, TLS, HTTP.

import { request as httpRequest } from "node:http";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { forEachParallel } from "../base/semaphore.ts";
import { asFault, Fault, toReport, type FaultReport } from "../contract/errors.ts";
import { describePeer, dialAny, type HostPort } from "./dial.ts";
import { PathOpener, type Allowed, type PathOptions } from "./path-opener.ts";
import { errorCode } from "./resolve.ts";
import { normaliseHost } from "./topology.ts";

const probesParallelMax = 8;
const hopTimeoutMs = 10_000;

const hops = ["decision", "dns", "proxy", "tcp", "tls", "http"] as const;
export type Hop = (typeof hops)[number];

export interface ProbeTarget extends HostPort {
  /** What is reached, in a word: "rcm1", "blob", "vcenter". */
  readonly id: string;
  /** Who reaches: "appliance", "hub", "agent". */
  readonly role: string;
  /** How far to go. */
  readonly upTo: "tcp" | "tls" | "http" | "https";
  /** Path of the HTTP request; "/" unless told. Any answer below 500 passes: it shows that the service speaks. */
  readonly path?: string;
}

/** What one hop said. The list for a target always has the same hops, so that two runs can be compared. */
export interface CheckResult {
  /** "<target id>/<hop>". */
  readonly id: string;
  readonly role: string;
  readonly hop: Hop;
  /** Local address, once a socket is open. */
  readonly from?: string;
  readonly to: string;
  readonly tried: string;
  readonly answer: string;
  readonly latencyMs: number;
  readonly verdict: "pass" | "fail" | "skipped";
  readonly fault?: FaultReport;
  /** What mends it: a command where there is one. */
  readonly repair?: string;
}

/** Probes all targets, a few at a time, in the order given. Never throws for what the network does. */
export async function probeAll(targets: readonly ProbeTarget[], options: PathOptions, signal?: AbortSignal): Promise<CheckResult[]> {
  const opener = new PathOpener(options);
  const results: CheckResult[][] = targets.map(() => []);
  await forEachParallel(targets, probesParallelMax, async (target, index) => {
    results[index] = await new Walk(target, opener, options, signal).run();
  });
  return results.flat();
}

interface HopOutcome<T> {
  readonly answer: string;
  readonly value: T;
}

/** One walk to one target; owns the socket and the results so far. */
class Walk {
  readonly #target: ProbeTarget;
  readonly #opener: PathOpener;
  readonly #options: PathOptions;
  readonly #signal: AbortSignal | undefined;
  readonly #results: CheckResult[] = [];
  #socket: Socket | undefined;

  constructor(target: ProbeTarget, opener: PathOpener, options: PathOptions, signal: AbortSignal | undefined) {
    this.#target = { ...target, host: normaliseHost(target.host) };
    this.#opener = opener;
    this.#options = options;
    this.#signal = signal;
  }

  async run(): Promise<CheckResult[]> {
    try {
      await this.#walk();
    } finally {
      this.#socket?.destroy();
    }
    const failed = this.#results.find((result) => result.verdict === "fail");
    for (const hop of this.#wantedHops()) {
      if (this.#results.some((result) => result.hop === hop)) continue;
      this.#record(hop, "skipped", failed === undefined ? "not needed on this way" : `an earlier hop failed: ${failed.hop}`, 0);
    }
    this.#signal?.throwIfAborted();
    return this.#results.toSorted((one, other) => hops.indexOf(one.hop) - hops.indexOf(other.hop));
  }

  #wantedHops(): readonly Hop[] {
    const { upTo } = this.#target;
    return hops.filter((hop) => (hop === "tls" ? upTo === "tls" || upTo === "https" : hop !== "http" || upTo.startsWith("http")));
  }

  async #walk(): Promise<void> {
    const decision = await this.#hop("decision", `decide ${this.#target.host}`, async () => {
      const value = this.#opener.allow(this.#target.host);
      const by = value.kind === "proxy" ? ` by ${value.proxyUrl}` : "";
      return await Promise.resolve({ answer: `${value.kind}${by}: ${value.because}`, value });
    });
    if (decision === undefined || !(await this.#openSocket(decision))) return;
    const wanted = this.#wantedHops();
    if (wanted.includes("tls") && !(await this.#secure(decision))) return;
    if (wanted.includes("http")) await this.#ask();
  }

  async #openSocket(decision: Allowed): Promise<boolean> {
    const target = this.#target;
    if (decision.kind === "proxy") {
      const tunnel = await this.#hop("proxy", `CONNECT ${target.host}:${target.port} at ${decision.proxyUrl}`, async (signal) => {
        const value = await this.#opener.tunnel(decision.proxyUrl, target, signal);
        return { answer: `200, the proxy at ${value.remoteAddress} resolved the name`, value };
      });
      this.#socket = tunnel;
      return tunnel !== undefined;
    }
    const resolution = await this.#hop("dns", `resolve ${target.host}`, async (signal) => {
      const value = await this.#opener.resolve(decision, signal);
      return { answer: `${value.addresses.join(" ")} from ${value.server}`, value };
    });
    if (resolution === undefined) return false;
    this.#socket = await this.#hop("tcp", `connect to ${resolution.addresses.join(" ")} port ${target.port}`, async (signal) => {
      const value = await dialAny(target, resolution.addresses, signal);
      return { answer: `connected to ${value.remoteAddress}`, value };
    });
    return this.#socket !== undefined;
  }

  async #secure(decision: Allowed): Promise<boolean> {
    const plain = this.#socket;
    if (plain === undefined) return false;
    const secure = await this.#hop("tls", `TLS with ${this.#target.host}`, async (signal) => {
      const value = await this.#opener.secure(decision, plain, this.#target, signal);
      const peer = describePeer(value);
      return { answer: `${value.getProtocol()} ${peer["subject"]} by ${peer["issuer"]}, until ${peer["validTo"]}`, value };
    });
    if (secure !== undefined) this.#socket = secure;
    return secure !== undefined;
  }

  async #ask(): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined) return;
    const path = this.#target.path ?? "/";
    await this.#hop("http", `GET ${path}`, async (signal) => {
      const status = await askStatus(socket, this.#target, path, signal);
      if (status < 500) return { answer: `HTTP ${status}`, value: status };
      throw new Fault("PeerFailed", `${this.#target.host} answered with HTTP ${status}`, { evidence: { host: this.#target.host, status } });
    });
  }

  /** Runs one hop and records what it said; undefined when it failed. */
  async #hop<T>(hop: Hop, tried: string, task: (signal: AbortSignal) => Promise<HopOutcome<T>>): Promise<T | undefined> {
    const startedMs = this.#options.clock.monotonicMs();
    const tookMs = (): number => this.#options.clock.monotonicMs() - startedMs;
    const deadline = AbortSignal.timeout(this.#options.connectTimeoutMs ?? hopTimeoutMs);
    try {
      const { answer, value } = await task(this.#signal === undefined ? deadline : AbortSignal.any([this.#signal, deadline]));
      this.#record(hop, "pass", answer, tookMs(), { tried });
      return value;
    } catch (error) {
      const fault = toReport(asFault(error, tried));
      this.#record(hop, "fail", `${fault.id}: ${fault.message}`, tookMs(), { tried, fault, repair: fault.action });
      return undefined;
    }
  }

  #record(
    hop: Hop,
    verdict: CheckResult["verdict"],
    answer: string,
    latencyMs: number,
    more: Partial<Pick<CheckResult, "tried" | "fault" | "repair">> = {},
  ): void {
    const { id, role, host, port } = this.#target;
    const from = this.#socket?.localAddress;
    this.#results.push({
      id: `${id}/${hop}`,
      role,
      hop,
      ...(from === undefined ? {} : { from }),
      to: `${host}:${port}`,
      tried: "",
      answer,
      latencyMs: Math.round(latencyMs * 10) / 10,
      verdict,
      ...more,
    });
  }
}

async function askStatus(socket: Socket, target: HostPort, path: string, signal: AbortSignal): Promise<number> {
  const isStandardPort = target.port === (socket instanceof TLSSocket ? 443 : 80);
  const host = isStandardPort ? target.host : `${target.host}:${target.port}`;
  return await new Promise((resolve, reject) => {
    const request = httpRequest({ path, signal, headers: { host, connection: "close" }, createConnection: () => socket });
    request.once("response", (response) => {
      response.resume(); // The status is the answer; the body is read away.
      response.once("error", () => undefined); // The walk may close the socket before the body's end.
      resolve(response.statusCode ?? 0);
    });
    request.on("error", (cause) => {
      const evidence = { host: target.host, port: target.port, code: errorCode(cause) };
      reject(new Fault("PeerFailed", `${target.host} did not answer an HTTP request`, { evidence, cause }));
    });
    request.end();
  });
}
