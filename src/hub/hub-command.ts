// `watari hub run`: the hub as a program, until it is told to stop.

import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { openLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { say } from "../cli/output.ts";
import { extensions } from "./extensions.ts";
import { readHubConfig } from "./hub-config.ts";
import { startHub } from "./main.ts";

export function registerHubCommand(program: Command): void {
  const noun = program.command("hub").description("the hub program");
  noun
    .command("run")
    .description("run the hub until SIGTERM or SIGINT; everything it knows is in its state folder and its database")
    .requiredOption("--config <file>", "YAML file with the hub's configuration (docs/design/hub.md)")
    .option("--log-file <file>", "append the log to this file instead of stderr")
    .action(async (options: { readonly config: string; readonly logFile?: string }) => {
      const config = await readHubConfig(options.config);
      const log = openLog({ program: "hub", ...(options.logFile === undefined ? {} : { file: options.logFile }) });
      await using hub = await startHub(config, { clock: systemClock, random: systemRandom, log, extensions });
      say(`hub ready: ${hub.managementUrl}`);
      await new Promise<void>((resolve) => {
        for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
      });
    });
}
