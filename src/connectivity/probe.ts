// Proves one way hop by hop, with the same code that a connection uses: decision, DNS, route, proxy, TCP, TLS, HTTP, clock, packet size.

import { request as httpRequest } from "node:http";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { fromHttpDate } from "../base/clock.ts";
import { forEachParallel } from "../base/semaphore.ts";
import { asFault, Fault, toReport, type FaultReport } from "../contract/errors.ts";
import { describePeer, dialAny, type HostPort } from "./dial.ts";
import { isPacAnswerRight } from "./pac.ts";
import { PathOpener, type Allowed, type PathOptions } from "./path-opener.ts";
import { checkAnswers, compareAnswers, errorCode, surveyName } from "./resolve.ts";
import { lookUpRoute, type Route } from "./route.ts";
import { normaliseHost } from "./topology.ts";

const probesParallelMax = 8;
const hopTimeoutMs = 10_000;
/** More than any usual link's packet, less than any server's limit of headers. */
const largeHeaderBytes = 6_000;
const largeRequestMsMax = 5_000;
const smallCurve = "X25519";
/** Tokens and certificates are refused beyond this. */
const skewMsMax = 5 * 60_000;

const hops = ["decision", "pac", "dns", "route", "proxy", "tcp", "tls", "http", "clock", "packets"] as const;
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
  /** What a name must be answered with, where that is known. */
  readonly expectedAddresses?: readonly string[];
  /** What the machine's proxy auto-configuration file says of the host, where it has one. */
  readonly pac?: { readonly file: string; readonly answer: string };
  /** Repairs that only the plan of this way knows, by fault; they go before all others. */
  readonly repairs?: Readonly<Record<string, string>>;
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

/** A private endpoint has reasons of its own beside those that every name has. */
const privateRepairs: Readonly<Record<string, string>> = {
  NameUnresolved:
    "make the resolver in the evidence know the name: link the private zone to its network, forward the zone to it, or add the record or a hosts line",
  ConnectionFailed:
    "see whether the private endpoint's connection is approved, then whether a firewall on the line lets port and both directions pass",
};

/** A public name that is tried directly: in a closed network nothing answers it. */
const directRepairs: Readonly<Record<string, string>> = {
  NameUnresolved: "name the proxy that leads out of this zone: nobody here resolves public names",
  ConnectionFailed: "name the proxy that leads out of this zone: public names are not reached directly here",
};

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
  #hasAnswered = false;
  #way: Allowed["kind"] | undefined;
  #dateHeader: string | undefined;

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
    const byHttp: readonly Hop[] = ["http", "clock", "packets"];
    const known = hops.filter((hop) => hop !== "pac" || this.#target.pac !== undefined);
    return known.filter((hop) => (hop === "tls" ? upTo === "tls" || upTo === "https" : !byHttp.includes(hop) || upTo.startsWith("http")));
  }

  async #walk(): Promise<void> {
    const decision = await this.#hop("decision", `decide ${this.#target.host}`, async () => {
      const value = this.#opener.allow(this.#target.host);
      const by = value.kind === "proxy" ? ` by ${value.proxyUrl}` : "";
      return await Promise.resolve({ answer: `${value.kind}${by}: ${value.because}`, value });
    });
    this.#way = decision?.kind;
    if (decision === undefined || !(await this.#comparePac(decision)) || !(await this.#openSocket(decision))) return;
    const wanted = this.#wantedHops();
    if (wanted.includes("tls") && !(await this.#secure(decision))) return;
    if (!wanted.includes("http")) return;
    await this.#ask();
    // What follows tells of the way, whatever the service answered; only a way that never answered tells nothing.
    if (this.#dateHeader !== undefined) await this.#compareClocks(this.#dateHeader);
    if (this.#hasAnswered) await this.#sendLargePackets(decision);
  }

  /** Programs that obey the file would go another way than ours; what they would tell is private. */
  async #comparePac(decision: Allowed): Promise<boolean> {
    const { pac, host } = this.#target;
    if (pac === undefined) return true;
    const passed = await this.#hop("pac", `ask ${pac.file} for https://${host}/`, async () => {
      const proxyUrl = decision.kind === "proxy" ? decision.proxyUrl : undefined;
      if (isPacAnswerRight(pac.answer, proxyUrl)) return await Promise.resolve({ answer: pac.answer, value: true });
      const wanted = proxyUrl === undefined ? "DIRECT" : `the proxy ${proxyUrl}`;
      throw new Fault("PacAnswerWrong", `the proxy auto-configuration file sends ${host} by ${pac.answer}, not by ${wanted}`, {
        evidence: { host, file: pac.file, answer: pac.answer, wanted },
        action: `hand out the file that \`watari net render pac\` writes, or let ${pac.file} answer ${host} with ${wanted}`,
      });
    });
    return passed === true;
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
      const { topology } = this.#options;
      const answers = await surveyName(topology, decision.host);
      for (const { server, addresses } of answers) checkAnswers(topology, decision, { name: decision.host, addresses, server });
      compareAnswers(decision.host, answers, target.expectedAddresses);
      const value = await this.#opener.resolve(decision, signal);
      const told = answers.map(({ server, addresses, failure }) => `${failure ?? addresses.join(" ")} from ${server}`);
      return { answer: told.join(", "), value };
    });
    if (resolution === undefined) return false;
    const [first] = resolution.addresses;
    if (first !== undefined && !(await this.#lookUpRoute(first))) return false;
    this.#socket = await this.#hop("tcp", `connect to ${resolution.addresses.join(" ")} port ${target.port}`, async (signal) => {
      const value = await dialAny(target, resolution.addresses, signal);
      return { answer: `connected to ${value.remoteAddress}`, value };
    });
    return this.#socket !== undefined;
  }

  /** false only when there is none; where the kernel cannot be asked, the connection will tell. */
  async #lookUpRoute(address: string): Promise<boolean> {
    const unknown = "the program ip is not installed";
    const passed = await this.#hop("route", `ip route get ${address}`, async () => {
      const route = await lookUpRoute(address);
      const answer = route === undefined ? unknown : describeRoute(route);
      return { answer, value: true };
    });
    return passed === true;
  }

  async #secure(decision: Allowed): Promise<boolean> {
    const plain = this.#socket;
    if (plain === undefined) return false;
    const secure = await this.#hop("tls", `TLS with ${this.#target.host}`, async (signal) => {
      const value = await this.#opener.secure(decision, plain, this.#target, signal).catch(async (error: unknown) => {
        throw (await this.#isHelloTooLarge(decision, error)) ? packetsLost(this.#target, { hop: "tls" }, error) : error;
      });
      const peer = describePeer(value);
      return { answer: `${value.getProtocol()} ${peer["subject"]} by ${peer["issuer"]}, until ${peer["validTo"]}`, value };
    });
    if (secure !== undefined) this.#socket = secure;
    return secure !== undefined;
  }

  /**
   * Today's first message of TLS fills more than one packet, because it carries a key that withstands quantum computers. When it got
   * no answer and a small one does, it is the way that loses large packets.
   */
  async #isHelloTooLarge(decision: Allowed, error: unknown): Promise<boolean> {
    const hasSeenPeer = error instanceof Fault && error.evidence["subject"] !== undefined;
    if (!(error instanceof Fault) || hasSeenPeer) return false;
    const signal = AbortSignal.timeout(largeRequestMsMax);
    try {
      const plain = await this.#opener.open(this.#target, "plain", signal);
      const secure = await this.#opener.secure(decision, plain, { ...this.#target, ecdhCurve: smallCurve }, signal);
      secure.destroy();
      return true;
    } catch {
      return false; // Small or large, nobody answers: the first fault tells.
    }
  }

  async #ask(): Promise<void> {
    const socket = this.#socket;
    if (socket === undefined) return;
    const path = this.#target.path ?? "/";
    await this.#hop("http", `GET ${path}`, async (signal) => {
      const { status, date } = await askStatus(socket, { ...this.#target, path, signal });
      this.#hasAnswered = true;
      this.#dateHeader = date;
      if (status < 500) return { answer: `HTTP ${status}`, value: status };
      throw new Fault("PeerFailed", `${this.#target.host} answered with HTTP ${status}`, { evidence: { host: this.#target.host, status } });
    });
  }

  async #compareClocks(date: string): Promise<void> {
    await this.#hop("clock", "compare this machine's clock with the answer's date", async () => {
      const skewMs = this.#options.clock.nowMs() - fromHttpDate(date);
      if (Number.isNaN(skewMs)) return await Promise.resolve({ answer: "the service tells no date", value: undefined });
      const skewSeconds = Math.round(skewMs / 1000);
      if (Math.abs(skewMs) <= skewMsMax) return { answer: `${Math.abs(skewSeconds)} s apart`, value: undefined };
      const direction = skewMs > 0 ? "ahead of" : "behind";
      throw new Fault("ClockSkewed", `this machine's clock is ${Math.abs(skewSeconds)} s ${direction} that of ${this.#target.host}`, {
        evidence: { host: this.#target.host, skewSeconds, theirs: date },
      });
    });
  }

  /** A request of several packets over a connection of its own: small ones pass a way that loses large ones. */
  async #sendLargePackets(decision: Allowed): Promise<void> {
    await this.#hop("packets", `GET with a header of ${largeHeaderBytes} bytes`, async (signal) => {
      const bounded = AbortSignal.any([signal, AbortSignal.timeout(largeRequestMsMax)]);
      const target = this.#target;
      const socket = await this.#opener.open(target, this.#wantedHops().includes("tls") ? "tls" : "plain", signal);
      const address = socket.remoteAddress;
      try {
        const padding = { "x-watari-padding": "0".repeat(largeHeaderBytes) };
        const { status } = await askStatus(socket, { ...target, path: target.path ?? "/", signal: bounded, headers: padding });
        const route = address === undefined || decision.kind === "proxy" ? undefined : await lookUpRoute(address);
        const learnt = route?.mtuBytes === undefined ? "" : `, packets of at most ${route.mtuBytes} bytes`;
        return { answer: `HTTP ${status}${learnt}`, value: undefined };
      } catch (cause) {
        throw packetsLost(target, { hop: "http", address: address ?? "" }, cause);
      } finally {
        socket.destroy();
      }
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
      const repair = this.#target.repairs?.[fault.id] ?? repairsOf(this.#way)[fault.id] ?? fault.action;
      this.#record(hop, "fail", `${fault.id}: ${fault.message}`, tookMs(), { tried, fault, repair });
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

function repairsOf(way: Allowed["kind"] | undefined): Readonly<Record<string, string>> {
  if (way === "private") return privateRepairs;
  return way === "public" ? directRepairs : {};
}

function packetsLost({ host }: HostPort, evidence: Readonly<Record<string, string>>, cause: unknown): Fault {
  return new Fault("PacketsLost", `${host} answers what fits into one small packet, and nothing larger`, {
    evidence: { host, ...evidence, waitedMs: largeRequestMsMax },
    cause,
  });
}

function describeRoute({ device, gateway, source, mtuBytes }: Route): string {
  const from = source === undefined ? "" : ` from ${source}`;
  const mtu = mtuBytes === undefined ? "" : `, packets of at most ${mtuBytes} bytes`;
  return `${gateway === undefined ? "on the link" : `by ${gateway}`}, ${device}${from}${mtu}`;
}

interface Asking extends HostPort {
  readonly path: string;
  readonly signal: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
}

async function askStatus(socket: Socket, asking: Asking): Promise<{ readonly status: number; readonly date: string | undefined }> {
  const { path, signal, port } = asking;
  const isStandardPort = port === (socket instanceof TLSSocket ? 443 : 80);
  const headers = { ...asking.headers, host: isStandardPort ? asking.host : `${asking.host}:${port}`, connection: "close" };
  return await new Promise((resolve, reject) => {
    const request = httpRequest({ path, signal, headers, createConnection: () => socket });
    request.once("response", (response) => {
      response.resume(); // Status and date are the answer; the body is read away.
      response.once("error", () => undefined); // The walk may close the socket before the body's end.
      resolve({ status: response.statusCode ?? 0, date: response.headers.date });
    });
    request.on("error", (cause) => {
      const evidence = { host: asking.host, port, code: errorCode(cause) };
      reject(new Fault("PeerFailed", `${asking.host} did not answer an HTTP request`, { evidence, cause }));
    });
    request.end();
  });
}
