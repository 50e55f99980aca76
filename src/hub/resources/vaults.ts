// Recovery Services vaults: identity, key at rest, storage account; registration keys and DNS settings as actions.

import { z } from "zod";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseVaultId } from "../../contract/ids.ts";
import { parseInput } from "../api/arm-errors.ts";
import {
  defineAction,
  defineResource,
  noBody,
  type ArmCall,
  type Desired,
  type ResourceType,
  type WriteOutcome,
} from "../api/resource-type.ts";
import type { Principals } from "../db/principals.ts";
import type { JsonObject, Resource, ResourceStore } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { keyNameOf } from "../db/vault-keys.ts";
import { storageAccountType, vaultType } from "../private-link/link-target.ts";
import { groupIds } from "../private-link/names.ts";
import { privateServices } from "../../contract/appliance-protocol.ts";
import { presentConnections, refuseWhileConnected } from "./connections.ts";
import { presentDnsSettings, type DnsSettings } from "./dns-settings.ts";
import type { RegistrationKeyMaker } from "./registration-key.ts";

export interface VaultDependencies {
  readonly resources: ResourceStore;
  readonly secrets: SecretStore;
  readonly principals: Principals;
  readonly random: Random;
  readonly tenantId: string;
  readonly dnsSettings: DnsSettings;
  readonly registrationKeys: RegistrationKeyMaker;
  /** Names what still needs the vault, for example appliances and machines; empty: it may go. */
  readonly usesOf: (vault: Resource) => Promise<readonly string[]>;
  /** Removes what the catalogue knows of the vault: appliances, orders, points. Repeatable. */
  readonly forget: (vault: Resource) => Promise<void>;
}

const vaultShape = z.looseObject({
  publicNetworkAccess: z.enum(["Enabled", "Disabled"]).optional(),
  watariStorageAccountId: z.string().max(2048).optional(),
  watariContainer: z
    .string()
    .regex(/^[a-z0-9](-?[a-z0-9]){2,62}$/)
    .optional(),
});

/** Stored as sent; the service has one kind of vault. */
const skuShape = z.looseObject({ name: z.string().min(1).max(64), tier: z.string().max(64).optional() });

/** Longest life of a registration key. */
export const keySecondsMax = 5 * 24 * 3600;
/** Body of the action that makes a registration key. */
const keyWishShape = z.strictObject({ validSeconds: z.number().int().min(1).max(keySecondsMax).optional() });
export type KeyWish = z.infer<typeof keyWishShape>;

/** What the hub knows of a stored vault. */
export const storedVaultShape = z.looseObject({
  watariVaultId: z.string().transform(parseVaultId),
  watariVaultKeyId: z.string(),
  watariPrincipalId: z.string(),
  watariStorageAccountId: z.string().optional(),
  watariContainer: z.string(),
});

const identityShape = z.object({ principalId: z.uuid(), clientId: z.uuid(), vaultId: z.uuid(), keyId: z.uuid() });
const vaultKeyBytes = 32;

export function vaultTypes(dependencies: VaultDependencies): readonly ResourceType[] {
  const { resources, dnsSettings } = dependencies;
  return [
    defineResource({
      type: vaultType,
      within: "resourceGroup",
      properties: vaultShape,
      canPatch: true,
      onPut: async (call, desired) => await putVault(dependencies, call, desired),
      onDelete: async (_call, vault) => await deleteVault(dependencies, vault),
      present: async (vault) => ({
        ...vault.properties,
        privateEndpointConnections: await presentConnections(resources, vault),
        privateEndpointStateForSiteRecovery: (await presentConnections(resources, vault)).length > 0 ? "Enabled" : "None",
      }),
      actions: {
        registrationKeys: defineAction({
          body: keyWishShape,
          run: async (_call, wish, vault) => ({ kind: "done", body: await dependencies.registrationKeys.make(vault, wish) }),
        }),
        dnsSettings: defineAction({
          body: noBody,
          isRead: true,
          run: async (_call, _body, vault) => ({ kind: "done", body: presentDnsSettings(await dnsSettings.ofVault(vault)) }),
        }),
      },
    }),
    linkResourceType(resources),
  ];
}

async function putVault(
  dependencies: VaultDependencies,
  call: ArmCall,
  desired: Desired<z.infer<typeof vaultShape>>,
): Promise<WriteOutcome> {
  const { secrets, principals, random, resources, tenantId } = dependencies;
  const existing = desired.existing === undefined ? undefined : storedVaultShape.parse(desired.existing.properties);
  // Clients that do not know the extension's properties send a PUT without them; they stay as they are.
  const storageId = desired.properties.watariStorageAccountId ?? existing?.watariStorageAccountId;
  if (storageId !== undefined) await requireStorage(resources, storageId);
  if (existing?.watariStorageAccountId !== undefined && existing.watariStorageAccountId.toLowerCase() !== storageId?.toLowerCase())
    throw new Fault("StateConflict", `could not change the vault ${call.id.name}: its storage account is fixed once set`, {
      evidence: { storageAccount: existing.watariStorageAccountId },
      retry: "never",
    });
  // One secret holds the ids, so that a create that was cut and repeated makes the same ones.
  const make = (): Uint8Array =>
    Buffer.from(JSON.stringify({ principalId: random.uuid(), clientId: random.uuid(), vaultId: random.uuid(), keyId: random.uuid() }));
  const ids = identityShape.parse(JSON.parse(Buffer.from(await secrets.getOrCreate(call.id.text, "identity", make)).toString("utf8")));
  // Only here: the first key of a vault that has newer ones may be destroyed, and must not come back.
  if (desired.existing === undefined) await secrets.getOrCreate(call.id.text, keyNameOf(1), () => random.bytes(vaultKeyBytes));
  await principals.add({ principalId: ids.principalId, clientId: ids.clientId, kind: "vaultIdentity", name: call.id.name }, undefined);
  return {
    kind: "done",
    envelope: {
      ...desired.envelope,
      sku: parseInput(skuShape, desired.envelope["sku"] ?? { name: "Standard" }, "the vault", "sku"),
      identity: { type: "SystemAssigned", principalId: ids.principalId, tenantId },
    },
    properties: {
      ...desired.properties,
      publicNetworkAccess: desired.properties.publicNetworkAccess ?? desired.existing?.properties["publicNetworkAccess"] ?? "Disabled",
      ...(storageId === undefined ? {} : { watariStorageAccountId: storageId }),
      watariContainer: existing?.watariContainer ?? desired.properties.watariContainer ?? `watari-${ids.vaultId}`,
      watariVaultId: ids.vaultId,
      watariVaultKeyId: ids.keyId,
      watariPrincipalId: ids.principalId,
    },
  };
}

async function deleteVault(dependencies: VaultDependencies, vault: Resource): Promise<{ readonly kind: "done" }> {
  await refuseWhileConnected(dependencies.resources, vault);
  const uses = await dependencies.usesOf(vault);
  if (uses.length > 0)
    throw new Fault("StateConflict", `could not delete the vault ${vault.id.name}: it is in use`, {
      evidence: { uses },
      action: "complete or stop the replication of its machines first",
      retry: "never",
    });
  await dependencies.forget(vault);
  await dependencies.principals.remove(storedVaultShape.parse(vault.properties).watariPrincipalId);
  await dependencies.secrets.removeAll(vault.id.text);
  return { kind: "done" };
}

async function requireStorage(resources: ResourceStore, storageId: string): Promise<void> {
  const account = await resources.get(storageId);
  if (account.id.type.toLowerCase() === storageAccountType.toLowerCase()) return;
  throw new Fault("InputInvalid", "could not set the vault's storage account: the id is of another resource type", {
    evidence: { resourceId: storageId, resourceType: account.id.type },
  });
}

function linkResourceType(resources: ResourceStore): ResourceType {
  const present = (vaultId: string): JsonObject => ({
    id: `${vaultId}/privateLinkResources/${groupIds.vault}`,
    name: groupIds.vault,
    type: `${vaultType}/privateLinkResources`,
    properties: { groupId: groupIds.vault, requiredMembers: [...privateServices], requiredZoneNames: ["privatelink.siterecovery"] },
  });
  return defineResource({
    type: `${vaultType}/privateLinkResources`,
    within: "parent",
    properties: z.looseObject({}),
    source: {
      get: async (call) => {
        const vault = await resources.get(call.id.parentText);
        return call.id.name.toLowerCase() === groupIds.vault.toLowerCase() ? present(vault.id.text) : undefined;
      },
      list: async (call) => ({ items: [present((await resources.get(call.id)).id.text)], next: undefined }),
    },
  });
}
