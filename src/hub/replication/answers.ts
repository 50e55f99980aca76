// What the types of replication answer as `properties`, for the documents: the members that every answer has, and the kinds of the others.

import { z } from "zod";
import { protectionStates, testFailoverStates } from "./item.ts";
import { provider } from "./names.ts";

const text = z.string();
const texts = z.array(z.string());
const health = z.enum(["None", "Normal", "Warning", "Critical"]);
const healthErrors = z.array(z.looseObject({ errorCode: text, errorMessage: text }));

export const containerAnswer = z.looseObject({
  friendlyName: text,
  fabricFriendlyName: text,
  fabricType: text,
  protectedItemCount: z.number().int(),
  pairingStatus: text,
  role: text,
  fabricSpecificDetails: z.looseObject({ instanceType: text }),
});

export const policyAnswer = z.looseObject({
  friendlyName: text,
  providerSpecificDetails: z.looseObject({
    instanceType: z.literal(provider),
    recoveryPointThresholdInMinutes: z.number(),
    recoveryPointHistory: z.number(),
    crashConsistentFrequencyInMinutes: z.number(),
    appConsistentFrequencyInMinutes: z.number(),
    multiVmSyncStatus: z.enum(["Enable", "Disable"]),
    pointIntervalSeconds: z.number(),
    freezeMsMax: z.number(),
  }),
});

export const pointAnswer = z.looseObject({
  recoveryPointTime: text,
  recoveryPointType: z.enum(["ApplicationConsistent", "CrashConsistent"]),
  providerSpecificDetails: z.looseObject({ instanceType: z.literal(provider), isMultiVmSyncPoint: text }),
});

export const itemAnswer = z.looseObject({
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
  healthErrors,
  policyId: text,
  policyFriendlyName: text,
  currentScenario: z.looseObject({ scenarioName: text, jobId: text, startTime: text }).optional(),
  providerSpecificDetails: z.looseObject({
    instanceType: z.literal(provider),
    recoveryAzureVMName: text,
    recoveryAzureVMSize: text,
    selectedRecoveryAzureNetworkId: text,
    selectedTfoAzureNetworkId: text,
    useManagedDisks: text,
    resyncProgressPercentage: z.number(),
    vmNics: z.array(z.looseObject({ nicId: text, selectionType: text, ipConfigs: z.array(z.looseObject({ name: text })) })),
    protectedDisks: z.array(z.looseObject({ diskId: text, diskCapacityInBytes: z.number() })),
    protectedManagedDisks: z.array(z.looseObject({ diskId: text, replicaDiskType: text })),
    azureVMDiskDetails: z.array(z.looseObject({ diskId: text, vhdType: text })),
  }),
});

export const planAnswer = z.looseObject({
  friendlyName: text,
  primaryFabricId: text,
  recoveryFabricId: text,
  failoverDeploymentModel: text,
  replicationProviders: texts,
  allowedOperations: texts,
  currentScenarioStatus: text,
  groups: z.array(
    z.looseObject({
      groupType: text,
      replicationProtectedItems: z.array(z.looseObject({ id: text, virtualMachineId: text })),
      startGroupActions: z.array(z.looseObject({ actionName: text })),
      endGroupActions: z.array(z.looseObject({ actionName: text })),
    }),
  ),
});
