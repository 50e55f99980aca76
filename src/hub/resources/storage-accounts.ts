// Storage accounts: name, keys at rest under the master key, signatures made with them, and the address of their blob service.

import { z } from "zod";
import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import {
  defineAction,
  noBody,
  defineResource,
  type ActionDefinition,
  type ArmCall,
  type Desired,
  type ResourceType,
} from "../api/resource-type.ts";
import type { WriteOutcome } from "../api/resource-type.ts";
import type { BlobFiles } from "../blob/blob-files.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { storageAccountType, vaultType } from "../private-link/link-target.ts";
import { groupIds } from "../private-link/names.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { connectionResource, linkResourceType, presentConnections, refuseWhileConnected } from "./connections.ts";
import { refuseFields } from "./refused-fields.ts";
import { accountKey, accountKeyBytes, accountNamePattern, findNamed, keyNames } from "./account-keys.ts";
import { storageBlobTypes } from "./storage-blobs.ts";
import { storageSasActions } from "./storage-sas.ts";
import { storageSubscriptionTypes } from "./storage-subscription.ts";

const onlyBlobs = "the hub has a blob service and no other";
const refusedFields = {
  isHnsEnabled: onlyBlobs,
  isSftpEnabled: onlyBlobs,
  isNfsV3Enabled: onlyBlobs,
  azureFilesIdentityBasedAuthentication: onlyBlobs,
  customDomain: "names of the blob service end with the hub's domain",
  immutableStorageWithVersioning: "blobs have no versions here; packs of a vault are immutable by themselves",
  extendedLocation: "an account is where the hub is",
};

const accountShape = z.looseObject({
  publicNetworkAccess: z.enum(["Enabled", "Disabled"]).default("Disabled"),
  allowSharedKeyAccess: z.literal(true, "appliances write with signatures made from the account's keys").nullish(),
  supportsHttpsTrafficOnly: z.literal(true, "blobs are served by HTTPS alone").nullish(),
  minimumTlsVersion: z.enum(["TLS1_0", "TLS1_1", "TLS1_2"], "the blob service speaks TLS 1.2 and newer").nullish(),
  dnsEndpointType: z.literal("Standard").nullish(),
  accessTier: z.enum(["Hot", "Cool", "Cold"]).nullish(),
  encryption: z.looseObject({ keySource: z.literal("Microsoft.Storage", "the hub has no key vault").nullish() }).nullish(),
  networkAcls: z
    .looseObject({
      defaultAction: z.literal("Allow", "set publicNetworkAccess to Disabled in its place").nullish(),
      ipRules: z.array(z.unknown()).max(0, "the blob service has no rules by address; use private endpoints").nullish(),
      virtualNetworkRules: z.array(z.unknown()).max(0, "the blob service has no rules by network; use private endpoints").nullish(),
      resourceAccessRules: z.array(z.unknown()).max(0, "the blob service has no rules by resource").nullish(),
    })
    .nullish(),
  sasPolicy: z.looseObject({ expirationAction: z.literal("Log", "signatures are not held against a period here").nullish() }).nullish(),
  keyPolicy: z.looseObject({ keyExpirationPeriodInDays: z.number().int().min(0).max(3650) }).nullish(),
});
const storedShape = z.looseObject({ keyCreationTime: z.record(z.string(), z.string()).default({}) });
const storageOfShape = z.looseObject({ watariStorageAccountId: z.string().optional() });
const skuShape = z.looseObject({ name: z.string().min(1).max(64) });
/** Accounts for files alone could hold nothing here. */
const kinds = ["StorageV2", "Storage", "BlobStorage", "BlockBlobStorage"];

export interface StorageDependencies {
  readonly resources: ResourceStore;
  readonly secrets: SecretStore;
  readonly random: Random;
  readonly clock: Clock;
  readonly domain: string;
  readonly privateLink: () => PrivateLink;
  readonly blobs: BlobFiles;
  /** Tells the blob service that keys or accounts changed. */
  readonly accountsChanged: () => Promise<void>;
}

export function storageTypes(dependencies: StorageDependencies): readonly ResourceType[] {
  const { resources, secrets, privateLink, domain } = dependencies;
  return [
    defineResource({
      type: storageAccountType,
      within: "resourceGroup",
      properties: accountShape,
      canPatch: true,
      onPut: async (call, desired) => await putAccount(dependencies, call, desired),
      present: async (account) => ({
        ...account.properties,
        creationTime: account.createdAt,
        primaryLocation: account.location ?? "",
        privateEndpointConnections: await presentConnections(resources, account),
      }),
      onDelete: async (_call, account) => {
        await refuseWhileConnected(resources, account);
        await refuseWhileHolding(resources, account);
        await secrets.removeAll(account.id.text);
        await dependencies.blobs.removeAccount(account.id.name);
        return { kind: "done" };
      },
      onChanged: async () => await dependencies.accountsChanged(),
      actions: { ...keyActions(dependencies), ...storageSasActions(dependencies) },
    }),
    connectionResource({ targetType: storageAccountType, resources, privateLink }),
    linkResourceType(storageAccountType, { groupId: groupIds.storage, zone: `privatelink.blob.${domain}` }),
    ...storageBlobTypes(dependencies),
    ...storageSubscriptionTypes(dependencies),
  ];
}

async function putAccount(
  dependencies: StorageDependencies,
  call: ArmCall,
  { properties, envelope, existing }: Desired<z.infer<typeof accountShape>>,
): Promise<WriteOutcome> {
  const { resources, clock, domain } = dependencies;
  const { name } = call.id;
  if (!accountNamePattern.test(name))
    throw new Fault("InputInvalid", "could not create the storage account: its name is not 3 to 24 lower-case letters and digits", {
      evidence: { name },
    });
  refuseFields(`the storage account ${name}`, properties, refusedFields);
  const kind = envelope["kind"] ?? existing?.envelope["kind"] ?? "StorageV2";
  if (typeof kind !== "string" || !kinds.includes(kind))
    throw new Fault("InputInvalid", `could not create the storage account ${name}: ${onlyBlobs}`, {
      evidence: { kind: JSON.stringify(kind), allowed: kinds },
    });
  if (existing === undefined) {
    const taken = await findNamed(resources, name);
    if (taken !== undefined && taken.id.key !== call.id.key) refuseTaken(taken);
  }
  for (const key of keyNames) await accountKey(dependencies, call.id.text, key);
  const sku = parseInput(skuShape, envelope["sku"] ?? existing?.envelope["sku"] ?? { name: "Standard_LRS" }, "the storage account", "sku");
  const nowText = toTimestamp(clock.nowMs());
  const madeAt = storedShape.parse(existing?.properties ?? {}).keyCreationTime;
  return {
    kind: "done",
    envelope: { ...envelope, kind, sku: { ...sku, tier: sku.name.startsWith("Premium") ? "Premium" : "Standard" } },
    properties: {
      accessTier: "Hot",
      minimumTlsVersion: "TLS1_2",
      supportsHttpsTrafficOnly: true,
      ...properties,
      keyCreationTime: Object.fromEntries(keyNames.map((key) => [key, madeAt[key] ?? nowText])),
      primaryEndpoints: { blob: `https://${name}.blob.${domain}/` },
      statusOfPrimary: "available",
    },
  };
}

async function refuseWhileHolding(resources: ResourceStore, account: Resource): Promise<void> {
  for await (const vault of resources.all(vaultType))
    if (storageOfShape.parse(vault.properties).watariStorageAccountId?.toLowerCase() === account.id.key)
      throw new Fault("StateConflict", `could not delete the storage account ${account.id.name}: a vault keeps its packs in it`, {
        evidence: { vault: vault.id.text },
        action: "delete the vault first",
        retry: "never",
      });
}

function keyActions(dependencies: StorageDependencies): Readonly<Record<string, ActionDefinition>> {
  const { resources, secrets, random, clock } = dependencies;
  const show = async (account: Resource): Promise<object> => {
    const madeAt = storedShape.parse((await resources.find(account.id))?.properties ?? {}).keyCreationTime;
    const keys = keyNames.map(async (keyName) => ({
      keyName,
      value: Buffer.from(await accountKey(dependencies, account.id.text, keyName)).toString("base64"),
      permissions: "FULL",
      ...(madeAt[keyName] === undefined ? {} : { creationTime: toTimestamp(fromTimestamp(madeAt[keyName])) }),
    }));
    return { keys: await Promise.all(keys) };
  };
  return {
    listKeys: defineAction({
      body: noBody,
      run: async (_call, _body, account) => ({ kind: "done", body: await show(account) }),
    }),
    regenerateKey: defineAction({
      body: z.strictObject({ keyName: z.enum(keyNames, "there are key1 and key2; Kerberos keys are for file services") }),
      run: async (_call, { keyName }, account) => {
        await secrets.replace(account.id.text, keyName, random.bytes(accountKeyBytes));
        await resources.update(account.id, ({ properties }) => {
          const { keyCreationTime } = storedShape.parse(properties);
          return { properties: { ...properties, keyCreationTime: { ...keyCreationTime, [keyName]: toTimestamp(clock.nowMs()) } } };
        });
        await dependencies.accountsChanged();
        return { kind: "done", body: await show(account) };
      },
    }),
  };
}

function refuseTaken(account: Resource): never {
  throw new Fault("StateConflict", `could not create the storage account ${account.id.name}: the name is taken`, {
    evidence: { takenBy: account.id.text },
    action: "choose another name",
    retry: "never",
  });
}
