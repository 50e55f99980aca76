// `watari appliance setup`: the first boot at the console, by questions or from a file.

import { mkdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { formatTable, printAnswer } from "../../cli/output.ts";
import type { AdminResponse } from "../../contract/appliance-admin.ts";
import { Fault } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { parseAnswersFile, type ConsoleAnswers } from "./console-answers.ts";
import { checkProxy } from "./console-checks.ts";
import { askAll } from "./console-questions.ts";
import { hasFailed, keepSettings, settleAll, startService, type ConsoleParts } from "./console-setup.ts";
import { changesFor, thisMachine, type MachineChange } from "./machine-changes.ts";
import { parseOvfEnvironment, toConsoleAnswers } from "./ovf-answers.ts";

interface SetupOptions {
  readonly state: string;
  readonly json: boolean;
  readonly file?: string;
  readonly dryRun?: boolean;
  readonly ovfEnvironment?: string;
  readonly device: string;
  readonly keepGoing?: boolean;
  readonly start: boolean;
}

/** What an image's first boot was told, in the form of --file: to be changed and given again. */
const answersFile = "etc/watari/answers.json";

export function addSetup(command: Command): void {
  command
    .option("--file <file>", "answers as YAML, for a set-up without a person")
    .option("--ovf-environment <file>", "answers as an OVF environment, as a machine of the appliance's image is told them")
    .option("--device <name>", "the network interface that the answers of an OVF environment are about", "eth0")
    .option("--dry-run", "say what the answers would change, and change nothing")
    .option("--keep-going", "what fails is told and left for the set-up page; the rest is done")
    .option("--no-start", "keep the settings, and leave the start of the appliance to the system")
    .action(async (options: SetupOptions) => {
      const parts: ConsoleParts = { stateFolder: resolve(options.state), system: thisMachine, clock: systemClock, log: silentLog };
      const answers = await readAnswers(options);
      if (answers === undefined) return await runAtTerminal(options, parts);
      if (options.dryRun === true) return showChanges(changesFor(answers), options);
      if (options.ovfEnvironment !== undefined) {
        const path = join(parts.system.root, answersFile);
        await mkdir(dirname(path), { recursive: true });
        await writeFileAtomic(path, `${JSON.stringify(answers, undefined, 2)}\n`, { mode: 0o644 });
      }
      const checks = await settleAll(answers, parts, options.keepGoing === true ? "go on" : "stop");
      if (hasFailed(checks) && options.keepGoing !== true) return refuse(checks, options);
      await finish({ answers, checks, proxyPassword: undefined }, options, parts);
    });
}

async function readAnswers({ file, ovfEnvironment, device }: SetupOptions): Promise<ConsoleAnswers | undefined> {
  if (file !== undefined) return parseAnswersFile(await readFile(file, "utf8"));
  return ovfEnvironment === undefined ? undefined : toConsoleAnswers(parseOvfEnvironment(await readFile(ovfEnvironment, "utf8")), device);
}

async function runAtTerminal(options: SetupOptions, parts: ConsoleParts): Promise<void> {
  if (!process.stdin.isTTY || !process.stderr.isTTY || options.dryRun === true) {
    throw new Fault("InputInvalid", "could not ask: this is no terminal", {
      action: "give the answers in a file: watari appliance setup --file answers.yaml",
    });
  }
  const asked = await askAll(parts, {}, async (proxy, dnsServers, password) => await checkProxy(proxy, { dnsServers, password }, parts));
  await finish(asked, options, parts);
}

interface Settled {
  readonly answers: ConsoleAnswers;
  readonly checks: readonly NetworkCheck[];
  readonly proxyPassword: string | undefined;
}

async function finish(
  { answers, checks, proxyPassword }: Settled,
  options: SetupOptions,
  { stateFolder, system, clock }: ConsoleParts,
): Promise<void> {
  await keepSettings(answers, stateFolder, proxyPassword);
  if (!options.start) return tell(checks, options);
  const page = await startService(stateFolder, system, clock);
  printAnswer({ asJson: options.json }, { checks, ...(page === undefined ? {} : { page }) }, () => pageText(page, stateFolder));
}

function pageText(page: AdminResponse<"setupPassword"> | undefined, stateFolder: string): string {
  if (page === undefined) {
    const own = `--state ${stateFolder}`;
    return `the settings are kept; start the appliance: watari appliance run ${own}\nthen, for the page's password: watari appliance setup-password ${own}`;
  }
  return [
    "Go on in a browser:",
    ...page.urls.map((url) => `  ${url}`),
    `password     ${page.password}   (shown this once)`,
    `fingerprint  SHA-256 ${page.fingerprint}`,
  ].join("\n");
}

function showChanges(changes: readonly MachineChange[], options: SetupOptions): void {
  printAnswer({ asJson: options.json }, { changes }, () =>
    changes
      .map((change) => (change.kind === "file" ? `${change.path}:\n${change.text}` : [change.program, ...change.args].join(" ")))
      .join("\n"),
  );
}

/** What failed stands in the answer, with its repair; nothing after it was done. */
function refuse(checks: readonly NetworkCheck[], options: SetupOptions): void {
  tell(checks, options);
  process.exitCode = 4;
}

function tell(checks: readonly NetworkCheck[], options: SetupOptions): void {
  const rows = checks.map(({ id, verdict, answer, repair }) => [id, verdict, answer, verdict === "fail" ? (repair ?? "") : ""]);
  printAnswer({ asJson: options.json }, { checks }, () => formatTable(["check", "verdict", "answer", "what to do"], rows));
}
