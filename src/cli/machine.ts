// `watari machine`: the life of a machine from discovery to completion, one verb for each step.

import type { Command } from "commander";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { act, findProtected, withLaunchOptions, wishOf, type LaunchOptions, type VaultOptions } from "./machine-act.ts";
import { registerMachineExport } from "./machine-export.ts";
import { registerMachineFiles } from "./machine-files.ts";
import { registerMachineMigrate } from "./machine-migrate.ts";
import { registerMachineRehearse } from "./machine-rehearse.ts";
import { registerMachineReverse } from "./machine-reverse.ts";
import { registerMachineSet } from "./machine-set.ts";
import { registerMachineReport } from "./machine-report.ts";
import {
  listProtectable,
  listProtected,
  pickByName,
  recoveryPointShape,
  type ProtectableItem,
  type ProtectedItem,
  type RecoveryPointResource,
} from "./machine-shapes.ts";
import { flowHead, flowRow, formatTable, openProgress, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";
import { vaultPath } from "./vault.ts";

const pointWaitSecondsMax = 3600;

function verb(noun: Command, usage: string, description: string): Command {
  const [name, ...args] = usage.split(" ");
  const command = noun.command(name ?? usage).description(description);
  for (const argument of args) command.argument(argument);
  return withHubOptions(command).requiredOption("--vault <name>", "vault that protects the machine");
}

export function registerMachineCommand(program: Command): void {
  const noun = program.command("machine").description("machines: discovered, replicating, tested, migrated");
  registerReads(noun);
  registerProtect(noun);
  registerTest(noun);
  registerMachineMigrate((usage, description) => verb(noun, usage, description));
  registerMachineFiles((usage, description) => verb(noun, usage, description));
  registerMachineRehearse((usage, description) => verb(noun, usage, description));
  registerMachineSet((usage, description) => verb(noun, usage, description));
  registerMachineExport((usage, description) => verb(noun, usage, description));
  registerMachineReverse((usage, description) => verb(noun, usage, description));
  registerMachineReport((usage, description) => verb(noun, usage, description));
}

function registerReads(noun: Command): void {
  verb(noun, "list", "discovered and replicating machines").action(async (options: VaultOptions) => {
    await using session = await openSession(options);
    const [discovered, replicating] = await Promise.all([
      listProtectable(session.arm, options.vault),
      listProtected(session.arm, options.vault),
    ]);
    const stateOf = (name: string): ProtectedItem | undefined => replicating.find((item) => item.properties.friendlyName === name);
    printAnswer(session.style, { discovered, replicating }, () =>
      formatTable(
        ["NAME", "ADDRESS", "STATE", "HEALTH", ...flowHead.map((title) => title.toUpperCase())],
        discovered.map(({ properties }) => {
          const item = stateOf(properties.friendlyName);
          return [
            properties.friendlyName,
            properties.customDetails?.ipAddress ?? "",
            item?.properties.protectionState ?? "not protected",
            item?.properties.replicationHealth ?? "",
            ...flowRow(item?.properties.providerSpecificDetails?.watari?.flow),
          ];
        }),
      ),
    );
  });
  verb(noun, "show <name>", "one replicating machine: state, health, disks, lag").action(async (name: string, options: VaultOptions) => {
    await using session = await openSession(options);
    const item = await findProtected(session.arm, options.vault, name);
    printAnswer(session.style, item, () => `${flowText(item)}\n\n${JSON.stringify(item.properties, undefined, 2)}`);
  });
  verb(noun, "points <name>", "recovery points of a machine, newest first")
    .option("--wait <count>", "wait until there are this many", Number)
    .action(async (name: string, options: VaultOptions & { readonly wait?: number }) => {
      await using session = await openSession(options);
      const item = await findProtected(session.arm, options.vault, name);
      const points = await waitForPoints(session.arm, item, options.wait ?? 0);
      printAnswer(session.style, points, () =>
        formatTable(
          ["POINT", "TIME", "CONSISTENCY", "VERIFIED"],
          points.map(({ name, properties }) => [
            name,
            properties.recoveryPointTime,
            properties.recoveryPointType ?? "",
            properties.providerSpecificDetails?.watari?.verified?.at ?? "",
          ]),
        ),
      );
    });
}

/** How the machine's data flow, with reasons. */
function flowText({ properties }: ProtectedItem): string {
  const flow = properties.providerSpecificDetails?.watari?.flow;
  if (flow === undefined) return `${properties.friendlyName}: its appliance does not tell how its data flow`;
  const cells = flowRow(flow);
  const lines = flowHead.map((title, index) => [title.padEnd(11), cells[index] ?? ""].join(" "));
  return [
    ...lines,
    `mode since  ${flow.mode.reason}`,
    ...(flow.slowestReason === undefined ? [] : [`slowest     ${flow.slowestReason}`]),
  ].join("\n");
}

interface ProtectOptions extends VaultOptions {
  readonly account: string;
  readonly policy?: string;
  readonly address?: string;
}

function registerProtect(noun: Command): void {
  verb(noun, "protect <name>", "push the agent into a discovered machine and replicate it until the first recovery point")
    .requiredOption("--account <id>", "run-as account of the guest, as the appliance lists it (never its password)")
    .option("--policy <name>", "replication policy (default: the vault's default policy)")
    .option("--address <host>", "address to reach the guest by SSH (default: one that was discovered)")
    .action(async (name: string, options: ProtectOptions) => {
      await using session = await openSession(options);
      const { arm } = session;
      const protectable = pickByName(await listProtectable(arm, options.vault), name, "discovered machine");
      await refuseProtected(arm, options.vault, protectable);
      const container = protectable.id.slice(0, protectable.id.lastIndexOf("/replicationProtectableItems/"));
      const progress = openProgress(`protect ${name}`);
      const item = await arm.change(
        "PUT",
        `${container}/replicationProtectedItems/${protectable.name}`,
        {
          properties: {
            protectableItemId: protectable.id,
            policyId: `${vaultPath(arm.groupPath, options.vault)}/replicationPolicies/${options.policy ?? "default"}`,
            providerSpecificDetails: {
              instanceType: "InMageAzureV2",
              runAsAccountId: options.account,
              ...(options.address === undefined ? {} : { address: options.address }),
            },
          },
        },
        (state) => progress.update(state.percent ?? 0, state.status),
      );
      progress.finish();
      printAnswer(session.style, item, () => `${name} is protected`);
    });
}

/** The hub answers a call that was made before with its outcome; a person who protects a machine twice is told that it is. */
async function refuseProtected(arm: ArmClient, vault: string, wanted: ProtectableItem): Promise<void> {
  const item = (await listProtected(arm, vault)).find((each) => each.name.toLowerCase() === wanted.name.toLowerCase());
  // One that is under way is followed to its end; one that failed begins anew.
  if (item === undefined || /^(Enabling|InitialReplication)/.test(item.properties.protectionState)) return;
  throw new Fault("AlreadyProtected", `could not protect ${item.properties.friendlyName}: it is protected already`, {
    evidence: { protectedItemId: item.id, protectionState: item.properties.protectionState },
    action: `use the protected machine as it is (watari machine show ${item.properties.friendlyName} --vault ${vault}), or end its replication first`,
  });
}

function registerTest(noun: Command): void {
  withLaunchOptions(verb(noun, "test <name>", "boot a recovery point in an isolated network and probe it"))
    .option("--network <name>", "another network than an isolated one: the test machine then reaches what that network reaches")
    .action(async (name: string, options: LaunchOptions) => {
      const network = options.network === undefined ? {} : { network: options.network };
      await act(name, options, {
        action: "testFailover",
        properties: {
          failoverDirection: "PrimaryToRecovery",
          networkType: options.network === undefined ? "NoNetworkAttachAsInput" : "VmNetworkAsInput",
          providerSpecificDetails: { instanceType: "InMageAzureV2", ...network, ...(await wishOf(options)) },
        },
      });
    });
  verb(noun, "test-cleanup <name>", "end the test machine and remove every trace of it")
    .option("--comment <text>", "what the test showed", "")
    .action(async (name: string, options: VaultOptions & { readonly comment: string }) => {
      await act(name, options, { action: "testFailoverCleanup", properties: { comments: options.comment } });
    });
}

async function waitForPoints(arm: ArmClient, item: ProtectedItem, count: number): Promise<readonly RecoveryPointResource[]> {
  const endsAtMs = systemClock.monotonicMs() + pointWaitSecondsMax * 1000;
  for (;;) {
    const points = z.array(recoveryPointShape).parse(await arm.list(`${item.id}/recoveryPoints`));
    if (points.length >= count) return points;
    if (systemClock.monotonicMs() > endsAtMs)
      throw new Fault("StateConflict", `waited too long for ${count} recovery points of ${item.properties.friendlyName}`, {
        evidence: { points: points.length },
      });
    await systemClock.sleep(1000);
  }
}
