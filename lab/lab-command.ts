// The noun `lab` of the command line: up, status, down.

import type { Command } from "commander";
import { requireRoot } from "./require-root.ts";
import { labDown, type LabFacts, labStatus, type LabStatus, labUp } from "./lab.ts";

interface Flags {
  readonly prefix?: string;
  readonly json?: boolean;
  readonly clone?: boolean;
  readonly machine?: boolean;
}

const about = `Builds a closed network on this machine, with nothing in its own network touched:

  wtr-onprem     10.10.0.0/24    source machine 10.10.0.101, vCenter .20, appliance .10, DNS .53
  wtr-dmz        10.10.0.1       squid on 3128 (3129 asks for a password): the only way out
  wtr-internet   198.51.100.53   DNS as the public sees it; the hub's public names are 198.51.100.10
  wtr-landing    10.200.0.0/24   private endpoints and landed machines; a private line joins it to onprem

Every packet that tries another way is refused and counted; "lab status" shows the count.
Needs root. The first "up" builds the guest image (3 to 5 minutes) and keeps it in the cache.`;

/** Adds \`lab up|status|down\` to the program. */
export function registerLabCommand(program: Command): void {
  const lab = program.command("lab").description("a closed network with a real machine, on this one").addHelpText("after", `\n${about}`);
  lab
    .command("up")
    .description("build the network, start the source machine and its vCenter; removes first what an earlier run left")
    .option("--prefix <name>", "name of this lab, when several run at once", "wtr")
    .option("--clone", "also start ledger-02, a copy of ledger-01 with the same machine-id")
    .option("--no-machine", "network only: no source machine, no vCenter")
    .option("--json", "print the facts as JSON")
    .action(async (flags: Flags) => {
      requireRoot("lab up");
      const machines = flags.machine === false ? [] : [{ name: "ledger-01" }, ...(flags.clone === true ? [clone] : [])];
      const facts = await labUp({ prefix: flags.prefix, machines, progress: (text) => process.stderr.write(`${text}\n`) });
      print(flags, facts, () => describeFacts(facts));
    });
  lab
    .command("status")
    .description("say what runs, how to reach it, and how many packets tried a forbidden way")
    .option("--prefix <name>", "name of the lab", "wtr")
    .option("--json", "print it as JSON")
    .action(async (flags: Flags) => {
      const status = await labStatus({ prefix: flags.prefix });
      print(flags, status, () => describeStatus(status));
    });
  lab
    .command("down")
    .description("end everything of the lab and remove it; fine when there is none")
    .option("--prefix <name>", "name of the lab", "wtr")
    .option("--json", "print what is left as JSON (an empty list)")
    .action(async (flags: Flags) => {
      requireRoot("lab down");
      await labDown({ prefix: flags.prefix });
      print(flags, { leftovers: [] }, () => [`lab ${flags.prefix ?? "wtr"}: down, nothing left`]);
    });
}

const clone = { name: "ledger-02", cloneOf: "ledger-01" } as const;

function print(flags: Flags, value: unknown, describe: () => readonly string[]): void {
  const text = flags.json === true ? JSON.stringify(value, undefined, 2) : describe().join("\n");
  process.stdout.write(`${text}\n`);
}

function describeFacts(facts: LabFacts): readonly string[] {
  const { vcenter, proxy, guest } = facts;
  const site = facts.zones.onprem.namespace;
  return [
    `operator's desk   ip netns exec ${site} bash`,
    ...(facts.machines.length === 0
      ? []
      : [`vCenter           ${vcenter.url} as ${vcenter.user}, password in ${vcenter.passwordFile}, CA in ${facts.caFile}`]),
    `proxy             ${proxy.url}; with password: ${proxy.withPasswordUrl} as ${proxy.user}, password in ${proxy.passwordFile}`,
    ...facts.machines.flatMap((machine) => [
      `${machine.name.padEnd(18)}${machine.address}, ledger ${machine.ledgerUrl}, serial log ${machine.serialLog}`,
      `                  ip netns exec ${site} ssh -i ${guest.rootKeyFile} root@${machine.address}`,
      `                  or as ${guest.user} with sudo, password in ${guest.passwordFile}`,
    ]),
  ];
}

function describeStatus(status: LabStatus): readonly string[] {
  const { facts, forbidden } = status;
  if (facts === undefined) return [`lab: ${status.state}`, ...status.leftovers.map((left) => `left behind: ${left}`)];
  const rules = Object.entries(forbidden?.byRule ?? {}).filter(([, packets]) => packets > 0);
  const isOn = new Map(status.machines.map((machine) => [machine.name, machine.isOn]));
  return [
    `lab: ${status.state}`,
    ...describeFacts(facts),
    ...facts.machines.map((machine) => `${machine.name.padEnd(18)}${isOn.get(machine.name) === true ? "on" : "off"}`),
    `proxy             ${status.isProxyUp ? "up" : "down"}`,
    `forbidden packets ${forbidden?.total ?? 0}`,
    ...rules.map(([rule, packets]) => `                  ${rule}: ${packets}`),
    ...(forbidden?.flows ?? []).map(
      (flow) => `                  ${flow.zone}: ${flow.from} to ${flow.to} ${flow.protocol} ${flow.port}: ${flow.packets}`,
    ),
  ];
}
