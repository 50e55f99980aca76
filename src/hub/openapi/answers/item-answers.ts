// What protected items, their recovery points, policies and recovery plans answer.

import { z } from "zod";
import { sealedPointReportShape } from "../../../contract/appliance-protocol.ts";
import { machineFlowShape } from "../../../contract/machine-flow.ts";
import { pointVerificationShape } from "../../db/points.ts";
import { launchActionsShape } from "../../replication/launch-actions.ts";
import { nicAddressingShape } from "../../replication/launch-settings.ts";
import { timeWindowShape } from "../../replication/time-window.ts";
import { protectionStates, testFailoverStates } from "../../replication/item.ts";
import { settingsShape } from "../../replication/item-settings.ts";
import { itemType, planType, pointType, policyType, provider } from "../../replication/names.ts";
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
  words,
  yesOrNo,
  type AnswerTable,
} from "./answer-parts.ts";

/** As the appliance reported it. */
const sealedPoint = z.strictObject(sealedPointReportShape.shape);
const landing = z.strictObject({ landedName: text, pointId: text, endedAt: time });
const scenario = z.strictObject({ scenarioName: text, jobId: text, startTime: time });

const {
  nicId: _nicId,
  ipConfigs,
  tfoNicName: _name,
  tfoNicResourceGroupName: _group,
  ...nicWishes
} = settingsShape.shape.nics.unwrap().element.shape;
const { ipConfigName: _configName, ...addressWishes } = ipConfigs.unwrap().element.shape;
const card = z.strictObject({
  ...nicWishes,
  selectionType: text,
  nicId: text,
  macAddress: text,
  recoveryVMNetworkId: text,
  tfoVMNetworkId: text,
  tfoRecoveryNicName: text.optional(),
  tfoRecoveryNicResourceGroupName: text.optional(),
  ipConfigs: z.array(
    z.strictObject({
      ...addressWishes,
      name: text,
      isPrimary: yesOrNo,
      isSeletedForFailover: yesOrNo,
      ipAddressType: text,
      recoveryIPAddressType: text,
      staticIPAddress: text.optional(),
    }),
  ),
});

/** What was given at the start of the replication or since, and is answered as given. */
const chosen = {
  masterTargetId: text.optional(),
  recoveryAzureStorageAccount: text.optional(),
  recoveryAzureLogStorageAccountId: text.optional(),
  enableRdpOnTargetOption: text.optional(),
  licenseType: text.optional(),
  sqlServerLicenseType: text.optional(),
  seedManagedDiskTags: words.optional(),
  replicaDiskType: text.optional(),
  selectedSourceNicId: text.optional(),
  targetVmTags: words.optional(),
  targetManagedDiskTags: words.optional(),
  targetNicTags: words.optional(),
  recoveryAzureResourceGroupId: text.optional(),
  useManagedDisks: z.literal("true"),
};

const itemDetails = z.strictObject({
  ...chosen,
  instanceType: z.literal(provider),
  infrastructureVmId: text,
  vCenterInfrastructureId: text,
  vmId: text,
  protectionStage: z.enum(protectionStates),
  vmProtectionState: z.enum(protectionStates),
  resyncProgressPercentage: whole,
  rpoInSeconds: number.optional(),
  ipAddress: text,
  agentVersion: text,
  lastHeartbeat: time.optional(),
  lastUpdateReceivedTime: time.optional(),
  processServerId: text,
  sourceVmCpuCount: whole,
  sourceVmRamSizeInMB: whole,
  multiVmGroupId: text,
  multiVmGroupName: text,
  multiVmSyncStatus: z.enum(["Enabled", "Disabled"]),
  osType: text,
  osVersion: text,
  supportedOSVersions: z.array(text),
  firmwareType: z.enum(["UEFI", "BIOS"]),
  discoveryType: text,
  totalDataTransferred: number,
  totalProgressHealth: text,
  recoveryAzureVMName: text,
  recoveryAzureVMSize: text,
  selectedRecoveryAzureNetworkId: text,
  selectedTfoAzureNetworkId: text,
  targetVmId: text.optional(),
  vmNics: z.array(card),
  azureVMDiskDetails: z.array(
    z.strictObject({
      diskId: text,
      vhdName: text,
      vhdType: z.enum(["OperatingSystem", "DataDisk"]),
      maxSizeMB: textsInDigits,
      customTargetDiskName: text.optional(),
      targetDiskName: text.optional(),
    }),
  ),
  protectedManagedDisks: z.array(
    z.strictObject({
      diskId: text,
      diskName: text,
      diskCapacityInBytes: number,
      replicaDiskType: text,
      targetDiskName: text.optional(),
    }),
  ),
  protectedDisks: z.array(
    z.strictObject({
      diskId: text,
      diskName: text,
      diskCapacityInBytes: number,
      resyncRequired: z.enum(["true", "false"]),
      resyncProcessedBytes: number,
      resyncProgressPercentage: whole,
      sourceDataInMegaBytes: number,
      progressHealth: text,
      progressStatus: text,
      rpoInSeconds: number.optional(),
    }),
  ),
  validationErrors: none,
  watari: z.strictObject({
    phase: text,
    residentBytes: number,
    cpuSeconds: number,
    readBytes: number,
    sentBytes: number,
    dirtyBytes: number,
    pointCount: number,
    lagSeconds: number.optional(),
    lastRecoveryPoint: sealedPoint.optional(),
    test: landing.optional(),
    failover: landing.optional(),
    /** The way back after the commit. */
    reverse: z
      .strictObject({
        basisPointId: text,
        points: z.array(
          z.strictObject({ pointId: text, time, isFinal: yesOrNo, readBytes: number, storedBytes: number, wholeDisks: number }),
        ),
        finalPointId: text.optional(),
        returnPointId: text.optional(),
        sourceOrderedAt: time.optional(),
        returnedAt: time.optional(),
      })
      .optional(),
    rehearsal: z.strictObject({ jobId: text, endedAt: time, isPassed: yesOrNo, pointId: text.optional() }).optional(),
    postLaunchActions: launchActionsShape.optional(),
    hasSerialConsole: yesOrNo.optional(),
    nicAddressing: nicAddressingShape.optional(),
    tfoNicAddressing: nicAddressingShape.optional(),
    unlockKeyCount: whole.optional(),
    flow: machineFlowShape.optional(),
  }),
});

const item = bareRow(
  z.strictObject({
    friendlyName: text,
    protectedItemType: text,
    protectableItemId: text,
    primaryFabricFriendlyName: text,
    primaryFabricProvider: text,
    recoveryFabricFriendlyName: text,
    primaryProtectionContainerFriendlyName: text,
    protectionState: z.enum(protectionStates),
    protectionStateDescription: text,
    activeLocation: z.enum(["Primary", "Recovery"]),
    testFailoverState: z.enum(testFailoverStates),
    testFailoverStateDescription: text,
    allowedOperations: texts,
    replicationHealth: health,
    failoverHealth: health,
    healthErrors: z.array(healthError),
    policyId: text,
    policyFriendlyName: text,
    lastSuccessfulFailoverTime: time.optional(),
    lastSuccessfulTestFailoverTime: time.optional(),
    currentScenario: scenario.optional(),
    failoverRecoveryPointId: text.optional(),
    providerSpecificDetails: itemDetails,
  }),
);

const planAction = z.strictObject({
  actionName: text,
  failoverTypes: texts,
  failoverDirections: texts,
  customDetails: z.strictObject({ instanceType: text, description: text.optional() }),
});
const plan = bareRow(
  z.strictObject({
    friendlyName: text,
    primaryFabricId: text,
    primaryFabricFriendlyName: text,
    recoveryFabricId: text,
    recoveryFabricFriendlyName: text,
    failoverDeploymentModel: text,
    replicationProviders: texts,
    allowedOperations: texts,
    lastTestFailoverTime: time.optional(),
    lastUnplannedFailoverTime: time.optional(),
    currentScenario: scenario.optional(),
    currentScenarioStatus: text,
    currentScenarioStatusDescription: text,
    groups: z.array(
      z.strictObject({
        groupType: z.enum(["Shutdown", "Failover", "Boot"]),
        replicationProtectedItems: z.array(z.strictObject({ id: text, virtualMachineId: text })),
        startGroupActions: z.array(planAction),
        endGroupActions: z.array(planAction),
        machinesAtOnceMax: whole.optional(),
        window: timeWindowShape.optional(),
      }),
    ),
    providerSpecificDetails: none,
  }),
);

const partOfDowntime = z.strictObject({
  name: z.enum(["freeze", "compare", "fence", "boot"]),
  seconds: number,
  lowSeconds: number,
  highSeconds: number,
  basis: z.enum(["own", "others", "assumed"]),
  sampleCount: whole,
});
const prediction = z.strictObject({
  seconds: number,
  lowSeconds: number,
  highSeconds: number,
  confidence: z.enum(["high", "medium", "low"]),
  parts: z.array(partOfDowntime),
});

/** What each of these starts answers the item or the plan as it is when its job has ended. */
const started = <Shape extends z.ZodType>(names: readonly string[], shape: Shape): Readonly<Record<string, Shape>> =>
  Object.fromEntries(names.map((name) => [name, shape]));

export const itemAnswers: AnswerTable = {
  [itemType]: {
    resource: item,
    actions: {
      ...started(["testFailover", "testFailoverCleanup", "unplannedFailover", "applyRecoveryPoint", "failoverCommit"], item),
      ...started(["rehearse", "promote", "reversePoint", "reverseDelta", "reverseEnd"], item),
      predictDowntime: prediction,
      ...started(["failoverCancel", "repairReplication", "updateMobilityService", "addDisks", "removeDisks"], item),
      ...started(["updateAppliance", "resolveHealthErrors", "export"], item),
      remove: "nothing",
    },
  },
  [`${itemType}/targetComputeSizes`]: {
    resource: seen(
      z.strictObject({
        name: text,
        friendlyName: text,
        cpuCoresCount: whole,
        vCPUsAvailable: whole,
        memoryInGB: number,
        maxDataDiskCount: whole,
        maxNicsCount: whole,
        errors: z.array(z.strictObject({ message: text, severity: text })),
        highIopsSupported: text,
        hyperVGenerations: texts,
      }),
    ),
  },
  [pointType]: {
    resource: seen(
      z.strictObject({
        recoveryPointTime: time,
        recoveryPointType: z.enum(["ApplicationConsistent", "CrashConsistent"]),
        providerSpecificDetails: z.strictObject({
          instanceType: z.literal(provider),
          isMultiVmSyncPoint: z.enum(["Yes", "No"]),
          /** verified: by which rehearsal. */
          watari: sealedPoint.extend({ verified: z.strictObject(pointVerificationShape.shape).optional() }),
        }),
      }),
    ),
    actions: {
      listFiles: z.strictObject({
        volumes: z
          .array(
            z.strictObject({
              name: text,
              diskId: text,
              partition: whole,
              sizeBytes: whole,
              filesystem: text,
              isReadable: yesOrNo,
              uuid: text.optional(),
              label: text.optional(),
            }),
          )
          .optional(),
        entries: z
          .array(
            z.strictObject({
              name: text,
              kind: z.enum(["file", "folder", "link", "device", "pipe", "socket"]),
              /** Permission bits, octal. */
              mode: text,
              uid: whole,
              gid: whole,
              sizeBytes: whole,
              modifiedAt: time,
              linkTarget: text.optional(),
            }),
          )
          .optional(),
        /** For the next page. */
        nextAfter: whole.optional(),
      }),
      /** The address is a secret while it is good. */
      fileArchive: z.strictObject({ url: text, expiresAt: time }),
    },
  },
  [policyType]: {
    resource: seen(
      z.strictObject({
        friendlyName: text,
        providerSpecificDetails: z.strictObject({
          instanceType: z.literal(provider),
          recoveryPointThresholdInMinutes: number,
          recoveryPointHistory: number,
          crashConsistentFrequencyInMinutes: number,
          appConsistentFrequencyInMinutes: number,
          multiVmSyncStatus: z.enum(["Enable", "Disable"]),
          pointIntervalSeconds: number,
          freezeMsMax: number,
          rehearsalIntervalHours: number.optional(),
        }),
        provisioningState: text,
      }),
      { etag: text.optional() },
    ),
  },
  [planType]: {
    resource: plan,
    actions: started(["testFailover", "testFailoverCleanup", "unplannedFailover", "failoverCommit", "failoverCancel"], plan),
  },
  "Microsoft.RecoveryServices/replicationEligibilityResults": {
    resource: seen(
      z.strictObject({
        clientRequestId: text,
        errors: z.array(z.strictObject({ code: text, message: text, possibleCauses: text, recommendedAction: text, status: text })),
      }),
    ),
  },
};
