// Opens what every hub command needs: the profile's ARM client and the answer style, from the command's options.

import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { ArmClient } from "./arm-client.ts";
import type { OutputStyle } from "./output.ts";
import { profilePath, readProfile } from "./profile.ts";

export interface Session extends AsyncDisposable {
  readonly arm: ArmClient;
  readonly style: OutputStyle;
}

/** Adds the options that every command against a hub has. */
export function withHubOptions(command: Command): Command {
  return command
    .option("--json", "answer with JSON on stdout")
    .option("--profile <file>", "profile of the hub to speak to (default: WATARI_PROFILE or the user's configuration)");
}

export async function openSession(options: { readonly json?: boolean; readonly profile?: string }): Promise<Session> {
  const profile = await readProfile(options.profile ?? profilePath(process.env));
  const arm = new ArmClient({ profile, clock: systemClock });
  return { arm, style: { asJson: options.json === true }, [Symbol.asyncDispose]: async () => await arm[Symbol.asyncDispose]() };
}
