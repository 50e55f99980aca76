// The blob service of an account and its containers, as the management API sees them: the same folders that the blob front serves.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { BlobFiles } from "../blob/blob-files.ts";
import { containerPattern } from "../blob/blob-listener.ts";
import type { JsonObject, ResourceStore } from "../db/resources.ts";
import { storageAccountType, vaultType } from "../private-link/link-target.ts";
import { refuseFields } from "./refused-fields.ts";
import { requireSame } from "./same-as-present.ts";

const serviceType = `${storageAccountType}/blobServices`;
const containerType = `${serviceType}/containers`;
const serviceName = "default";

const notKept = "a blob that is deleted is gone, and none has versions";
const refusedOfServices = {
  isVersioningEnabled: notKept,
  automaticSnapshotPolicyEnabled: notKept,
  changeFeed: "changes of blobs are not written down",
  restorePolicy: notKept,
  deleteRetentionPolicy: notKept,
  containerDeleteRetentionPolicy: notKept,
  lastAccessTimeTrackingPolicy: "reads of blobs are not written down",
  cors: "the blob service answers programs, not pages of other sites",
  staticWebsite: "the blob service answers programs, not browsers",
};
const refusedOfContainers = {
  enableNfsV3AllSquash: "there is no NFS",
  enableNfsV3RootSquash: "there is no NFS",
  immutableStorageWithVersioning: notKept,
  denyEncryptionScopeOverride: "there are no encryption scopes",
};
const serviceShape = z.looseObject({ defaultServiceVersion: z.string().max(20).nullish() });
const containerShape = z.looseObject({
  publicAccess: z.literal("None", "blobs are read with a signature or a key").nullish(),
  metadata: z.record(z.string().max(200), z.string().max(4000)).nullish(),
  defaultEncryptionScope: z.literal("$account-encryption-key", "there are no encryption scopes").nullish(),
});
const storedContainerShape = z.looseObject({ metadata: z.record(z.string(), z.string()).default({}) });
const vaultShape = z.looseObject({ watariStorageAccountId: z.string().optional(), watariContainer: z.string().optional() });

interface Dependencies {
  readonly resources: ResourceStore;
  readonly blobs: BlobFiles;
}

export function storageBlobTypes(dependencies: Dependencies): readonly ResourceType[] {
  return [serviceResource(dependencies), containerResource(dependencies)];
}

/** There from the account's first moment, as in Azure; what was put is what is answered. */
function serviceResource({ resources }: Dependencies): ResourceType {
  const show = async (account: ResourceId): Promise<JsonObject | undefined> => {
    const row = await resources.find(account);
    if (row === undefined) return undefined;
    const id = `${row.id.text}/blobServices/${serviceName}`;
    const stored = await resources.find(id);
    const properties = {
      cors: { corsRules: [] },
      deleteRetentionPolicy: { allowPermanentDelete: false, enabled: false },
      containerDeleteRetentionPolicy: { enabled: false },
      isVersioningEnabled: false,
      changeFeed: { enabled: false },
      ...stored?.properties,
    };
    return {
      id,
      name: serviceName,
      type: serviceType,
      ...(stored === undefined ? {} : { etag: stored.etag }),
      sku: row.envelope["sku"],
      properties,
    };
  };
  return defineResource({
    type: serviceType,
    within: "parent",
    properties: serviceShape,
    source: {
      get: async ({ id }) => (id.name.toLowerCase() === serviceName ? await show(parseResourceId(id.parentText)) : undefined),
      list: async ({ id }) => {
        const shown = await show(id);
        return { items: shown === undefined ? [] : [shown], next: undefined };
      },
    },
    onPut: async (call, { properties }) => {
      if (call.id.name.toLowerCase() !== serviceName)
        throw new Fault("InputInvalid", `could not save ${call.id.name}: the blob service of an account is named ${serviceName}`);
      refuseFields("the blob service", properties, refusedOfServices);
      await resources.save({ id: call.id, properties });
      return { kind: "answered", body: (await show(parseResourceId(call.id.parentText))) ?? {} };
    },
  });
}

function containerResource(dependencies: Dependencies): ResourceType {
  const { resources, blobs } = dependencies;
  const get = async ({ id }: ArmCall): Promise<JsonObject | undefined> => await showContainer(dependencies, id);
  return defineResource({
    type: containerType,
    within: "parent",
    properties: containerShape,
    canPatch: true,
    source: {
      get,
      list: async ({ id }, { after = "", countMax }) => {
        const account = id.names[0] ?? "";
        const names = (await blobs.containers(account)).filter((name) => name > after);
        const items: JsonObject[] = [];
        for (const name of names.slice(0, countMax)) {
          const shown = await showContainer(dependencies, parseResourceId(`${id.text}/containers/${name}`));
          if (shown !== undefined) items.push(shown); // Undefined: removed since.
        }
        return { items, next: names.length > countMax ? names[countMax - 1] : undefined };
      },
    },
    onPut: async (call, { properties }) => {
      const { name } = call.id;
      if (!containerPattern.test(name))
        throw new Fault("InputInvalid", "could not create the container: its name is not 3 to 63 lower-case letters, digits and hyphens", {
          evidence: { name },
        });
      refuseFields(`the container ${name}`, properties, refusedOfContainers);
      const { metadata: _metadata, ...others } = properties;
      const present = z.record(z.string(), z.unknown()).parse((await get(call))?.["properties"] ?? {});
      requireSame(`the container ${name}`, others, { publicAccess: "None", ...present });
      const made = await blobs.createContainer(call.id.names[0] ?? "", name);
      await resources.save({ id: call.id, properties: { metadata: properties.metadata ?? {} } });
      return { kind: "answered", isNew: made === "created", body: (await get(call)) ?? {} };
    },
    onDelete: async (call) => {
      await refuseVaultsOwn(resources, call.id);
      await blobs.removeContainer(call.id.names[0] ?? "", call.id.name);
      return { kind: "done" };
    },
  });
}

async function showContainer({ resources, blobs }: Dependencies, id: ResourceId): Promise<JsonObject | undefined> {
  const [account = ""] = id.names;
  // A name of another form is no folder here, whatever it would lead to.
  const changedMs = containerPattern.test(id.name) ? await blobs.containerTimeMs(account, id.name) : undefined;
  if (changedMs === undefined) return undefined;
  const row = await resources.find(id);
  const { metadata } = storedContainerShape.parse(row?.properties ?? {});
  return {
    id: id.text,
    name: id.name,
    type: containerType,
    ...(row === undefined ? {} : { etag: row.etag }),
    properties: {
      publicAccess: "None",
      ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
      lastModifiedTime: toTimestamp(changedMs),
      leaseState: "Available",
      leaseStatus: "Unlocked",
      hasImmutabilityPolicy: false,
      hasLegalHold: false,
      defaultEncryptionScope: "$account-encryption-key",
      denyEncryptionScopeOverride: false,
      deleted: false,
    },
  };
}

/** A vault's packs are its recovery points. */
async function refuseVaultsOwn(resources: ResourceStore, container: ResourceId): Promise<void> {
  const accountKey = parseResourceId(container.parentText).parentKey;
  for await (const vault of resources.all(vaultType)) {
    const { watariStorageAccountId, watariContainer } = vaultShape.parse(vault.properties);
    if (watariStorageAccountId?.toLowerCase() !== accountKey || watariContainer !== container.name.toLowerCase()) continue;
    throw new Fault("StateConflict", `could not delete the container ${container.name}: a vault keeps its packs in it`, {
      evidence: { vault: vault.id.text },
      action: "delete the vault first",
      retry: "never",
    });
  }
}
