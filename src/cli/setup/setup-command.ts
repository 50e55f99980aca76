// `watari setup`: installs what a use of Watari needs on this machine, or says the command that does.

import { Option, type Command } from "commander";
import { printAnswer } from "../output.ts";
import { packagesFor, setupUses, type SetupUse } from "./package-lists.ts";
import { ensurePackages } from "./packages.ts";

interface SetupOptions {
  readonly for: SetupUse;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export function registerSetupCommand(program: Command): void {
  program
    .command("setup")
    .description("install the Debian packages that a use of Watari needs; the other commands call it by themselves")
    .addOption(new Option("--for <use>", "what the machine will be used for").choices(setupUses).default("move"))
    .option("--yes", "install without asking")
    .option("--json", "answer with JSON on stdout")
    .action(async (options: SetupOptions) => {
      const confirm = options.yes === true ? "announce" : "ask";
      const installed = await ensurePackages(packagesFor(options.for), { purpose: `watari ${options.for}`, confirm });
      printAnswer({ asJson: options.json === true }, { for: options.for, installed }, () =>
        installed.length === 0 ? "nothing is missing" : `installed ${installed.join(" ")}`,
      );
    });
}
