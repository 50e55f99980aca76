// The one way out of a program: every connection is decided by the topology, checked, logged and refused when in doubt.

import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { LookupFunction, Socket } from "node:net";
import { Agent as UndiciAgent, fetch as undiciFetch, type Dispatcher, type RequestInfo, type RequestInit, type Response } from "undici";
import { Fault } from "../contract/errors.ts";
import { decide, type Decision } from "./decision.ts";
import type { HostPort } from "./dial.ts";
import { PathOpener, type OpenPath, type PathOptions } from "./path-opener.ts";

const socketsPerOriginMax = 64;
/** A line that was cut says nothing: without a bound, a call waits until the kernel gives the connection up, many minutes later. */
const silentMsMax = 60_000;

/** Safe to share and to use in parallel. A new topology, CA or certificate is a new connector. */
export interface Connector extends AsyncDisposable {
  /** For undici's `request` and `fetch`. Connection faults reject as Fault from `request`. */
  readonly dispatcher: Dispatcher;
  /** For libraries built on node:http and node:https, such as the Azure SDK. A connection on which nothing moves is given up. */
  readonly httpAgent: HttpAgent;
  readonly httpsAgent: HttpsAgent;
  /** For libraries that open sockets by name: checked addresses of private and site names, a fault for all others. */
  readonly lookup: LookupFunction;
  /** undici's fetch through the dispatcher; a connection fault rejects as Fault, not as "fetch failed". */
  fetch(url: RequestInfo, init?: RequestInit): Promise<Response>;
  /** A plain TCP connection (through the proxy's tunnel where decided so), for SSH and the like. */
  connect(target: HostPort, signal?: AbortSignal): Promise<Socket>;
  /** The same with TLS. */
  connectTls(target: HostPort, signal?: AbortSignal): Promise<Socket>;
  decide(host: string): Decision;
}

export interface ConnectorOptions extends PathOptions {
  /** How long a connection of the two agents may be silent; 60 000 unless told. */
  readonly silentMsMax?: number;
}

export function createConnector(options: ConnectorOptions): Connector {
  const paths = new PathOpener(options);
  const open = async (target: HostPort, isTls: "tls" | "plain", signal?: AbortSignal): Promise<Socket> =>
    await paths.open(target, isTls, signal);
  const dispatcher = new UndiciAgent({
    connections: socketsPerOriginMax,
    allowH2: false,
    connect: (to, callback) => {
      const kind = to.protocol === "https:" ? "tls" : "plain";
      const port = Number(to.port) || (kind === "tls" ? 443 : 80);
      open({ host: to.hostname, port }, kind).then(
        (socket) => callback(null, socket),
        (error: unknown) => callback(toError(error), null),
      );
    },
  });
  const httpAgent = new DecidedHttpAgent(open, options.silentMsMax ?? silentMsMax);
  const httpsAgent = new DecidedHttpsAgent(open, options.silentMsMax ?? silentMsMax);
  return {
    dispatcher,
    httpAgent,
    httpsAgent,
    lookup: createLookup(paths),
    fetch: async (url, init = {}) => await fetchThrough(dispatcher, url, init),
    connect: async (target, signal) => await open(target, "plain", signal),
    connectTls: async (target, signal) => await open(target, "tls", signal),
    decide: (host) => decide(options.topology, host),
    [Symbol.asyncDispose]: async () => {
      httpAgent.destroy();
      httpsAgent.destroy();
      if (!dispatcher.destroyed) await dispatcher.destroy();
    },
  };
}

function createLookup(paths: PathOpener): LookupFunction {
  const find = async (hostname: string): Promise<readonly string[]> => {
    const decision = paths.allow(hostname);
    if (decision.kind !== "proxy") return (await paths.resolve(decision)).addresses;
    throw new Fault("HostUndeclared", `refused to look up ${decision.host}: it is reached through the proxy, not by an address`, {
      evidence: { host: decision.host, proxy: decision.proxyUrl },
    });
  };
  return (hostname, options, callback) => {
    find(hostname).then(
      (all) => {
        const answers = all.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
        const wanted = answers.filter(
          (answer) => !options.family || answer.family === options.family || options.family === `IPv${answer.family}`,
        );
        const first = wanted[0];
        if (options.all === true) callback(null, wanted);
        else if (first !== undefined) callback(null, first.address, first.family);
        else callback(Object.assign(new Error(`${hostname} has no address of this family`), { code: "ENOTFOUND" }), "");
      },
      (error: unknown) => callback(toError(error), ""),
    );
  };
}

async function fetchThrough(dispatcher: Dispatcher, url: RequestInfo, init: RequestInit): Promise<Response> {
  try {
    return await undiciFetch(url, { ...init, dispatcher });
  } catch (error) {
    if (error instanceof TypeError && error.cause instanceof Fault) throw error.cause;
    throw error;
  }
}

interface AgentTarget {
  readonly host?: string | null | undefined;
  readonly port?: number | string | null | undefined;
}
type AgentCallback = (error: Error | null, socket: Socket) => void;

function answerAgent(opening: Promise<Socket>, silentMs: number, callback: AgentCallback | undefined): undefined {
  opening.then(
    (socket) => {
      socket.setTimeout(silentMs);
      socket.on("timeout", () => socket.destroy(new Error(`nothing moved on the connection for ${silentMs} ms`)));
      callback?.(null, socket);
    },
    // Node's agents read the error first; the type wants a socket even then.
    (error: unknown) => (callback as ((error: Error) => void) | undefined)?.(toError(error)),
  );
  return undefined;
}

class DecidedHttpAgent extends HttpAgent {
  readonly #open: OpenPath;
  readonly #silentMs: number;
  constructor(open: OpenPath, silentMs: number) {
    super({ keepAlive: true, maxSockets: socketsPerOriginMax, timeout: silentMs });
    this.#open = open;
    this.#silentMs = silentMs;
  }
  override createConnection(to: AgentTarget, callback?: AgentCallback): undefined {
    return answerAgent(this.#open({ host: to.host ?? "", port: Number(to.port) }, "plain"), this.#silentMs, callback);
  }
}

class DecidedHttpsAgent extends HttpsAgent {
  readonly #open: OpenPath;
  readonly #silentMs: number;
  constructor(open: OpenPath, silentMs: number) {
    super({ keepAlive: true, maxSockets: socketsPerOriginMax, timeout: silentMs });
    this.#open = open;
    this.#silentMs = silentMs;
  }
  override createConnection(to: AgentTarget, callback?: AgentCallback): undefined {
    return answerAgent(this.#open({ host: to.host ?? "", port: Number(to.port) }, "tls"), this.#silentMs, callback);
  }
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
