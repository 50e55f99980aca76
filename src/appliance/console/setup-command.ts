// `watari appliance setup`: the first boot at the console, by questions or from a file.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
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

interface SetupOptions {
  readonly state: string;
  readonly json: boolean;
  readonly file?: string;
  readonly dryRun?: boolean;
}

export function addSetup(command: Command): void {
  command
    .option("--file <file>", "answers as YAML, for a set-up without a person")
    .option("--dry-run", "say what --file would change, and change nothing")
    .action(async (options: SetupOptions) => {
      const parts: ConsoleParts = { stateFolder: resolve(options.state), system: thisMachine, clock: systemClock, log: silentLog };
      if (options.file === undefined) return await runAtTerminal(options, parts);
      const answers = parseAnswersFile(await readFile(options.file, "utf8"));
      if (options.dryRun === true) return showChanges(changesFor(answers), options);
      const checks = await settleAll(answers, parts);
      if (hasFailed(checks)) return refuse(checks, options);
      await finish({ answers, checks, proxyPassword: undefined }, options, parts);
    });
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
  const rows = checks.map(({ id, verdict, answer, repair }) => [id, verdict, answer, verdict === "fail" ? (repair ?? "") : ""]);
  printAnswer({ asJson: options.json }, { checks }, () => formatTable(["check", "verdict", "answer", "what to do"], rows));
  process.exitCode = 4;
}
