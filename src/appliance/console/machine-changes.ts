// How this machine gets its name, address, resolvers and time: files of systemd and its own tools, decided first and done after.

import { lstat, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import { tryCommand, type CommandResult } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { attempt } from "../setup/setup-checks.ts";
import type { ConsoleAnswers, NetworkAnswers } from "./console-answers.ts";

export type MachineChange =
  /** isOthersWhenLinked: a link there is another program's way of keeping the file, and stays. */
  | { readonly kind: "file"; readonly path: string; readonly text: string; readonly why: string; readonly isOthersWhenLinked?: true }
  | { readonly kind: "run"; readonly program: string; readonly args: readonly string[]; readonly why: string };

/** The machine as far as it is changed; tests give another root and see the calls. */
export interface MachineSystem {
  readonly root: string;
  run(program: string, args: readonly string[]): Promise<CommandResult>;
}

export const thisMachine: MachineSystem = {
  root: "/",
  run: async (program, args) => await tryCommand(program, args, { timeoutMs: 60_000 }),
};

const mark = "# Written by `watari appliance setup`; it is replaced when that is run again.\n";
/** Before what a distribution or cloud-init leaves there: systemd takes the first file that matches. */
const networkFile = "/etc/systemd/network/05-watari.network";
const timeFile = "/etc/systemd/timesyncd.conf.d/watari.conf";

/** All of them, in the order in which they are done: the network last, so that a session over it sees the rest. Pure. */
export function changesFor({ name, network, timeServers }: ConsoleAnswers): readonly MachineChange[] {
  return [
    ...nameChanges(name),
    ...(timeServers === undefined ? [] : timeChanges(timeServers)),
    ...(network === undefined ? [] : networkChanges(network)),
  ];
}

export function nameChanges(name: string): readonly MachineChange[] {
  return [{ kind: "run", program: "hostnamectl", args: ["set-hostname", name], why: "the machine's name" }];
}

export function timeChanges(timeServers: readonly string[]): readonly MachineChange[] {
  return [
    { kind: "file", path: timeFile, text: `${mark}[Time]\nNTP=${timeServers.join(" ")}\nFallbackNTP=\n`, why: "who keeps the clock" },
    { kind: "run", program: "timedatectl", args: ["set-ntp", "true"], why: "the clock is kept from now on" },
    { kind: "run", program: "systemctl", args: ["restart", "systemd-timesyncd.service"], why: "the new time servers are asked" },
  ];
}

export function networkChanges(network: NetworkAnswers): readonly MachineChange[] {
  return [
    { kind: "file", path: networkFile, text: networkText(network), why: `address of ${network.device}` },
    ...(network.dnsServers.length === 0 ? [] : [resolverChange(network.dnsServers)]),
    { kind: "run", program: "systemctl", args: ["enable", "--now", "systemd-networkd.service"], why: "systemd keeps the network" },
    { kind: "run", program: "networkctl", args: ["reload"], why: "the file is read" },
    { kind: "run", program: "networkctl", args: ["reconfigure", network.device], why: "the address is set" },
  ];
}

/** Without systemd-resolved nothing else tells the system's own programs which resolvers there are. */
function resolverChange(dnsServers: readonly string[]): MachineChange {
  const text = `${mark}${dnsServers.map((server) => `nameserver ${server}\n`).join("")}`;
  return { kind: "file", path: "/etc/resolv.conf", text, why: "resolvers of this machine's programs", isOthersWhenLinked: true };
}

/** See systemd.network(5). */
function networkText({ device, address, gateway, dnsServers }: NetworkAnswers): string {
  const lines = [
    ...["[Match]", `Name=${device}`, "", "[Network]"],
    ...(address === undefined ? ["DHCP=yes"] : [`Address=${address}`]),
    ...(gateway === undefined ? [] : [`Gateway=${gateway}`]),
    ...dnsServers.map((server) => `DNS=${server}`),
    // Nothing of a closed network is found by asking everybody.
    ...["LLMNR=no", "MulticastDNS=no"],
    // Resolvers that are given stand alone: one that comes by DHCP beside them might answer a private name publicly.
    ...(address === undefined && dnsServers.length > 0 ? ["", "[DHCP]", "UseDNS=no"] : []),
  ];
  return `${mark}${lines.join("\n")}\n`;
}

/** Does each; stops at the first that fails, whose finding says what to do. Each may be done twice. */
export async function applyChanges(
  changes: readonly MachineChange[],
  system: MachineSystem,
  clock: Clock,
): Promise<readonly NetworkCheck[]> {
  const results: NetworkCheck[] = [];
  for (const change of changes) {
    const result = await apply(change, system, clock);
    results.push(result);
    if (result.verdict === "fail") break;
  }
  return results;
}

async function apply(change: MachineChange, system: MachineSystem, clock: Clock): Promise<NetworkCheck> {
  if (change.kind === "file") {
    const { path, text, isOthersWhenLinked } = change;
    return await attempt(clock, { id: `${path}/write`, hop: "write", to: path, tried: `write ${path}` }, async () => {
      const target = join(system.root, path);
      if (isOthersWhenLinked === true && (await isLink(target))) return "systemd-resolved keeps it, and has them from the network's file";
      await mkdir(dirname(target), { recursive: true });
      await writeFileAtomic(target, text, { mode: 0o644 });
      return change.why;
    });
  }
  const command = [change.program, ...change.args].join(" ");
  return await attempt(clock, { id: `${command}/run`, hop: "run", to: "this machine", tried: command }, async () => {
    const { exitCode, stderr } = await system.run(change.program, change.args).catch((error: unknown) => {
      throw refused(command, "it is not installed, or this user may not run it", error);
    });
    if (exitCode !== 0) throw refused(command, stderr.trim().slice(-500) || `it ended with ${exitCode}`);
    return change.why;
  });
}

async function isLink(path: string): Promise<boolean> {
  return await lstat(path).then(
    (found) => found.isSymbolicLink(),
    () => false, // Nothing is there.
  );
}

function refused(command: string, told: string, cause?: unknown): Fault {
  return new Fault("MissingProgram", `could not change this machine: ${command}: ${told}`, {
    causes: ["this is not root", "systemd does not run this machine"],
    action: `as root run: ${command}; or leave this part out and set it as this machine wants it`,
    ...(cause === undefined ? {} : { cause }),
  });
}
