// What storage accounts, their blob service and their containers answer.

import { z } from "zod";
import {
  absent,
  connection,
  freeName,
  linkResource,
  none,
  place,
  row,
  seen,
  text,
  time,
  usage,
  words,
  yesOrNo,
  whole,
  type AnswerTable,
} from "./answer-parts.ts";

const storage = "Microsoft.Storage";
const accounts = `${storage}/storageAccounts`;

const sku = z.strictObject({ name: text, tier: text });
const keys = z.strictObject({
  keys: z.array(z.strictObject({ keyName: text, value: text, permissions: z.literal("FULL"), creationTime: time.optional() })),
});
/** Switches that are off here; clients may send them as they are. */
const off = z.strictObject({ enabled: z.literal(false), allowPermanentDelete: z.literal(false).optional() });

export const storageAnswers: AnswerTable = {
  [accounts]: {
    resource: row(
      z.strictObject({
        accessTier: text.nullish(),
        minimumTlsVersion: text.nullish(),
        supportsHttpsTrafficOnly: z.literal(true).nullish(),
        publicNetworkAccess: z.enum(["Enabled", "Disabled"]),
        keyCreationTime: z.strictObject({ key1: time, key2: time }),
        primaryEndpoints: z.strictObject({ blob: text }),
        statusOfPrimary: text,
        primaryLocation: text,
        creationTime: time,
        privateEndpointConnections: z.array(connection),
      }),
      { sku, kind: text },
    ),
    actions: {
      listKeys: keys,
      regenerateKey: keys,
      listAccountSas: z.strictObject({ accountSasToken: text }),
      listServiceSas: z.strictObject({ serviceSasToken: text }),
    },
  },
  [`${accounts}/privateEndpointConnections`]: { resource: connection },
  [`${accounts}/privateLinkResources`]: { resource: linkResource },
  [`${accounts}/blobServices`]: {
    resource: seen(
      z.strictObject({
        cors: z.strictObject({ corsRules: none }),
        deleteRetentionPolicy: off,
        containerDeleteRetentionPolicy: off,
        isVersioningEnabled: z.literal(false),
        changeFeed: off,
        defaultServiceVersion: text.nullish(),
      }),
      { etag: text.optional(), sku },
    ),
  },
  [`${accounts}/blobServices/containers`]: {
    resource: seen(
      z.strictObject({
        publicAccess: z.literal("None"),
        metadata: words.optional(),
        lastModifiedTime: time,
        leaseState: text,
        leaseStatus: text,
        hasImmutabilityPolicy: yesOrNo,
        hasLegalHold: yesOrNo,
        defaultEncryptionScope: text,
        denyEncryptionScopeOverride: yesOrNo,
        deleted: yesOrNo,
      }),
      { etag: text.optional() },
    ),
  },
  [`${storage}/locations`]: { resource: place },
  [`${storage}/locations/usages`]: { resource: usage },
  [`${storage}/skus`]: {
    resource: z.strictObject({
      name: text,
      tier: text,
      resourceType: text,
      kind: text,
      locations: none,
      capabilities: none,
      restrictions: none,
    }),
  },
  [`${storage}/checkNameAvailability`]: { resource: absent, call: freeName },
};

export const migrateAnswers: AnswerTable = migrate("Microsoft.Migrate/migrateProjects");

function migrate(projects: string): AnswerTable {
  const machine = {
    solutionName: text,
    machineId: text,
    machineName: text,
    fabricType: text,
    biosId: text,
    ipAddresses: z.array(text),
    lastUpdatedTime: time,
  };
  return {
    [projects]: {
      resource: row(
        z.strictObject({
          publicNetworkAccess: z.enum(["Enabled", "Disabled"]),
          registeredTools: z.array(text).nullish(),
          refreshSummaryState: text,
          lastSummaryRefreshedTime: time,
          summary: z.strictObject({
            Servers: z.strictObject({
              instanceType: z.literal("Servers"),
              discoveredCount: whole,
              assessedCount: whole,
              replicatingCount: whole,
              testMigratedCount: whole,
              migratedCount: whole,
              refreshSummaryState: text,
            }),
          }),
          privateEndpointConnections: z.array(connection),
        }),
      ),
      actions: {
        refreshSummary: z.strictObject({ isRefreshed: z.literal(true) }),
        registerTool: z.strictObject({ isRegistered: z.literal(true) }),
      },
    },
    [`${projects}/privateEndpointConnections`]: { resource: connection },
    [`${projects}/privateLinkResources`]: { resource: linkResource },
    [`${projects}/machines`]: {
      resource: seen(
        z.strictObject({
          discoveryData: z.array(z.strictObject(machine)),
          assessmentData: none,
          migrationData: z.array(
            z.strictObject({
              ...machine,
              migrationPhase: text,
              migrationTested: yesOrNo,
              replicationProgressPercentage: whole.optional(),
              targetVMName: text,
              targetVMArmId: text.optional(),
              extendedInfo: z.strictObject({ protectedItemId: text, protectionState: text, testFailoverState: text }),
            }),
          ),
          lastUpdatedTime: time,
        }),
      ),
    },
  };
}
