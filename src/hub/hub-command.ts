// `watari hub`: the hub as a program, with its own state until it is told to stop, or ephemeral for whoever wants to try against one.

import { InvalidArgumentError, type Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { openLog, silentLog, type Log } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { openServiceNotices, type NoticeEnvironment } from "../base/service-notices.ts";
import { say } from "../cli/output.ts";
import type { AnswerWatch } from "./api/arm-call.ts";
import { registerAuditCommands } from "./audit/audit-command.ts";
import { registerAccountCommands } from "./auth/account-command.ts";
import { registerBackupCommands } from "./backup/backup-command.ts";
import { registerCollectCommand } from "./collector/collect-command.ts";
import { extensions } from "./extensions.ts";
import { registerHealthCommand } from "./health-command.ts";
import { defaultConfigFile, readHubConfig } from "./hub-config.ts";
import { startHub } from "./main.ts";

/** What a program needs to call an ephemeral hub: the line on stdout. */
export interface EphemeralFacts {
  readonly endpoint: string;
  readonly authority: string;
  readonly caFile: string;
  readonly tenantId: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly subscriptionId: string;
  readonly resourceGroup: string;
  readonly vault: string;
}

export interface EphemeralHub extends AsyncDisposable {
  readonly facts: EphemeralFacts;
}

export interface EphemeralWish {
  readonly machineCount: number;
  /** Appliances that all see these machines; 1 unless told. */
  readonly applianceCount?: number;
  /** What an order, a boot or a fill takes at the simulated site. */
  readonly paceSeconds: number;
  readonly log: Log;
  readonly answerWatch?: AnswerWatch | undefined;
  /** Further sections of the hub's configuration, for trials. */
  readonly sections?: Readonly<Record<string, unknown>>;
}

/** The simulated site knows the hub and the appliance, which do not know each other; who composes the program gives it. */
export interface HubCommandParts {
  readonly startEphemeral: (wish: EphemeralWish) => Promise<EphemeralHub>;
  /** Where a service manager says how it wants to be told. */
  readonly serviceEnvironment: NoticeEnvironment;
}

interface EphemeralOptions {
  readonly ephemeral?: boolean;
  readonly simulate: number;
  readonly appliances: number;
  readonly pace: number;
  readonly logFile?: string;
  readonly stopWithStdin?: boolean;
  readonly checkAnswers?: boolean;
}

const applianceCountMax = 8;
const machineCountMax = 10_000;
const paceSecondsMax = 3600;

const exampleText = `
A hub of your own, from its configuration to the first sign-in (docs/guide/install-hub.md):
  watari hub run --config hub.yaml          until SIGTERM; the Debian package does it as a service
  watari hub health --config hub.yaml       does it answer?
  watari login --operator-file <stateDir>/operator.json --address <one of publicAddresses>
  watari network create …, watari storage create …, watari vault create …
A hub.yaml that is enough, on this machine alone:
  domain: watari.internal
  stateDir: /var/lib/watari/hub
  publicAddresses: [127.0.0.1]

Try any program that speaks to Azure Resource Manager, nothing of yours touched:
  watari hub --ephemeral --simulate 5
One line of JSON on stdout says when it is ready and how to call it:
  {"endpoint":"https://localhost:…","authority":"https://localhost:…","caFile":"…","tenantId":"…","clientId":"…","clientSecret":"…",…}
For Microsoft's JavaScript SDKs: NODE_EXTRA_CA_CERTS=<caFile>, and
  const credential = new ClientSecretCredential(tenantId, clientId, clientSecret,
    { authorityHost: authority, disableInstanceDiscovery: true });
  const client = new RecoveryServicesClient(credential, subscriptionId, { endpoint });
Stop it with Ctrl-C: its database, files and listeners go with it.`;

export function registerHubCommand(program: Command, parts: HubCommandParts): void {
  const noun = program
    .command("hub")
    .description("the hub: run it, look after its state, or try programs against an ephemeral one")
    .option("--ephemeral", "a hub with temporary state on loopback, and a simulated site behind it; leaves nothing when it stops")
    .option("--simulate <count>", "machines of the simulated site", parseCount, 3)
    .option("--appliances <count>", "appliances of the simulated site; each sees all of its machines", parseApplianceCount, 1)
    .option("--pace <seconds>", "what an order, a boot or a fill takes at the simulated site", parsePace, 0.2)
    .option("--stop-with-stdin", "stop also when stdin ends, as it does when the program that holds it dies")
    .option("--log-file <file>", "append the log to this file; an ephemeral hub keeps none unless told")
    .option("--check-answers", "end at the first answer that is not as docs/api says, and say on stderr what is wrong with it")
    .addHelpText("after", exampleText)
    .configureHelp({ showGlobalOptions: false }) // The ephemeral hub's options mean nothing to the verbs.
    .action(async (options: EphemeralOptions) => {
      if (options.ephemeral !== true) noun.help({ error: true });
      await runEphemeral(parts, options);
    });
  registerHealthCommand(noun);
  registerAccountCommands(noun);
  registerBackupCommands(noun);
  registerCollectCommand(noun);
  registerAuditCommands(noun);
  noun
    .command("run")
    .description("run the hub until SIGTERM or SIGINT; everything it knows is in its state folder and its database")
    .option("--config <file>", "YAML file with the hub's configuration (docs/guide/install-hub.md)", defaultConfigFile)
    .option("--log-file <file>", "append the log to this file instead of stderr")
    .action(async (_options: unknown, command: Command) => {
      // The noun has an option of this name too, and takes it wherever it stands.
      const { config: file, logFile } = command.optsWithGlobals<{ readonly config: string; readonly logFile?: string }>();
      const config = await readHubConfig(file);
      const log = openLog({ program: "hub", ...(logFile === undefined ? {} : { file: logFile }) });
      const ending = waitForEnd();
      using notices = await openServiceNotices(parts.serviceEnvironment, systemClock);
      await using hub = await startHub(config, { clock: systemClock, random: systemRandom, log, extensions });
      say(`hub ready: ${hub.managementUrl}`);
      notices.ready();
      await ending;
      notices.stopping();
    });
}

async function runEphemeral(parts: HubCommandParts, options: EphemeralOptions): Promise<void> {
  // Before the start: a signal that comes in its midst still ends in an orderly stop.
  let isEnding = false;
  const ending = waitForEnd(options.stopWithStdin === true ? process.stdin : undefined).then(() => (isEnding = true));
  const log = options.logFile === undefined ? undefined : openLog({ program: "hub", file: options.logFile });
  const answerWatch = options.checkAnswers === true ? await watchAnswers() : undefined;
  const site = { machineCount: options.simulate, applianceCount: options.appliances, paceSeconds: options.pace };
  await using hub = await parts.startEphemeral({ ...site, log: log ?? silentLog, answerWatch });
  if (!isEnding) process.stdout.write(`${JSON.stringify(hub.facts)}\n`);
  await ending;
}

/** Read only where it is wanted: no other hub holds its answers against anything. */
async function watchAnswers(): Promise<AnswerWatch> {
  const { createAnswerCheck, endProgram } = await import("./openapi/check-answers.ts");
  return createAnswerCheck(endProgram);
}

async function waitForEnd(stdin?: NodeJS.ReadStream): Promise<void> {
  await new Promise<void>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.once(signal, () => resolve());
    stdin?.once("end", () => resolve());
    stdin?.once("error", () => resolve());
    stdin?.resume();
  });
  stdin?.destroy();
}

function parseCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 0 && count <= machineCountMax) return count;
  throw new InvalidArgumentError(`a whole number from 0 to ${machineCountMax}`);
}

function parseApplianceCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= applianceCountMax) return count;
  throw new InvalidArgumentError(`a whole number from 1 to ${applianceCountMax}`);
}

function parsePace(text: string): number {
  const seconds = Number(text);
  if (seconds >= 0 && seconds <= paceSecondsMax) return seconds;
  throw new InvalidArgumentError(`seconds from 0 to ${paceSecondsMax}`);
}
