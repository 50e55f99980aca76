// The one executable: finds the noun, loads what it needs, runs it, and maps a Fault to its text and exit code.

import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, CommanderError } from "commander";
import type { AgentFiles } from "./appliance/push/agent-archive.ts";
import { readSetupFiles, type SetupFiles } from "./appliance/setup/setup-files.ts";
import { writeFileAtomic } from "./base/atomic-file.ts";
import { isPackaged, siblingProgram } from "./base/sibling-program.ts";
import { printFault } from "./cli/output.ts";
import { asFault } from "./contract/errors.ts";
import type { HubCommandParts } from "./hub/hub-command.ts";

interface Noun {
  readonly name: string;
  readonly summary: string;
  readonly isHidden?: boolean;
  /** Works on the source tree; a package has none. */
  readonly needsCheckout?: boolean;
  /** Adds the noun's command, with its verbs, to the program. */
  readonly load: () => Promise<(program: Command) => void>;
}

/** In the order in which a person meets them. Each is loaded only when it is called, so that every call starts fast. */
const nouns: readonly Noun[] = [
  {
    name: "demo",
    needsCheckout: true,
    summary: "one whole migration in a closed network on this machine, shown step by step",
    load: async () => (await import("../lab/demo-command.ts")).registerDemoCommand,
  },
  {
    name: "move",
    needsCheckout: true,
    summary: "move one Linux machine that SSH reaches to this machine: replicate, test, cut over",
    load: async () => (await import("./cli/move-command.ts")).registerMoveCommand,
  },
  {
    name: "setup",
    needsCheckout: true,
    summary: "install the Debian packages that Watari needs here, saying which and why",
    load: async () => (await import("./cli/setup/setup-command.ts")).registerSetupCommand,
  },
  {
    name: "lab",
    needsCheckout: true,
    summary: "the closed network of the demo: up, status, down",
    load: async () => (await import("../lab/lab-command.ts")).registerLabCommand,
  },
  { name: "login", summary: "sign in to a hub", load: async () => (await import("./cli/login.ts")).registerLoginCommand },
  { name: "logout", summary: "sign out of a hub", load: async () => (await import("./cli/login.ts")).registerLogoutCommand },
  {
    name: "principal",
    summary: "people and programs that may sign in, and their credentials",
    load: async () => (await import("./cli/principal.ts")).registerPrincipalCommand,
  },
  { name: "group", summary: "groups that hold roles", load: async () => (await import("./cli/group.ts")).registerGroupCommand },
  {
    name: "role",
    summary: "roles: assign, list, remove",
    load: async () => (await import("./cli/role.ts")).registerRoleCommand,
  },
  {
    name: "network",
    summary: "networks of the landing zone",
    load: async () => (await import("./cli/network.ts")).registerNetworkCommand,
  },
  {
    name: "net",
    summary: "the closed network: plan it from one file, prove it, write it for other programs",
    load: async () => (await import("./cli/net.ts")).registerNetCommand,
  },
  {
    name: "project",
    summary: "projects: create with private endpoint, list",
    load: async () => (await import("./cli/project.ts")).registerProjectCommand,
  },
  {
    name: "storage",
    summary: "storage accounts that hold the packs",
    load: async () => (await import("./cli/storage.ts")).registerStorageCommand,
  },
  {
    name: "vault",
    summary: "vaults: create, registration keys, change of the vault's key",
    load: async () => (await import("./cli/vault.ts")).registerVaultCommand,
  },
  {
    name: "appliance",
    summary: "the replication appliance on this machine: run, check, register, credentials, vCenters",
    load: async () => {
      const { registerApplianceCommand } = await import("./appliance/appliance-command.ts");
      return (program) => registerApplianceCommand(program, { agentFiles, setupFiles, serviceEnvironment: process.env });
    },
  },
  {
    name: "replication",
    summary: "before a machine is replicated: measure what it writes, and what that asks of a line",
    load: async () => (await import("./appliance/profile/profile-command.ts")).registerReplicationCommand,
  },
  {
    name: "policy",
    summary: "replication policies: how often a recovery point is made",
    load: async () => (await import("./cli/policy.ts")).registerPolicyCommand,
  },
  {
    name: "machine",
    summary: "machines: list, protect, recovery points, test, migrate, complete",
    load: async () => (await import("./cli/machine.ts")).registerMachineCommand,
  },
  {
    name: "vcenter",
    summary: "vCenters of a vault's appliances: list, add, remove",
    load: async () => (await import("./cli/vcenter.ts")).registerVcenterCommand,
  },
  {
    name: "site",
    summary: "appliances of a vault, by order of the hub: limit lines, measure a machine, check ways",
    load: async () => (await import("./cli/site.ts")).registerSiteCommand,
  },
  {
    name: "landed",
    summary: "landed machines: list, show, start, stop, remove",
    load: async () => (await import("./cli/landed.ts")).registerLandedCommand,
  },
  {
    name: "reverse",
    summary: "going back after a commit: write a reverse delta into the source's disks",
    load: async () => (await import("./hub/reverse-command.ts")).registerReverseCommand,
  },
  {
    name: "report",
    summary: "signed reports of migrations: check one without a hub",
    load: async () => (await import("./hub/report-command.ts")).registerReportCommand,
  },
  {
    name: "upgrade-disk",
    summary: "disks that upgrade the operating system of landed machines without a network",
    load: async () => (await import("./hub/upgrade-disk/upgrade-disk-command.ts")).registerUpgradeDiskCommand,
  },
  { name: "job", summary: "jobs of the hub: list, show, cancel", load: async () => (await import("./cli/job.ts")).registerJobCommand },
  {
    name: "alert",
    summary: "alerts by mail and webhook: show, set, test, deliveries",
    load: async () => (await import("./cli/alert.ts")).registerAlertCommand,
  },
  {
    name: "hub",
    summary: "the hub program: run, or --ephemeral to try programs against one",
    load: async () => {
      const { registerHubCommand } = await import("./hub/hub-command.ts");
      const startEphemeral: HubCommandParts["startEphemeral"] = async (wish) =>
        await (await import("./sim/ephemeral-hub.ts")).startEphemeralHub(wish);
      return (program) => registerHubCommand(program, { startEphemeral, serviceEnvironment: process.env });
    },
  },
  {
    name: "dev",
    needsCheckout: true,
    summary: "checks, tests and benchmarks of this checkout",
    isHidden: true,
    load: async () => (await import("./cli/dev.ts")).registerDevCommand,
  },
];

const firstSteps = isPackaged(import.meta)
  ? `
A hub to try programs against, nothing kept:  watari hub --ephemeral
A hub of your own:                            watari hub --help`
  : `
A first look, no machine of yours touched:    watari demo
The shortest real use:                        watari move root@HOST
A hub of your own:                            watari hub --help`;

const helpText = `${firstSteps}
Every command takes --help, and --json where it answers with data.
Exit codes: 0 done, 2 bad input, 3 refused, 4 network or peer, 5 data in doubt, 6 this machine.`;

function createProgram(): Command {
  const program = new Command("watari");
  program.description("Watari moves running machines through closed networks to where they should live next.");
  program.addHelpText("after", helpText);
  program.exitOverride();
  program.configureHelp({ showGlobalOptions: true });
  return program;
}

/** What the appliance pushes into guests: the agent that belongs to this program, and the Node that runs both. */
async function agentFiles(): Promise<AgentFiles> {
  if (isPackaged(import.meta)) {
    const { agentUnitText } = await import("./agent/unit.ts");
    return { nodePath: process.execPath, bundlePath: siblingProgram(import.meta, "agent"), unitText: agentUnitText() };
  }
  const { buildAgentBundle } = await import("./agent/bundle.ts");
  const { agentUnitText } = await import("./agent/unit.ts");
  const { bytes, sha256 } = await buildAgentBundle();
  const bundlePath = join(process.env["WATARI_CACHE"] ?? tmpdir(), "agent", `agent-${sha256.slice(0, 16)}.mjs`);
  await writeFileAtomic(bundlePath, bytes);
  return { nodePath: process.execPath, bundlePath, unitText: agentUnitText() };
}

/** The set-up page: a folder of the package, or made from this checkout when a browser first asks for it. */
async function setupFiles(): Promise<SetupFiles> {
  if (isPackaged(import.meta)) return await readSetupFiles(join(import.meta.dirname, "setup-ui"));
  const { buildSetupFiles } = await import("./setup-ui/setup-bundle.ts");
  return await buildSetupFiles();
}

async function main(args: readonly string[]): Promise<number> {
  const program = createProgram();
  const called = args.find((argument) => !argument.startsWith("-"));
  for (const noun of nouns) {
    if (noun.needsCheckout === true && isPackaged(import.meta)) continue;
    if (noun.name === called) (await noun.load())(program);
    else program.command(noun.name, { hidden: noun.isHidden === true }).description(noun.summary);
  }
  try {
    await program.parseAsync([...args], { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : 0; // A command that answers bad news sets it itself.
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const fault = asFault(error, `run "watari ${args.slice(0, 2).join(" ")}"`);
    printFault(fault, { asJson: args.includes("--json") });
    return fault.exitCode;
  }
}

/** A reader that has seen enough (`| head`) is no fault: the command ends with the code of SIGPIPE, as other programs do. */
function onStreamError(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPIPE") throw error;
  process.once("exit", () => (process.exitCode = 128 + 13));
}
process.stdout.on("error", onStreamError);
process.stderr.on("error", onStreamError);

process.exitCode = await main(process.argv.slice(2));
