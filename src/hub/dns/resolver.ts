// The landing zone's resolver: dnsmasq as a child, started anew when its names change, brought back when it dies.

import { Resolver } from "node:dns/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { endStaleChild, startChild, type ChildProgram } from "./child-program.ts";
import { readyName, renderDnsmasq, type DnsZone } from "./render-dnsmasq.ts";

export interface LandingResolver extends AsyncDisposable {
  /** Serves these zones; returns when a query was answered from them. Nothing happens when they are served already. */
  serve(zones: readonly DnsZone[]): Promise<void>;
}

const answerMsMax = 5_000;
const pollMs = 20;

export function createResolver(options: {
  readonly folder: string;
  readonly address: string;
  readonly port: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}): LandingResolver {
  const { folder, address, port, clock, random, log } = options;
  const recordFile = join(folder, `dnsmasq-${address}.pid`);
  const configFile = join(folder, `dnsmasq-${address}.conf`);
  let running: { readonly child: ChildProgram; readonly names: string } | undefined;
  const stop = async (): Promise<void> => {
    const stopping = running;
    running = undefined;
    await stopping?.child.stop();
  };
  const start = async (zones: readonly DnsZone[], names: string): Promise<void> => {
    const serial = random.uuid();
    await endStaleChild(recordFile, log);
    // dnsmasq reads its configuration before it gives up its rights, so the file stays readable by the hub alone.
    await writeFileAtomic(configFile, renderDnsmasq({ address, port, zones, serial }), { mode: 0o600 });
    const child = await startChild({ program: "dnsmasq", args: ["-C", configFile], recordFile, debianPackage: "dnsmasq-base", log });
    const mine = { child, names };
    running = mine;
    void child.ended.then(() => {
      if (running !== mine) return;
      running = undefined;
      log.error("resolver ended by itself", { address });
    });
    await waitServed(serial, () => running === mine);
  };
  const waitServed = async (serial: string, isAlive: () => boolean): Promise<void> => {
    const endMs = clock.monotonicMs() + answerMsMax;
    while (isAlive() && clock.monotonicMs() < endMs) {
      const resolver = new Resolver({ timeout: 500, tries: 1 });
      resolver.setServers([`${address}:${port}`]);
      const answer = await resolver.resolveTxt(readyName).catch(() => []); // Not up yet; the loop's end tells when it never was.
      if (answer[0]?.[0] === serial) return;
      await clock.sleep(pollMs);
    }
    await stop();
    throw new Fault("ListenFailed", `could not start the landing zone's resolver on ${address}:${port}`, { evidence: { address, port } });
  };
  return {
    serve: async (zones) => {
      const names = renderDnsmasq({ address, port, zones, serial: "" });
      if (running?.names === names) return;
      await stop();
      await start(zones, names);
      log.info("resolver served", { address, port, zones: zones.length });
    },
    [Symbol.asyncDispose]: stop,
  };
}
