// What each step of the set-up looks at, hop by hop: addresses, routes, time, and any attempt that can fail. Changes nothing.

import { networkInterfaces } from "node:os";
import type { Clock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { asFault, toReport, type Fault } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { lookUpRoute } from "../../connectivity/route.ts";

export interface MachineAddress {
  readonly device: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly isUp: boolean;
}

/** What the kernel has on its interfaces now, loopback last. */
export function machineAddresses(): readonly MachineAddress[] {
  const all = Object.entries(networkInterfaces()).flatMap(([device, entries = []]) =>
    entries
      .filter(({ scopeid }) => scopeid === undefined || scopeid === 0)
      .map(({ address, cidr }) => ({ device, address, prefixLength: Number(cidr?.split("/")[1] ?? 0), isUp: true })),
  );
  return all.toSorted((one, other) => Number(one.device === "lo") - Number(other.device === "lo"));
}

type Tried = Pick<NetworkCheck, "id" | "hop" | "to" | "tried">;

/** Runs one attempt; a failure is a finding with its repair, not a throw. */
export async function attempt(clock: Clock, tried: Tried, task: () => Promise<string>): Promise<NetworkCheck> {
  const beganMs = clock.monotonicMs();
  try {
    const answer = await task();
    return { ...tried, role: "appliance", answer, latencyMs: clock.monotonicMs() - beganMs, verdict: "pass" };
  } catch (error) {
    return failed(tried, asFault(error, tried.tried), clock.monotonicMs() - beganMs);
  }
}

export function failed(tried: Tried, fault: Fault, latencyMs = 0): NetworkCheck {
  const { message, action } = fault;
  return {
    ...tried,
    ...{
      role: "appliance",
      answer: message.slice(0, 4000),
      latencyMs,
      verdict: "fail",
      fault: toReport(fault),
      repair: action.slice(0, 4000),
    },
  };
}

export interface NetworkWish {
  readonly listenAddresses: readonly string[];
  /** First addresses of the ranges that the key names; without a key only a default route is looked for. */
  readonly farAddresses: readonly string[];
}

/** Addresses on this machine, and a way out of it. */
export async function checkNetwork({ listenAddresses, farAddresses }: NetworkWish, clock: Clock): Promise<readonly NetworkCheck[]> {
  const known = machineAddresses();
  const own = listenAddresses.map((address): NetworkCheck => {
    const found = known.find((each) => each.address === address);
    const tried = {
      id: `address ${address}/interface`,
      role: "appliance",
      hop: "interface",
      to: address,
      tried: "look at this machine's interfaces",
    };
    if (found !== undefined) return { ...tried, answer: `${found.device}, /${found.prefixLength}`, latencyMs: 0, verdict: "pass" };
    const repair = `choose one of ${known.map((each) => each.address).join(", ")}, or give this machine the address at its console: watari appliance setup`;
    return { ...tried, answer: "no interface of this machine has it", latencyMs: 0, verdict: "fail", repair };
  });
  const routes = await Promise.all(
    farAddresses.map(
      async (address) =>
        await attempt(
          clock,
          { id: `private line ${address}/route`, hop: "route", to: address, tried: `ip route get ${address}` },
          async () => {
            const route = await lookUpRoute(address);
            if (route === undefined) return "the program ip is not installed, so that nothing is known";
            return `${route.device}${route.gateway === undefined ? ", on the same link" : ` by ${route.gateway}`}`;
          },
        ),
    ),
  );
  return [...own, ...routes];
}

/** Whether a time server keeps this machine's clock; undefined where systemd cannot be asked. */
export async function isClockKept(): Promise<boolean | undefined> {
  const answer = await tryCommand("timedatectl", ["show", "-p", "NTPSynchronized", "--value"]).catch(() => undefined); // No systemd here.
  if (answer === undefined || answer.exitCode !== 0) return undefined;
  return answer.stdout.trim() === "yes";
}

/** Never a failure: a clock that is right is right, whoever keeps it. */
export async function checkClockKept(): Promise<NetworkCheck> {
  const tried = {
    id: "clock/time server",
    role: "appliance",
    hop: "time server",
    to: "this machine",
    tried: "timedatectl show",
    latencyMs: 0,
  };
  const isKept = await isClockKept();
  if (isKept === true) return { ...tried, answer: "kept by a time server", verdict: "pass" };
  const answer = isKept === undefined ? "systemd does not tell" : "no time server keeps this clock";
  return { ...tried, answer, verdict: "skipped", repair: "name the site's time server at the console: watari appliance setup" };
}
