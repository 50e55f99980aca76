// `watari machine set`: how a protected machine will land, kept with it until its migration begins.

import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { collectAddress, launchSettingsOf, withLaunchSettings, type LaunchSettingsOptions } from "./launch-settings.ts";
import { findProtected, type VaultOptions, type Verb } from "./machine-act.ts";
import { formatTable, printAnswer } from "./output.ts";
import { openSession } from "./session.ts";

interface SetOptions extends VaultOptions, LaunchSettingsOptions {
  readonly targetName?: string;
  readonly network?: string;
  readonly testNetwork?: string;
  readonly testNicAddress: readonly object[];
  readonly ownAddresses?: boolean;
  readonly unlockKeys: boolean;
}

const addressingShape = z.array(z.looseObject({ nicId: z.string(), addressing: z.looseObject({ kind: z.string() }) })).default([]);
const shownShape = z.looseObject({
  properties: z.looseObject({
    providerSpecificDetails: z.looseObject({
      recoveryAzureVMName: z.string(),
      selectedRecoveryAzureNetworkId: z.string(),
      selectedTfoAzureNetworkId: z.string(),
      watari: z.looseObject({
        hasSerialConsole: z.boolean().optional(),
        nicAddressing: addressingShape,
        tfoNicAddressing: addressingShape,
        unlockKeyCount: z.number().default(0),
      }),
    }),
  }),
});

export function registerMachineSet(verb: Verb): void {
  const command: Command = verb("set <name>", "how the machine will land; without options it is shown");
  withLaunchSettings(command)
    .option("--test-nic-address <card=how>", "as --nic-address, in tests and rehearsals; may be repeated", collectAddress, [])
    .option("--own-addresses", "all cards keep their addresses again, in tests too")
    .option("--no-unlock-keys", "forget the keys that were set")
    .option("--target-name <name>", "name of the landed machine")
    .option("--network <name>", "network of the landing zone that it joins")
    .option("--test-network <name>", "network of its tests")
    .action(async (name: string, options: SetOptions) => {
      await using session = await openSession(options);
      const { arm } = session;
      const { id } = await findProtected(arm, options.vault, name);
      const change = await changeOf(options);
      if (change !== undefined) await arm.change("PATCH", id, { properties: change });
      const shown = shownShape.parse(await arm.get(id)).properties.providerSpecificDetails;
      const { recoveryAzureVMName, selectedRecoveryAzureNetworkId: network, selectedTfoAzureNetworkId: testNetwork, watari } = shown;
      const { hasSerialConsole = false, nicAddressing, tfoNicAddressing, unlockKeyCount } = watari;
      const settings = {
        targetName: recoveryAzureVMName,
        network,
        testNetwork,
        hasSerialConsole,
        nicAddressing,
        tfoNicAddressing,
        unlockKeyCount,
      };
      printAnswer(session.style, settings, () =>
        formatTable(
          ["SETTING", "IS"],
          Object.entries(settings).map(([setting, value]) => [setting, typeof value === "string" ? value : JSON.stringify(value)]),
        ),
      );
    });
}

/** Undefined when nothing is to be changed. */
async function changeOf(options: SetOptions): Promise<object | undefined> {
  const { targetName, network, testNetwork, testNicAddress, ownAddresses = false, unlockKeys } = options;
  const settings = await launchSettingsOf(options);
  if (!unlockKeys && "unlockKeys" in settings)
    throw new Fault("InputInvalid", "could not set the keys: --no-unlock-keys forgets them", { action: "give one of the two" });
  if (ownAddresses && (testNicAddress.length > 0 || options.nicAddress.length > 0))
    throw new Fault("InputInvalid", "could not set addresses: --own-addresses takes all of them back", { action: "give one of the two" });
  const details = {
    ...(ownAddresses ? { nicAddressing: [], tfoNicAddressing: [] } : {}),
    ...settings,
    ...(testNicAddress.length === 0 ? {} : { tfoNicAddressing: testNicAddress }),
    ...(unlockKeys ? {} : { unlockKeys: [] }),
  };
  const change = {
    ...(targetName === undefined ? {} : { recoveryAzureVMName: targetName }),
    ...(network === undefined ? {} : { selectedRecoveryAzureNetworkId: network }),
    ...(testNetwork === undefined ? {} : { selectedTfoAzureNetworkId: testNetwork }),
    ...(Object.keys(details).length === 0 ? {} : { providerSpecificDetails: { instanceType: "InMageAzureV2", ...details } }),
  };
  return Object.keys(change).length === 0 ? undefined : change;
}
