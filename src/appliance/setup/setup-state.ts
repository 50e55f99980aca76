// What the set-up page shows: settings, the key without its secret, what each step found, and which step is next. Never a secret.

import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { SetupState, SetupStepStatus } from "../../contract/appliance-setup.ts";
import { setupSteps, type SetupStep } from "../../contract/setup-steps.ts";
import type { RegistrationKey } from "../../contract/appliance-protocol.ts";
import { applianceVersion, parseRegistrationKey } from "../identity/hub-registration.ts";
import type { Appliance } from "../main.ts";
import { readProxyUser } from "./proxy-credentials.ts";
import { isClockKept, machineAddresses } from "./setup-checks.ts";
import { readProgress, statusesOf } from "./setup-progress.ts";

type KnownKey = Omit<RegistrationKey, "secret">;

/** Of the registration, or the one that was given for it. */
export function knownKey(appliance: Appliance): KnownKey | undefined {
  const { registration } = appliance;
  if (registration !== undefined) return { ...registration.key, hubCaPem: registration.hubCaPem };
  const text = appliance.facts.read("setupKey");
  return text === undefined ? undefined : parseRegistrationKey(text);
}

export function setupStatuses(appliance: Appliance): Readonly<Record<SetupStep, SetupStepStatus>> {
  return statusesOf({
    progress: readProgress(appliance.facts),
    hasKey: knownKey(appliance) !== undefined,
    isRegistered: appliance.registration !== undefined,
    vcenterCount: appliance.vcenters.list().length,
  });
}

export async function setupStateOf(appliance: Appliance, clock: Clock): Promise<SetupState> {
  const { config, registration, facts, vcenters, credentials } = appliance;
  const progress = readProgress(facts);
  const statuses = setupStatuses(appliance);
  const key = knownKey(appliance);
  const userName = await readProxyUser(config.proxyCredentialsFile);
  const isSynchronised = await isClockKept();
  return {
    version: applianceVersion,
    steps: setupSteps.map((step) => {
      const result = progress.results[step];
      return { step, status: statuses[step], ...(result === undefined ? {} : { result }) };
    }),
    isFinished: setupSteps.every((step) => statuses[step] === "done"),
    network: {
      name: config.name,
      listenAddresses: config.listenAddresses,
      ...(config.advertiseAddress === undefined ? {} : { advertiseAddress: config.advertiseAddress }),
      machineAddresses: [...machineAddresses()],
    },
    names: { hosts: config.hosts, dnsServers: config.dnsServers },
    ...(key === undefined ? {} : { key: summaryOf(key, clock) }),
    proxy: {
      ...(config.proxyUrl === undefined ? {} : { url: config.proxyUrl }),
      ...(userName === undefined ? {} : { userName }),
      bypass: [...privateNamesOf(key), ...vcenters.list().map(({ host }) => host)],
    },
    time: { now: toTimestamp(clock.nowMs()), ...(isSynchronised === undefined ? {} : { isSynchronised }) },
    ...(registration === undefined
      ? {}
      : {
          registration: {
            applianceId: registration.applianceId,
            vaultResourceId: registration.key.vaultResourceId,
            isHubReached: appliance.isHubReached,
          },
        }),
    vcenters: [...vcenters.summaries()],
    hasNoVcenter: progress.hasNoVcenter,
    machineCount: vcenters.machines().length,
    credentials: [...credentials.list()],
  };
}

/** Every private name of the key once, the storage account's included. */
export function privateNamesOf(key: KnownKey | undefined): readonly string[] {
  return key === undefined ? [] : [...new Set([...Object.values(key.services), ...key.privateNames])];
}

function summaryOf(key: KnownKey, clock: Clock): NonNullable<SetupState["key"]> {
  const { keyId, vaultResourceId, expiresAt, privateRanges, publicNames } = key;
  const isExpired = fromTimestamp(expiresAt) <= clock.nowMs();
  return { keyId, vaultResourceId, expiresAt, isExpired, privateRanges, publicNames, privateNames: [...privateNamesOf(key)] };
}
