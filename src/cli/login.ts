// `watari login`: checks an operator's credential against the hub and keeps it as the profile.

import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { ArmClient } from "./arm-client.ts";
import { printAnswer } from "./output.ts";
import { operatorFileShape, parseJson, profilePath, writeProfile, type Profile } from "./profile.ts";

interface LoginOptions {
  readonly operatorFile: string;
  readonly proxy?: string;
  readonly address?: string;
  readonly resourceGroup: string;
  readonly location: string;
  readonly profile?: string;
  readonly json?: boolean;
}

export function registerLoginCommand(program: Command): void {
  program
    .command("login")
    .description("sign in to a hub: try the credential, then keep it in a profile that only you can read")
    .requiredOption("--operator-file <file>", "operator.json that the hub wrote into its state folder")
    .option("--proxy <url>", "forward proxy by which the hub's public names are reached, for example http://10.10.0.1:3128")
    .option("--address <ip>", "where the hub's public names are, when no resolver here knows them")
    .option("--resource-group <name>", "resource group for what you create", "watari")
    .option("--location <name>", "region name for what you create", "lab1")
    .option("--profile <file>", "where to keep the profile")
    .option("--json", "answer with JSON on stdout")
    .action(async (options: LoginOptions) => await login(options));
}

async function login(options: LoginOptions): Promise<void> {
  const operator = parseJson(await readFile(options.operatorFile, "utf8"), operatorFileShape, options.operatorFile);
  const profile: Profile = {
    ...operator,
    resourceGroup: options.resourceGroup,
    location: options.location,
    ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
    ...(options.address === undefined ? {} : { address: options.address }),
  };
  await using arm = new ArmClient({ profile, clock: systemClock });
  await arm.change("PUT", arm.groupPath, { location: profile.location });
  const path = options.profile ?? profilePath(process.env);
  await writeProfile(path, profile);
  const answer = { managementUrl: profile.managementUrl, clientId: profile.clientId, resourceGroup: profile.resourceGroup, profile: path };
  printAnswer(
    { asJson: options.json === true },
    answer,
    () => `signed in to ${profile.managementUrl} as ${profile.clientId}; profile in ${path}`,
  );
}
