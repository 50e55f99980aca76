// What the verbs of `watari machine` that act on a protected machine share: find it, call an action, show the job; and the options of a launch.

import type { Command } from "commander";
import type { ArmClient } from "./arm-client.ts";
import { listJobs, type Job } from "./job.ts";
import { withActionOption, type ActionWish } from "./launch-action.ts";
import { launchSettingsOf, withLaunchSettings, type LaunchSettingsOptions } from "./launch-settings.ts";
import { listProtected, pickByName, type ProtectedItem } from "./machine-shapes.ts";
import { openProgress, printAnswer } from "./output.ts";
import { openSession } from "./session.ts";

export interface VaultOptions {
  readonly vault: string;
  readonly json?: boolean;
  readonly profile?: string;
}

export type Verb = (usage: string, description: string) => Command;

export interface LaunchOptions extends VaultOptions, LaunchSettingsOptions {
  readonly point?: string;
  readonly pointType?: keyof typeof pointTypes;
  readonly network?: string;
  readonly probePort?: number;
  readonly probePath: string;
  readonly probeSeconds: number;
  readonly action: readonly ActionWish[];
  readonly upgrade?: string;
}

const pointTypes = {
  latest: "Latest",
  "latest-processed": "LatestProcessed",
  "latest-app-consistent": "LatestApplicationConsistent",
  "latest-crash-consistent": "LatestCrashConsistent",
} as const;

export function withLaunchOptions(command: Command): Command {
  const choices = Object.keys(pointTypes);
  return withLaunchSettings(withActionOption(command))
    .option("--point <id>", "recovery point (default: the latest)")
    .addOption(
      command
        .createOption("--point-type <type>", "newest recovery point of a type, in place of --point")
        .choices(choices)
        .conflicts("point"),
    )
    .option("--probe-port <port>", "ask http://MACHINE:PORT until it answers 200; without it a running processor counts", Number)
    .option("--probe-path <path>", "path to ask", "/")
    .option("--probe-seconds <seconds>", "give up after this long", Number, 300)
    .option("--upgrade <release>", "upgrade its operating system after the first boot, as debian13; see `watari upgrade-disk build`");
}

/** The part of a call that says from which point, how the machine is made ready, and what it is asked. Reads the files of keys. */
export async function wishOf(options: LaunchOptions): Promise<object> {
  const { point, pointType, probePort: port, probePath: path, probeSeconds: timeoutSeconds, action, upgrade } = options;
  return {
    ...(await launchSettingsOf(options)),
    ...(point === undefined ? {} : { recoveryPointId: point }),
    ...(pointType === undefined ? {} : { recoveryPointType: pointTypes[pointType] }),
    ...(port === undefined ? {} : { probe: { port, path, timeoutSeconds } }),
    ...(action.length === 0 ? {} : { actions: action }),
    ...(upgrade === undefined ? {} : { osUpgradeVersion: upgrade }),
  };
}

/** Calls an action of a protected item, shows its progress, and answers its newest job with what that found out. */
export async function act(
  name: string,
  options: VaultOptions,
  { action, properties, moreText }: { readonly action: string; readonly properties?: object; readonly moreText?: (job: Job) => string },
): Promise<void> {
  await using session = await openSession(options);
  const { arm } = session;
  const item = await findProtected(arm, options.vault, name);
  const progress = openProgress(`${action} ${name}`);
  try {
    await arm.change("POST", `${item.id}/${action}`, properties === undefined ? undefined : { properties }, (state) =>
      progress.update(state.percent ?? 0, state.status),
    );
  } finally {
    progress.finish();
  }
  const [job] = (await listJobs(arm, options.vault)).filter(({ properties: job }) => job.targetObjectName === item.properties.friendlyName);
  const more = job === undefined ? "" : (moreText?.(job) ?? "");
  printAnswer(session.style, job ?? {}, () => `${action} of ${name}: ${job?.properties.state ?? "done"}${more === "" ? "" : `\n${more}`}`);
}

export async function findProtected(arm: ArmClient, vault: string, name: string): Promise<ProtectedItem> {
  return pickByName(await listProtected(arm, vault), name, "protected machine");
}
