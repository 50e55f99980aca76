// The agent's ways to its appliance, tried hop by hop by the same means that it uses: name, TCP, TLS with the pinned authority, an answer, clock, packets.

import { lookup } from "node:dns/promises";
import { request } from "node:https";
import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { fromHttpDate, type Clock } from "../../base/clock.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { tlsOptions, type Endpoint, type Trust } from "./appliance-client.ts";

const hopMsMax = 10_000;
/** More than one packet of any usual line. */
const largeHeaderBytes = 6_000;
/** As everywhere: certificates and grants are refused beyond this. */
const skewMsMax = 5 * 60_000;

export interface AgentWays {
  readonly host: string;
  readonly controlPort: number;
  readonly dataPort: number;
  readonly trust: Trust;
  readonly clock: Clock;
}

/** Never throws for what the network does. */
export async function checkAgentWays(ways: AgentWays): Promise<readonly NetworkCheck[]> {
  const { host, controlPort, dataPort } = ways;
  const control = new Way("appliance control", { host, port: controlPort }, ways);
  const data = new Way("appliance data", { host, port: dataPort }, ways);
  await Promise.all([control.run("https"), data.run("tls")]);
  return [...control.results, ...data.results];
}

class Way {
  readonly results: NetworkCheck[] = [];
  readonly #id: string;
  readonly #endpoint: Endpoint;
  readonly #ways: AgentWays;

  constructor(id: string, endpoint: Endpoint, ways: AgentWays) {
    this.#id = id;
    this.#endpoint = endpoint;
    this.#ways = ways;
  }

  async run(upTo: "tls" | "https"): Promise<void> {
    const { host, port } = this.#endpoint;
    await this.#hop("dns", `resolve ${host}`, "make the guest's resolver know the appliance's name", async () => {
      if (isIP(host) !== 0) return `${host} is an address`;
      return (await lookup(host, { all: true })).map(({ address }) => address).join(", ");
    });
    await this.#hop(
      "tcp",
      `connect to ${host} port ${port}`,
      `let the guest reach ${host} on TCP ${port} through every firewall between`,
      async () => {
        using socket = await opened(connect({ host, port }), "connect");
        return `connected to ${socket.value.remoteAddress ?? host} from ${socket.value.localAddress ?? "unknown"}`;
      },
    );
    const other = "something between opens TLS, or the appliance was set up anew: register the agent there again";
    await this.#hop("tls", "TLS by the pinned authority and the agent's own certificate", other, async () => {
      using socket = await opened(connectTls(tlsOptions(this.#endpoint, this.#ways.trust)), "secureConnect");
      return describe(socket.value);
    });
    if (upTo === "tls") return;
    let date: string | undefined;
    await this.#hop("http", "ask the appliance", "see the appliance's journal: journalctl -u watari-appliance", async () => {
      const answer = await this.#ask({});
      ({ date } = answer);
      return `answered with ${answer.status}`;
    });
    await this.#hop("clock", "compare the clocks", "set the guest's time: timedatectl set-ntp true", async () => this.#compareClocks(date));
    const mtu = "lower the packet size of the guest's interface (ip link set dev DEVICE mtu 1400), or let ICMP pass";
    await this.#hop("packets", `send ${largeHeaderBytes} bytes at once`, mtu, async () => {
      const { status } = await this.#ask({ "x-watari-filler": "x".repeat(largeHeaderBytes) });
      return `answered with ${status}`;
    });
  }

  /** After a failure the others are not tried, and say so: two runs can be compared. */
  async #hop(hop: string, tried: string, repair: string, task: () => Promise<string>): Promise<void> {
    const { host, port } = this.#endpoint;
    const { clock } = this.#ways;
    const head = { id: `${this.#id}/${hop}`, role: "agent", hop, to: `${host}:${port}`, tried };
    if (this.results.some(({ verdict }) => verdict === "fail")) {
      this.results.push({ ...head, answer: "not tried after the failure before", latencyMs: 0, verdict: "skipped" });
      return;
    }
    const beganMs = clock.monotonicMs();
    try {
      const answer = await task();
      this.results.push({ ...head, answer: answer.slice(0, 4000), latencyMs: clock.monotonicMs() - beganMs, verdict: "pass" });
    } catch (error) {
      const fault = toReport(error instanceof Fault ? error : unreached(this.#endpoint, error));
      const answer = error instanceof Error ? error.message.slice(0, 4000) : asFault(error, tried).message;
      this.results.push({ ...head, answer, latencyMs: clock.monotonicMs() - beganMs, verdict: "fail", fault, repair });
    }
  }

  #compareClocks(date: string | undefined): Promise<string> {
    const told = date === undefined ? Number.NaN : fromHttpDate(date);
    if (Number.isNaN(told)) return Promise.resolve("the appliance told no time");
    const skewMs = Math.round(this.#ways.clock.nowMs() - told);
    if (Math.abs(skewMs) <= skewMsMax) return Promise.resolve(`${skewMs} ms apart, to a second`);
    return Promise.reject(
      new Fault("ClockSkewed", `the guest's clock is ${Math.round(skewMs / 1000)} s off the appliance's`, { evidence: { skewMs } }),
    );
  }

  async #ask(headers: Readonly<Record<string, string>>): Promise<{ readonly status: number; readonly date: string | undefined }> {
    return await new Promise((resolve, reject) => {
      const options = { ...tlsOptions(this.#endpoint, this.#ways.trust), method: "GET", path: "/", agent: false, headers };
      const outgoing = request(options, (response) => {
        response.resume();
        resolve({ status: response.statusCode ?? 0, date: response.headers.date });
      });
      outgoing.setTimeout(hopMsMax, () => outgoing.destroy(new Error(`no answer for ${hopMsMax} ms`)));
      outgoing.once("error", reject);
      outgoing.end();
    });
  }
}

async function opened<S extends Socket>(socket: S, event: "connect" | "secureConnect"): Promise<{ readonly value: S } & Disposable> {
  return await new Promise((resolve, reject) => {
    socket.setTimeout(hopMsMax, () => socket.destroy(new Error(`no answer for ${hopMsMax} ms`)));
    socket.once("error", reject);
    socket.once(event, () => resolve({ value: socket, [Symbol.dispose]: () => void socket.destroy() }));
  });
}

function describe(socket: TLSSocket): string {
  const { subject, valid_to: validTo } = socket.getPeerCertificate();
  return `${socket.getProtocol() ?? "TLS"} ${String(subject.CN)}, until ${validTo}`;
}

function unreached({ host, port }: Endpoint, cause: unknown): Fault {
  return new Fault("ConnectionFailed", `could not reach the appliance at ${host}:${port}`, { evidence: { host, port }, cause });
}
