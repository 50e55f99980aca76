// `watari appliance answers`: what the first boot of the appliance's image does with what it was told.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { printAnswer } from "../../cli/output.ts";
import { Fault } from "../../contract/errors.ts";
import { configOf, machineFiles, noAnswers, parseOvfEnvironment, toConsoleAnswers } from "./answers.ts";
import { createStateFolder, saveConfig } from "./config.ts";

const answersFile = "/etc/watari/answers.json";

interface Options {
  readonly ovfEnvironment?: string;
  readonly device: string;
  readonly root: string;
  readonly state: string;
  readonly json: boolean;
}

export function addAnswers(command: Command): void {
  command
    .option("--ovf-environment <file>", "what the machine was told when it was deployed; nothing without it")
    .option("--device <name>", "the machine's network interface", "eth0")
    .option("--root <dir>", "where the machine's files are", "/")
    .action(async (options: Options) => {
      const answers = options.ovfEnvironment === undefined ? noAnswers : parseOvfEnvironment(await read(options.ovfEnvironment));
      const repeatable = toConsoleAnswers(answers, options.device);
      const files = { [answersFile]: `${JSON.stringify(repeatable, undefined, 2)}\n`, ...machineFiles(answers) };
      for (const [path, text] of Object.entries(files)) await writeFileAtomic(join(options.root, path), text, { mode: 0o644 });
      const config = configOf(answers);
      const stateFolder = resolve(options.state);
      if (config !== undefined) {
        await createStateFolder(stateFolder);
        await saveConfig(stateFolder, config);
      }
      const isReady = config !== undefined;
      printAnswer({ asJson: options.json }, { answers: repeatable, files: Object.keys(files), isReady }, () =>
        isReady ? `settings written to ${stateFolder}/config.json` : "no address was given: set-up asks for it",
      );
    });
}

async function read(path: string): Promise<string> {
  return await readFile(path, "utf8").catch((cause: unknown) => {
    throw new Fault("InputInvalid", `could not read ${path}`, { cause, evidence: { path } });
  });
}
