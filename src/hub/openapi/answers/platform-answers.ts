// What subscriptions, groups, tags, providers, rights, the audit trail and identities answer.

import { z } from "zod";
import { bareRow, none, number, row, seen, text, texts, time, whole, words, yesOrNo, type AnswerTable } from "./answer-parts.ts";

const authorization = "Microsoft.Authorization";
const resources = "Microsoft.Resources";

const providerType = z.strictObject({
  resourceType: text,
  locations: none,
  apiVersions: texts,
  defaultApiVersion: text,
  capabilities: text,
});
export const provider = z.strictObject({
  id: text,
  namespace: text,
  registrationState: text,
  registrationPolicy: text,
  resourceTypes: z.array(providerType),
});
export const operation = z.strictObject({
  name: text,
  isDataAction: yesOrNo,
  origin: text,
  display: z.strictObject({ provider: text, resource: text, operation: text, description: text }),
});
const listedResource = z.strictObject({
  id: text,
  name: text,
  type: text,
  location: text.optional(),
  tags: words.optional(),
  sku: z.record(text, z.unknown()).optional(),
  kind: text.optional(),
  identity: z.record(text, z.unknown()).optional(),
  managedBy: text.optional(),
  plan: z.record(text, z.unknown()).optional(),
  createdTime: time.optional(),
  changedTime: time.optional(),
  provisioningState: text.optional(),
});
const tagCount = z.strictObject({ type: text, value: whole });
const permission = z.strictObject({ actions: texts, notActions: texts, dataActions: texts, notDataActions: texts });

const credential = z.strictObject({
  credentialId: text,
  kind: z.enum(["secret", "certificate"]),
  expiresAt: time,
  createdAt: time,
  thumbprint: text.optional(),
});

export const platformAnswers: AnswerTable = {
  [`${resources}/subscriptions`]: {
    resource: row(z.strictObject({}), { subscriptionId: text, tenantId: text, displayName: text, state: text }),
  },
  [`${resources}/resourceGroups`]: {
    resource: row(
      z.strictObject({
        /** Of a removal that failed. */
        watariRemoval: z
          .strictObject({ state: text, removedCount: number, removed: texts, fault: z.record(text, z.unknown()).optional() })
          .optional(),
      }),
    ),
  },
  [`${resources}/subscriptions/resources`]: { resource: listedResource },
  [`${resources}/resourceGroups/resources`]: { resource: listedResource },
  [`${resources}/subscriptions/tagNames`]: {
    resource: z.strictObject({
      id: text,
      tagName: text,
      count: tagCount.optional(),
      values: z.array(z.strictObject({ id: text, tagValue: text, count: tagCount })).optional(),
    }),
  },
  [`${resources}/tags`]: { resource: seen(z.strictObject({ tags: words })) },
  [`${resources}/subscriptions/providers`]: {
    resource: provider,
    actions: {
      register: provider,
      resourceTypes: z.strictObject({ value: z.array(providerType) }),
      providerPermissions: z.strictObject({ value: none }),
    },
  },
  [`${resources}/subscriptions/locations`]: {
    resource: z.strictObject({
      id: text,
      name: text,
      type: text,
      displayName: text,
      regionalDisplayName: text,
      metadata: z.strictObject({ regionType: text, regionCategory: text }),
    }),
  },
  [`${authorization}/roleAssignments`]: {
    resource: bareRow(
      z.strictObject({
        principalId: text,
        principalType: text,
        roleDefinitionId: text,
        scope: text,
        description: text.optional(),
        delegatedManagedIdentityResourceId: text.optional(),
      }),
    ),
  },
  [`${authorization}/roleDefinitions`]: {
    resource: seen(
      z.strictObject({
        roleName: text,
        description: text,
        type: z.enum(["BuiltInRole", "CustomRole"]),
        assignableScopes: texts,
        permissions: z.array(permission),
        provisioningState: text.optional(),
      }),
      { etag: text.optional() },
    ),
  },
  [`${authorization}/permissions`]: { resource: permission },
  [`${authorization}/denyAssignments`]: { resource: z.never() },
  "Watari.Audit/entries": {
    resource: seen(
      z.strictObject({
        sequence: whole,
        kind: text,
        entryId: text,
        at: time,
        principalId: text.optional(),
        principalName: text.optional(),
        action: text.optional(),
        resourceId: text.optional(),
        correlationId: text.optional(),
        outcome: text.optional(),
        faultCode: text.optional(),
        operationId: text.optional(),
        beforeDigest: text.optional(),
        afterDigest: text.optional(),
        changed: texts.optional(),
        previousHash: text,
        hash: text,
      }),
    ),
  },
  "Watari.Identity/servicePrincipals": {
    resource: seen(z.strictObject({ displayName: text, principalId: text, clientId: text, credentials: z.array(credential) })),
    actions: {
      addCredential: z.strictObject({
        credentialId: text,
        kind: z.enum(["secret", "certificate"]),
        expiresAt: time,
        /** Shown this once. */
        secret: text.optional(),
      }),
      removeCredential: "nothing",
    },
  },
  "Watari.Identity/groups": {
    resource: seen(z.strictObject({ displayName: text, principalId: text, claimValue: text.optional(), members: texts })),
    actions: { addMember: "nothing", removeMember: "nothing" },
  },
  "Watari.Identity/people": {
    resource: seen(
      z.strictObject({
        displayName: text,
        principalId: text,
        userName: text,
        issuer: text,
        subject: text,
        lastSignInAt: time,
        isEnabled: yesOrNo,
        disabledAt: time.optional(),
        groupIds: texts,
        sessionCount: whole,
      }),
    ),
    actions: { disable: "nothing", enable: "nothing", signOut: z.strictObject({ endedCount: whole }) },
  },
};
