// What the console set-up tries after each answer, with the same code as the set-up page: interface, route, gateway, proxy, clock.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { PathOpener } from "../../connectivity/path-opener.ts";
import { probeAll } from "../../connectivity/probe.ts";
import { parseTopology, type Topology } from "../../connectivity/topology.ts";
import { attempt, checkNetwork, machineAddresses } from "../setup/setup-checks.ts";
import type { ConsoleAnswers, NetworkAnswers } from "./console-answers.ts";
import type { MachineSystem } from "./machine-changes.ts";

export interface CheckParts {
  readonly system: MachineSystem;
  readonly clock: Clock;
  readonly log: Log;
}

const addressWaitMs = 15_000;
const addressEveryMs = 250;
const gatewayWaitMs = 5_000;

/** Before anything is changed: what would fight over the interface. */
export async function checkKeeper({ device }: NetworkAnswers, { system, clock }: CheckParts): Promise<NetworkCheck> {
  const path = "/etc/network/interfaces";
  return await attempt(clock, { id: `${device}/keeper`, hop: "keeper", to: device, tried: `look into ${path}` }, async () => {
    const text = await readFile(join(system.root, path), "utf8").catch(() => ""); // ifupdown is not there.
    if (!new RegExp(`^\\s*(?:auto|allow-hotplug|iface)\\s+(?:\\S+\\s+)*${device.replaceAll(".", "\\.")}(?:\\s|$)`, "m").test(text))
      return "nothing else keeps it";
    throw new Fault("StateConflict", `${device} is kept by ifupdown, which would fight over it with systemd`, {
      evidence: { path },
      action: `remove the lines of ${device} from ${path}, run ifdown ${device}, then run this again`,
    });
  });
}

/** After the change: the address is there, and the gateway speaks on the link. */
export async function checkNewNetwork(network: NetworkAnswers, { clock, system }: CheckParts): Promise<readonly NetworkCheck[]> {
  const { device, address, gateway } = network;
  const isThere = (): boolean =>
    machineAddresses().some((each) => each.device === device && (address === undefined || each.address === address.split("/")[0]));
  const untilMs = clock.monotonicMs() + addressWaitMs;
  while (!isThere() && clock.monotonicMs() < untilMs) await clock.sleep(addressEveryMs);
  const found = machineAddresses().find((each) => each.device === device);
  const wanted = address?.split("/")[0] ?? found?.address;
  if (wanted === undefined) {
    const tried = { id: `${device}/interface`, hop: "interface", to: device, tried: "wait for an address by DHCP" };
    return [
      await attempt(clock, tried, async () => {
        throw await Promise.resolve(
          new Fault("ConnectionFailed", `${device} has no address after ${addressWaitMs / 1000} s`, {
            causes: ["no DHCP server answers on this network", "the machine's adapter is not connected"],
            action: `see whether the adapter is connected in the vCenter; else give ${device} a fixed address`,
          }),
        );
      }),
    ];
  }
  const own = await checkNetwork({ listenAddresses: [wanted], farAddresses: [] }, clock);
  return gateway === undefined ? own : [...own, await checkGateway({ device, gateway }, { clock, system })];
}

/** A gateway need not answer a ping, but it must answer the question for its hardware address. */
async function checkGateway(
  { device, gateway }: { readonly device: string; readonly gateway: string },
  { clock, system }: Pick<CheckParts, "clock" | "system">,
): Promise<NetworkCheck> {
  return await attempt(
    clock,
    { id: `gateway ${gateway}/link`, hop: "link", to: gateway, tried: `ip neigh show ${gateway} dev ${device}, after a datagram` },
    async () => {
      // Only to make the kernel ask; Debian's bash sends a datagram without another program.
      await system.run("bash", ["-c", 'echo > "/dev/udp/$0/9"', gateway]);
      const untilMs = clock.monotonicMs() + gatewayWaitMs;
      for (;;) {
        const { stdout } = await system.run("ip", ["neigh", "show", gateway, "dev", device]);
        const hardware = /lladdr (\S+)/.exec(stdout)?.[1];
        if (hardware !== undefined && !stdout.includes("FAILED")) return `it is ${hardware}`;
        if (clock.monotonicMs() > untilMs) break;
        await clock.sleep(addressEveryMs);
      }
      throw new Fault("ConnectionFailed", `the gateway ${gateway} does not answer on ${device}`, {
        causes: ["the gateway's address is another", "the prefix is another", "the adapter is on another network"],
        action: "compare gateway, prefix and the adapter's network with those of a machine beside this one",
      });
    },
  );
}

/** As the appliance itself will go: with a name through the proxy, else to the proxy and no further. */
export async function checkProxy(
  proxy: NonNullable<ConsoleAnswers["proxy"]>,
  wish: { readonly dnsServers: readonly string[]; readonly password: string | undefined },
  { clock, log }: CheckParts,
): Promise<readonly NetworkCheck[]> {
  const { tryName, url, userName } = proxy;
  const topology = parseTopology({ proxy: { url }, dnsServers: [...wish.dnsServers], publicNames: tryName === undefined ? [] : [tryName] });
  const proxyCredentials = async (): Promise<{ user: string; password: string } | undefined> =>
    await Promise.resolve(userName === undefined ? undefined : { user: userName, password: wish.password ?? "" });
  const path = { topology, clock, log, proxyCredentials };
  if (tryName !== undefined) return await probeAll([{ id: "proxy", role: "appliance", host: tryName, port: 443, upTo: "tls" }], path);
  return [await checkProxyAlone(url, path)];
}

/** A proxy that refuses to go nowhere speaks all the same. */
async function checkProxyAlone(
  url: string,
  path: { readonly topology: Topology } & ConstructorParameters<typeof PathOpener>[0],
): Promise<NetworkCheck> {
  const target = { host: "name.invalid", port: 443 };
  return await attempt(
    path.clock,
    { id: "proxy/proxy", hop: "proxy", to: url, tried: `CONNECT ${target.host}:443 at ${url}` },
    async () => {
      try {
        const socket = await new PathOpener(path).tunnel(url, target, AbortSignal.timeout(10_000));
        socket.destroy();
        return "it lets everything pass";
      } catch (error) {
        // The name is nobody's: a refusal of it is the proxy's right answer, a question for the password is not.
        if (error instanceof Fault && error.code === "ProxyRefused") return "it answers, and knows no such name";
        throw error;
      }
    },
  );
}
