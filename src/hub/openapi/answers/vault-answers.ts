// What vaults, their parts and their health answer.

import { z } from "zod";
import { privateServices } from "../../../contract/appliance-protocol.ts";
import {
  absent,
  connection,
  dnsSettings,
  freeName,
  healthError,
  linkResource,
  place,
  row,
  seen,
  text,
  texts,
  time,
  usage,
  whole,
  yesOrNo,
  type AnswerTable,
} from "./answer-parts.ts";
import { operation } from "./platform-answers.ts";

const provider = "Microsoft.RecoveryServices";
const vaults = `${provider}/vaults`;

const registrationKey = z.strictObject({
  format: z.literal("watari-registration-key-1"),
  vaultId: text,
  vaultResourceId: text,
  services: z.strictObject(Object.fromEntries(privateServices.map((service) => [service, text]))),
  privateNames: texts,
  privateRanges: texts,
  publicNames: texts,
  hubCaPem: text,
  keyId: text,
  /** Shown this once. */
  secret: text,
  expiresAt: time,
});

const keyGeneration = seen(
  z.strictObject({
    generation: whole,
    state: z.enum(["Prepared", "Current", "Former", "Ending"]),
    destroyWhenUnused: yesOrNo,
    madeAt: time.optional(),
    usedFrom: time.optional(),
    usedUntil: time.optional(),
    /** As counted last; absent before the first count. */
    sealed: z.strictObject({ countedAt: time, packCount: whole, packBytes: whole, recoveryPointCount: whole }).optional(),
  }),
);

const summary = z.strictObject({
  resourceCount: whole,
  categorizedResourceCounts: z.record(text, whole),
  issues: z.array(
    z.strictObject({
      summaryCode: text,
      category: text,
      severity: text,
      summaryMessage: text,
      affectedResourceType: text,
      affectedResourceCorrelationIds: texts,
    }),
  ),
});
const vaultHealth = seen(
  z.strictObject({
    vaultErrors: z.array(healthError),
    protectedItemsHealth: summary,
    fabricsHealth: summary,
    containersHealth: summary,
  }),
);

export const vaultAnswers: AnswerTable = {
  [vaults]: {
    resource: row(
      z.strictObject({
        publicNetworkAccess: z.enum(["Enabled", "Disabled"]),
        privateEndpointConnections: z.array(connection),
        privateEndpointStateForSiteRecovery: z.enum(["Enabled", "None"]),
        watariStorageAccountId: text.optional(),
        watariContainer: text,
        watariVaultId: text,
        watariVaultKeyId: text,
        watariPrincipalId: text,
      }),
      {
        sku: z.strictObject({ name: text, tier: text.optional() }),
        identity: z.strictObject({ type: z.literal("SystemAssigned"), principalId: text, tenantId: text }),
      },
    ),
    actions: { registrationKeys: registrationKey, dnsSettings },
  },
  [`${vaults}/watariKeyGenerations`]: { resource: keyGeneration, actions: { count: keyGeneration } },
  [`${vaults}/privateLinkResources`]: { resource: linkResource },
  [`${vaults}/privateEndpointConnections`]: { resource: connection },
  [`${vaults}/extendedInformation`]: {
    resource: seen(z.strictObject({ encryptionKeyThumbprint: text.optional(), algorithm: text })),
  },
  [`${vaults}/certificates`]: { resource: absent },
  [`${vaults}/usages`]: { resource: usage },
  [`${vaults}/replicationUsages`]: {
    resource: z.strictObject({
      monitoringSummary: z.strictObject({
        unHealthyVmCount: whole,
        unHealthyProviderCount: whole,
        supportedProviderCount: whole,
        deprecatedProviderCount: whole,
        unsupportedProviderCount: whole,
      }),
      jobsSummary: z.strictObject({ failedJobs: whole, suspendedJobs: whole, inProgressJobs: whole }),
      protectedItemCount: whole,
      registeredServersCount: whole,
      recoveryServicesProviderAuthType: whole,
    }),
  },
  [`${vaults}/registeredIdentities`]: { resource: seen(z.strictObject({ friendlyName: text })) },
  [`${vaults}/replicationVaultHealth`]: { resource: vaultHealth, actions: { refresh: vaultHealth } },
  [`${vaults}/replicationVaultSettings`]: {
    resource: seen(
      z.strictObject({ migrationSolutionId: text.optional(), vmwareToAzureProviderType: text, provisioningState: text.optional() }),
      { etag: text.optional() },
    ),
  },
  [`${vaults}/replicationSupportedOperatingSystems`]: {
    resource: seen(
      z.strictObject({
        supportedOsList: z.array(
          z.strictObject({
            instanceType: text,
            supportedOs: z.array(
              z.strictObject({
                osName: text,
                osType: text,
                osVersions: z.array(z.strictObject({ version: text, servicePack: text })),
              }),
            ),
          }),
        ),
      }),
    ),
  },
  [`${provider}/locations`]: {
    resource: place,
    actions: {
      checkNameAvailability: freeName,
      capabilities: z.strictObject({
        type: text,
        properties: z.strictObject({ dnsZones: z.array(z.strictObject({ subResource: text, requiredZoneNames: texts })) }),
      }),
    },
  },
  [`${provider}/operations`]: { resource: operation },
};
