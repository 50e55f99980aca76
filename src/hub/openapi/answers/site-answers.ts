// What fabrics, their parts, and what they discover answer.

import { z } from "zod";
import {
  bareRow,
  health,
  healthError,
  none,
  number,
  seen,
  text,
  texts,
  textsInDigits,
  time,
  whole,
  type AnswerTable,
} from "./answer-parts.ts";
import { networkReport } from "./network-report.ts";

const vaults = "Microsoft.RecoveryServices/vaults";
const fabrics = `${vaults}/replicationFabrics`;
const containers = `${fabrics}/replicationProtectionContainers`;

const healthErrors = z.array(healthError);
const version = z.strictObject({ version: text, status: text });
const level = z.enum(["Healthy", "Warning", "Critical"]).optional();

/** What an appliance has told of itself; one that never did has none of it. */
const load = {
  totalSpaceInBytes: number.optional(),
  availableSpaceInBytes: number.optional(),
  spaceUsageStatus: level,
  sslCertExpiryDate: time.optional(),
  sslCertExpiryRemainingDays: whole.optional(),
  ipAddress: text.optional(),
  systemLoad: textsInDigits.optional(),
  systemLoadStatus: level,
  cpuLoad: textsInDigits.optional(),
  cpuLoadStatus: level,
  totalMemoryInBytes: number.optional(),
  availableMemoryInBytes: number.optional(),
  memoryUsageStatus: level,
};
const common = {
  agentVersion: text,
  agentVersionDetails: version,
  lastHeartbeat: time,
  versionStatus: text,
  replicationPairCount: textsInDigits,
};
const limitPlace = {
  scope: z.enum(["agents", "storage", "machine"]),
  machineId: text.optional(),
};
const lineLimits = z.strictObject({
  timeZone: text,
  limits: z.array(
    z.strictObject({
      ...limitPlace,
      window: z.strictObject({ days: texts, from: text, until: text }).optional(),
      bytesPerSecond: z.union([number, z.literal("unlimited")]),
    }),
  ),
  lines: z.array(
    z.strictObject({
      ...limitPlace,
      /** Absent: unlimited. */
      bytesPerSecond: number.optional(),
      reason: text,
      untilTime: time.optional(),
      measuredBytesPerSecond: number,
      passedBytes: number,
      waitedShare: number,
    }),
  ),
});
const profile = z.strictObject({
  sampleSeconds: number,
  samples: z.array(number),
  windows: z.array(z.strictObject({ seconds: number, meanBytes: number, maxBytes: number })),
  disks: z.array(z.strictObject({ diskId: text, sizeBytes: number, rung: text, reason: text })),
});
const processServer = z.strictObject({
  id: text,
  hostId: text,
  friendlyName: text,
  osType: text,
  osVersion: text.optional(),
  ...common,
  ...load,
  machineCount: textsInDigits,
  health,
  healthErrors,
  throughputUploadPendingDataInBytes: number.optional(),
  throughputInBytes: number.optional(),
  throughputInMBps: number.optional(),
  throughputStatus: level,
  psServiceStatus: text,
  psStatsRefreshTime: time,
  mobilityServiceUpdates: none,
  watari: z
    .strictObject({
      clockOffsetMs: number.nullable(),
      diskBytes: number,
      diskAvailableBytes: number,
      residentBytes: number,
      lineLimits: lineLimits.optional(),
    })
    .optional(),
});
const fabric = seen(
  z.strictObject({
    friendlyName: text,
    internalIdentifier: text,
    bcdrState: text,
    encryptionDetails: z.strictObject({ kekState: text }),
    health,
    healthErrorDetails: healthErrors,
    customDetails: z.strictObject({
      instanceType: z.literal("VMware"),
      hostName: text,
      ...common,
      ...load,
      csServiceStatus: text,
      processServerCount: textsInDigits,
      protectedServers: textsInDigits,
      agentCount: textsInDigits,
      processServers: z.array(processServer),
      masterTargetServers: none,
      runAsAccounts: z.array(z.strictObject({ accountId: text, accountName: text, kind: z.enum(["vcenter", "linux"]) })),
      vCenters: z.array(z.strictObject({ vcenterId: text, name: text, host: text, status: text })),
    }),
  }),
);

const recoveryProvider = seen(
  z.strictObject({
    fabricType: text,
    friendlyName: text,
    fabricFriendlyName: text,
    providerVersion: text,
    serverVersion: text,
    providerVersionState: text,
    providerVersionDetails: version,
    lastHeartBeat: time,
    connectionStatus: z.enum(["Connected", "Disconnected"]),
    protectedItemCount: whole,
    allowedScenarios: texts,
    healthErrorDetails: healthErrors,
    draIdentifier: text,
    machineId: text,
    machineName: text,
  }),
);

const container = seen(
  z.strictObject({
    friendlyName: text,
    fabricFriendlyName: text,
    fabricType: text,
    protectedItemCount: whole,
    pairingStatus: text,
    role: text,
    fabricSpecificDetails: z.strictObject({ instanceType: text }),
  }),
);

const protectable = seen(
  z.strictObject({
    friendlyName: text,
    protectionStatus: z.enum(["Protected", "Unprotected"]),
    replicationProtectedItemId: text.optional(),
    protectionReadinessErrors: texts,
    supportedReplicationProviders: texts,
    customDetails: z.strictObject({
      instanceType: text,
      agentInstalled: z.enum(["true", "false"]),
      osType: text,
      guestOs: text,
      ipAddress: text,
      ipAddresses: texts,
      poweredOn: z.enum(["On", "Off"]),
      vCenterInfrastructureId: text,
      discoveryType: text,
      cpuCount: whole,
      memoryInMB: whole,
      smbiosUuid: text,
      diskDetails: z.array(z.strictObject({ diskId: text, diskName: text, diskSizeInMB: textsInDigits, diskType: text })),
      nics: z.array(z.strictObject({ label: text, mac: text, network: text, adapter: text })),
      validationErrors: none,
    }),
  }),
);

const applianceHealth = { id: text, name: text, version: text, lastHeartbeatUtc: time, health, healthErrors };

export const siteAnswers: AnswerTable = {
  [fabrics]: {
    resource: fabric,
    actions: {
      remove: "nothing",
      checkConsistency: fabric,
      reassociateGateway: fabric,
      renewCertificate: fabric,
      changeLineLimits: lineLimits,
      profileMachine: profile,
      checkNetwork: networkReport,
    },
  },
  [`${fabrics}/replicationRecoveryServicesProviders`]: {
    resource: recoveryProvider,
    actions: { remove: "nothing", refreshProvider: recoveryProvider },
  },
  [containers]: {
    resource: container,
    actions: { discoverProtectableItem: container.extend({ protectableItemName: text }) },
  },
  [`${containers}/replicationProtectableItems`]: { resource: protectable },
  [`${containers}/replicationProtectionContainerMappings`]: {
    resource: bareRow(
      z.strictObject({
        policyId: text,
        policyFriendlyName: text,
        state: text,
        health,
        healthErrorDetails: healthErrors,
        sourceFabricFriendlyName: text,
        sourceProtectionContainerFriendlyName: text,
        targetFabricFriendlyName: text,
        targetProtectionContainerId: text,
        targetProtectionContainerFriendlyName: text,
        providerSpecificDetails: z.strictObject({ instanceType: text }),
      }),
    ),
    actions: { remove: "nothing" },
  },
  [`${fabrics}/replicationNetworks`]: {
    resource: seen(z.strictObject({ fabricType: text, friendlyName: text, networkType: text, subnets: none })),
  },
  [`${fabrics}/replicationvCenters`]: {
    resource: seen(
      z.strictObject({
        friendlyName: text,
        internalId: text,
        infrastructureId: text,
        lastHeartbeat: time.optional(),
        discoveryStatus: z.enum(["Completed", "InProgress", "Failed"]),
        processServerId: text,
        ipAddress: text,
        port: textsInDigits,
        runAsAccountId: text,
        fabricArmResourceName: text,
        healthErrors,
      }),
    ),
  },
  [`${vaults}/replicationAppliances`]: {
    resource: z.strictObject({
      properties: z.strictObject({
        providerSpecificDetails: z.strictObject({
          instanceType: text,
          appliances: z.array(
            z.strictObject({
              id: text,
              name: text,
              fabricArmId: text,
              processServer: z.strictObject({
                ...applianceHealth,
                totalSpaceInBytes: number.optional(),
                availableSpaceInBytes: number.optional(),
                protectedItemCount: whole,
              }),
              dra: z.strictObject({ ...applianceHealth, forwardProtectedItemCount: whole, reverseProtectedItemCount: whole }),
            }),
          ),
        }),
      }),
    }),
  },
};
