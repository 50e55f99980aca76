// `watari appliance …`: the appliance as a program, and everything that an operator tells it on its own machine.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { openLog } from "../base/log.ts";
import { openServiceNotices, type NoticeEnvironment } from "../base/service-notices.ts";
import { flowHead, flowRow, formatTable, printAnswer, say } from "../cli/output.ts";
import type { AdminResponse } from "../contract/appliance-admin.ts";
import { Fault } from "../contract/errors.ts";
import { callAppliance } from "./admin/admin-client.ts";
import { createStateFolder, defaultStateFolder, loadConfig, parseApplianceConfig, saveConfig } from "./config/config.ts";
import { setupUrl } from "./setup/setup-identity.ts";
import { addSetup } from "./console/setup-command.ts";
import { addLimitsCommands } from "./limits/limits-command.ts";
import { startApplianceHost } from "./appliance-host.ts";
import type { SetupFiles } from "./setup/setup-files.ts";
import { addVaultCommands } from "./vault-command.ts";
import type { AgentFiles } from "./push/agent-archive.ts";

export interface ApplianceCommandParts {
  readonly agentFiles: () => Promise<AgentFiles>;
  readonly setupFiles: () => Promise<SetupFiles>;
  /** Where a service manager says how it wants to be told. */
  readonly serviceEnvironment: NoticeEnvironment;
}

interface Common {
  readonly state: string;
  readonly json: boolean;
}

const secretBytesMax = 64 << 10;

export function registerApplianceCommand(program: Command, parts: ApplianceCommandParts): void {
  const noun = program.command("appliance").description("the replication appliance on this machine");
  const verb = (parent: Command, name: string, description: string): Command =>
    parent
      .command(name)
      .description(description)
      .option("--state <dir>", "the appliance's state folder", defaultStateFolder)
      .option("--json", "print JSON", false);
  addInit(verb(noun, "init", "write the appliance's settings into its state folder"));
  addSetup(verb(noun, "setup", "first boot at the console: name, network, time and proxy of this machine, each tried at once"));
  addRun(verb(noun, "run", "run the appliance until SIGTERM or SIGINT"), parts);
  addHub(verb, noun);
  addCredentials(verb, noun.command("credential").description("accounts of vCenters and guests, kept encrypted on this machine only"));
  addVcenters(verb, noun.command("vcenter").description("vCenters whose machines can be replicated"));
  addMachines(verb, noun);
  addLimitsCommands(verb, noun.command("limits").description("how fast bytes may pass this appliance's lines, changed while it runs"));
  addVaultCommands(verb, noun.command("vault").description("this appliance's part of the vault"));
}

type Verb = (parent: Command, name: string, description: string) => Command;

function addInit(command: Command): void {
  command
    .requiredOption("--listen <address...>", "addresses of this machine that agents dial; the first is given to them")
    .option("--advertise <address>", "address given to agents instead, where a translation of addresses lies between them and this machine")
    .option("--name <name>", "name under which the hub shows this appliance", "appliance")
    .option("--proxy <url>", "forward proxy for public names, http://host:port")
    .option("--proxy-credentials-file <file>", "file with one line user:password")
    .option("--dns <server...>", "resolvers, address or address:port")
    .option("--host <entry...>", "fixed answers, name=address[,address]")
    .option("--site-range <cidr...>", "ranges on this side: vCenters and guests")
    .option("--site-name <name...>", "names on this side")
    .option("--vcenter-authorities <file>", "PEM of the authorities that sign the vCenters' certificates")
    .option("--spool <dir>", "where packs wait for their upload")
    .option("--spool-bytes-max <bytes>", "most bytes that may wait there", Number)
    .option("--control-port <port>", "port of the agents' control connection", Number)
    .option("--data-port <port>", "port of the agents' data connection", Number)
    .option("--hub-port <port>", "port of the hub's private endpoints", Number)
    .option("--ssh-port <port>", "port of the guests' SSH servers", Number)
    .option("--setup-port <port>", "serve the set-up page to browsers on this port of each listen address, usually 44315", Number)
    .option("--log-level <level>", "error, warn, info or debug")
    .option("--metrics-listen <address>", "serve Prometheus metrics there to whoever can reach it, for example 127.0.0.1:9464")
    .action(async (options: InitOptions) => {
      const stateFolder = resolve(options.state);
      const config = parseApplianceConfig(
        withoutUndefined({
          name: options.name,
          listenAddresses: options.listen,
          advertiseAddress: options.advertise,
          controlPort: options.controlPort,
          dataPort: options.dataPort,
          hubPort: options.hubPort,
          sshPort: options.sshPort,
          proxyUrl: options.proxy,
          proxyCredentialsFile: options.proxyCredentialsFile === undefined ? undefined : resolve(options.proxyCredentialsFile),
          dnsServers: options.dns,
          hosts: options.host?.map(parseHostEntry),
          siteRanges: options.siteRange,
          siteNames: options.siteName,
          vcenterAuthoritiesFile: options.vcenterAuthorities === undefined ? undefined : resolve(options.vcenterAuthorities),
          spoolFolder: options.spool === undefined ? undefined : resolve(options.spool),
          spoolBytesMax: options.spoolBytesMax,
          setupPort: options.setupPort,
          logLevel: options.logLevel,
          metricsListen: options.metricsListen,
        }),
      );
      await createStateFolder(stateFolder);
      await saveConfig(stateFolder, config);
      printAnswer(
        { asJson: options.json },
        { stateFolder, config },
        () => `settings written to ${stateFolder}/config.json; start it: watari appliance run --state ${stateFolder}`,
      );
    });
}

interface InitOptions extends Common {
  readonly listen: readonly string[];
  readonly advertise?: string;
  readonly name: string;
  readonly proxy?: string;
  readonly proxyCredentialsFile?: string;
  readonly dns?: readonly string[];
  readonly host?: readonly string[];
  readonly siteRange?: readonly string[];
  readonly siteName?: readonly string[];
  readonly vcenterAuthorities?: string;
  readonly spool?: string;
  readonly spoolBytesMax?: number;
  readonly controlPort?: number;
  readonly dataPort?: number;
  readonly hubPort?: number;
  readonly sshPort?: number;
  readonly setupPort?: number;
  readonly logLevel?: string;
  readonly metricsListen?: string;
}

function addRun(command: Command, { agentFiles, setupFiles, serviceEnvironment }: ApplianceCommandParts): void {
  command
    .option("--log-file <file>", "append the log to this file instead of stderr")
    .action(async (options: Common & { readonly logFile?: string }) => {
      const stateFolder = resolve(options.state);
      const { logLevel } = await loadConfig(stateFolder);
      const log = openLog({ program: "appliance", level: logLevel, ...(options.logFile === undefined ? {} : { file: options.logFile }) });
      const told = new Promise<void>((end) => {
        for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => end());
      });
      using notices = await openServiceNotices(serviceEnvironment, systemClock);
      await using appliance = await startApplianceHost({ stateFolder, agentFiles, setupFiles, log });
      const { controlPort, dataPort } = appliance.current.ports;
      say(`appliance ready: control port ${controlPort}, data port ${dataPort}`);
      for (const { address, port } of appliance.setupListening) say(`set-up page: ${setupUrl(address, port)}`);
      notices.ready();
      await told;
      notices.stopping();
    });
}

function addHub(verb: Verb, noun: Command): void {
  verb(noun, "check", "walk every hop to the hub and say what fails; changes nothing")
    .option("--key <file>", "registration key, before the appliance is registered")
    .action(async (options: Common & { readonly key?: string }) => {
      const registrationKey = options.key === undefined ? undefined : await readFile(options.key, "utf8");
      const { checks } = await callAppliance(options.state, "check", registrationKey === undefined ? {} : { registrationKey });
      printAnswer({ asJson: options.json }, { checks }, () => checksText(checks));
      const failed = checks.filter((check) => check.verdict === "fail").map((check) => `${check.name}: ${check.answer}`);
      if (failed.length > 0 && !options.json) throw new Fault("HopCheckFailed", `${failed.length} checks failed`, { evidence: { failed } });
      if (failed.length > 0) process.exitCode = 4;
    });
  verb(noun, "register", "check every hop, then register with the vault's registration key")
    .requiredOption("--key <file>", "registration key file; it works once")
    .action(async (options: Common & { readonly key: string }) => {
      const answer = await callAppliance(options.state, "register", { registrationKey: await readFile(options.key, "utf8") });
      printAnswer({ asJson: options.json }, answer, () => `registered as ${answer.applianceId} in ${answer.vaultResourceId}`);
    });
  verb(noun, "setup-password", "make a new password for the set-up page and show it once, with the page's address and fingerprint").action(
    async (options: Common) => {
      const answer = await callAppliance(options.state, "setupPassword", {});
      printAnswer({ asJson: options.json }, answer, () =>
        [...answer.urls, `password     ${answer.password}`, `fingerprint  SHA-256 ${answer.fingerprint}`].join("\n"),
      );
    },
  );
  verb(noun, "announce", "tell agents at which address this appliance will be, before it moves there")
    .option("--address <address...>", "addresses or names; the appliance keeps its ports")
    .option("--none", "take back what was announced")
    .action(async (options: Common & { readonly address?: readonly string[]; readonly none?: boolean }) => {
      if ((options.address === undefined) === (options.none !== true))
        throw new Fault("InputInvalid", "could not announce: give either --address or --none");
      const answer = await callAppliance(options.state, "announce", { addresses: [...(options.address ?? [])] });
      printAnswer({ asJson: options.json }, answer, () => announcedText(answer));
    });
  verb(noun, "passphrase", "show the passphrase that enrols agents by hand").action(async (options: Common) => {
    const answer = await callAppliance(options.state, "passphrase", {});
    printAnswer({ asJson: options.json }, answer, () => answer.passphrase);
  });
  verb(noun, "metrics", "figures in Prometheus' form; served by themselves with `init --metrics-listen`").action(
    async (options: Common) => {
      const answer = await callAppliance(options.state, "metrics", {});
      printAnswer({ asJson: options.json }, answer, () => answer.text.trimEnd());
    },
  );
  verb(noun, "status", "registration, ports, spool, what is wrong, and how far behind each machine is").action(async (options: Common) => {
    const status = await callAppliance(options.state, "status", {});
    printAnswer({ asJson: options.json }, status, () => statusText(status));
  });
}

function addCredentials(verb: Verb, noun: Command): void {
  verb(noun, "add", "add an account, or replace the one of the same name; the secret comes from a file or stdin")
    .requiredOption("--name <name>", "name of the account on this appliance")
    .requiredOption("--kind <kind>", "vcenter, linux-password or linux-key")
    .requiredOption("--user <user>", "user name")
    .option("--privilege <how>", "root: logs in as root; sudo: becomes root with sudo", "root")
    .option("--secret-file <file>", "file with the password or the private key; stdin unless given")
    .option("--passphrase-file <file>", "file with the passphrase of an encrypted private key")
    .action(
      async (
        options: Common & {
          readonly name: string;
          readonly kind: string;
          readonly user: string;
          readonly privilege: string;
          readonly secretFile?: string;
          readonly passphraseFile?: string;
        },
      ) => {
        const secret = options.secretFile === undefined ? await readStdin() : await readFile(options.secretFile, "utf8");
        const kind = oneOf("--kind", options.kind, ["vcenter", "linux-password", "linux-key"]);
        const credential = await callAppliance(options.state, "addCredential", {
          name: options.name,
          kind,
          userName: options.user,
          privilege: oneOf("--privilege", options.privilege, ["root", "sudo"]),
          secret: kind === "linux-key" ? secret : secret.replace(/\r?\n$/, ""),
          ...(options.passphraseFile === undefined
            ? {}
            : { keyPassphrase: (await readFile(options.passphraseFile, "utf8")).replace(/\r?\n$/, "") }),
        });
        printAnswer({ asJson: options.json }, credential, () => `credential ${credential.name} kept, id ${credential.credentialId}`);
      },
    );
  verb(noun, "list", "accounts, without their secrets").action(async (options: Common) => {
    const { credentials } = await callAppliance(options.state, "listCredentials", {});
    printAnswer({ asJson: options.json }, { credentials }, () =>
      formatTable(
        ["name", "kind", "user", "privilege", "id"],
        credentials.map((each) => [each.name, each.kind, each.userName, each.privilege, each.credentialId]),
      ),
    );
  });
}

function addVcenters(verb: Verb, noun: Command): void {
  verb(noun, "add", "add a vCenter after its credential has been tried")
    .requiredOption("--name <name>", "name of the vCenter on this appliance")
    .requiredOption("--address <host>", "name or address")
    .option("--port <port>", "port", Number, 443)
    .requiredOption("--credential <name>", "account of kind vcenter")
    .option("--ca <file>", "PEM of the authority that signed the vCenter's certificate")
    .option("--thumbprint <sha256>", "SHA-256 of the vCenter's certificate")
    .action(
      async (
        options: Common & {
          readonly name: string;
          readonly address: string;
          readonly port: number;
          readonly credential: string;
          readonly ca?: string;
          readonly thumbprint?: string;
        },
      ) => {
        const vcenter = await callAppliance(options.state, "addVcenter", {
          name: options.name,
          host: options.address,
          port: options.port,
          credential: options.credential,
          ...(options.ca === undefined ? {} : { caPem: await readFile(options.ca, "utf8") }),
          ...(options.thumbprint === undefined ? {} : { thumbprint: options.thumbprint }),
        });
        printAnswer({ asJson: options.json }, vcenter, () => `vCenter ${vcenter.name} answered and was kept`);
      },
    );
  verb(noun, "list", "vCenters and how they answered last").action(async (options: Common) => {
    const { vcenters } = await callAppliance(options.state, "listVcenters", {});
    printAnswer({ asJson: options.json }, { vcenters }, () =>
      formatTable(
        ["name", "address", "status", "discovered"],
        vcenters.map((each) => [
          each.name,
          `${each.host}:${each.port}`,
          each.fault?.message ?? each.status,
          each.lastDiscoveredAt ?? "never",
        ]),
      ),
    );
  });
}

function addMachines(verb: Verb, noun: Command): void {
  verb(noun, "discover", "ask every vCenter for its machines now").action(async (options: Common) => {
    const { machines } = await callAppliance(options.state, "discover", {});
    printAnswer({ asJson: options.json }, { machines }, () =>
      formatTable(
        ["name", "power", "guest", "addresses", "id"],
        machines.map((each) => [each.name, each.powerState, each.guestOs, each.addresses.join(" "), each.infrastructureId]),
      ),
    );
  });
  const machine = noun.command("machine").description("machines as this appliance knows them");
  verb(machine, "list", "machines whose agent is registered here").action(async (options: Common) => {
    const { machines } = await callAppliance(options.state, "listMachines", {});
    printAnswer({ asJson: options.json }, { machines }, () =>
      formatTable(
        ["machine", "protected", ...flowHead, "points", "last seen", "id"],
        machines.map((each) => [
          each.hostname,
          each.isProtected ? "yes" : "no",
          ...flowRow(each.flow),
          String(each.pointCount),
          each.lastSeenAt,
          each.machineId,
        ]),
      ),
    );
  });
  verb(machine, "add", "add a machine that no vCenter shows, by its SSH server")
    .requiredOption("--address <host>", "address at which SSH answers")
    .requiredOption("--credential <name>", "account of kind linux-password or linux-key")
    .action(async (options: Common & { readonly address: string; readonly credential: string }) => {
      const added = await callAppliance(options.state, "addMachine", { address: options.address, credential: options.credential });
      printAnswer({ asJson: options.json }, added, () => `${added.name} added, id ${added.infrastructureId}`);
    });
  verb(machine, "forget-host-key", "trust a new SSH host key of an address")
    .argument("<address>", "address, or address:port")
    .action(async (address: string, options: Common) => {
      const answer = await callAppliance(options.state, "forgetHostKey", { address });
      printAnswer({ asJson: options.json }, answer, () =>
        answer.wasKnown ? `the key of ${address} is forgotten` : `no key of ${address} was known`,
      );
    });
}

function statusText(status: AdminResponse<"status">): string {
  const lines = [
    `appliance    ${status.name} ${status.version}, process ${status.pid}`,
    `registered   ${status.registration?.vaultResourceId ?? "no"}`,
    `hub          ${status.isHubReached ? "reached" : "not reached"}`,
    `ports        ${status.controlPort} control, ${status.dataPort} data`,
    `machines     ${status.machineCount}`,
    `spool        ${status.spoolBytes} of ${status.spoolBytesMax} bytes`,
  ];
  for (const fault of status.healthErrors) lines.push(`fault        ${fault.id}: ${fault.message}`);
  const flows = formatTable(
    ["machine", ...flowHead],
    status.machines.map((each) => [each.hostname, ...flowRow(each.flow)]),
  );
  return [...lines, ...(status.machines.length === 0 ? [] : ["", flows])].join("\n");
}

function announcedText({ known, unknown }: AdminResponse<"announce">): string {
  const rows = [...known.map((each) => [each, "yes"] as const), ...unknown.map((each) => [each, "no"] as const)];
  const table = formatTable(
    ["machine", "knows", "last seen"],
    rows.map(([{ hostname, lastSeenAt }, knows]) => [hostname, knows, lastSeenAt]),
  );
  const rest =
    unknown.length === 0 ? "" : "\n\nwho does not know yet hears of it when it speaks before the move; afterwards: agent way, in the guest";
  return `${table}${rest}`;
}

function checksText(checks: AdminResponse<"check">["checks"]): string {
  return formatTable(
    ["check", "verdict", "to", "tried", "answer", "ms", "repair"],
    checks.map((check) => [
      check.name,
      check.verdict,
      check.to,
      check.tried,
      check.answer,
      String(Math.round(check.latencyMs)),
      check.repair,
    ]),
  );
}

function parseHostEntry(entry: string): { readonly name: string; readonly addresses: readonly string[] } {
  const [name = "", addresses = ""] = entry.split("=", 2);
  if (name !== "" && addresses !== "") return { name, addresses: addresses.split(",") };
  throw new Fault("InputInvalid", `could not read --host ${entry}`, { action: "write it as name=address or name=address,address" });
}

function oneOf<T extends string>(option: string, given: string, known: readonly T[]): T {
  const found = known.find((each) => each === given);
  if (found !== undefined) return found;
  throw new Fault("InputInvalid", `could not read ${option} ${given}`, {
    evidence: { known },
    action: `give ${option} one of: ${known.join(", ")}`,
  });
}

function withoutUndefined(value: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined));
}

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin) {
    const part = Buffer.from(chunk as Uint8Array); // stdin without an encoding gives bytes.
    bytes += part.length;
    if (bytes > secretBytesMax) throw new Fault("InputInvalid", "the secret on stdin is too large", { evidence: { secretBytesMax } });
    chunks.push(part);
  }
  return Buffer.concat(chunks).toString("utf8");
}
