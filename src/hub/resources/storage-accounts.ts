// Storage accounts: name, keys at rest under the master key, and the address of their blob service.

import { z } from "zod";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { Resource, ResourceStore } from "../db/resources.ts";
import type { SecretStore } from "../db/secrets.ts";
import { storageAccountType, vaultType } from "../private-link/link-target.ts";
import { refuseWhileConnected } from "./connections.ts";

const accountNamePattern = /^[a-z0-9]{3,24}$/;
const accountKeyBytes = 64;
const keyNames = ["key1", "key2"] as const;

const accountShape = z.looseObject({
  publicNetworkAccess: z.enum(["Enabled", "Disabled"]).default("Disabled"),
});
const storageOfShape = z.looseObject({ watariStorageAccountId: z.string().optional() });

export interface StorageDependencies {
  readonly resources: ResourceStore;
  readonly secrets: SecretStore;
  readonly random: Random;
  readonly domain: string;
  /** Removes the account's blobs; repeatable. */
  readonly removeBlobs: (accountName: string) => Promise<void>;
}

export function storageTypes(dependencies: StorageDependencies): readonly ResourceType[] {
  const { resources, secrets, random, domain } = dependencies;
  const keyOf = async (
    account: Resource,
    name: (typeof keyNames)[number],
  ): Promise<{ keyName: string; value: string; permissions: string }> => ({
    keyName: name,
    value: Buffer.from(await accountKey(dependencies, account.id.text, name)).toString("base64"),
    permissions: "FULL",
  });
  return [
    defineResource({
      type: storageAccountType,
      within: "resourceGroup",
      properties: accountShape,
      canPatch: true,
      onPut: async (call, desired) => {
        if (!accountNamePattern.test(call.id.name))
          throw new Fault("InputInvalid", "could not create the storage account: its name is not 3 to 24 lower-case letters and digits", {
            evidence: { name: call.id.name },
          });
        if (desired.existing === undefined) await refuseTakenName(resources, call.id.name, call.id.key);
        for (const name of keyNames) await accountKey(dependencies, call.id.text, name);
        const primaryEndpoints = { blob: `https://${call.id.name}.blob.${domain}/` };
        return { kind: "done", properties: { ...desired.properties, primaryEndpoints, statusOfPrimary: "available" } };
      },
      onDelete: async (_call, account) => {
        await refuseWhileConnected(resources, account);
        for await (const vault of resources.all(vaultType))
          if (storageOfShape.parse(vault.properties).watariStorageAccountId?.toLowerCase() === account.id.key)
            throw new Fault("StateConflict", `could not delete the storage account ${account.id.name}: a vault keeps its packs in it`, {
              evidence: { vault: vault.id.text },
              action: "delete the vault first",
              retry: "never",
            });
        await dependencies.removeBlobs(account.id.name);
        await secrets.removeAll(account.id.text);
        return { kind: "done" };
      },
      actions: {
        listKeys: defineAction({
          body: z.looseObject({}),
          run: async (_call, _body, account) => ({
            kind: "done",
            body: { keys: await Promise.all(keyNames.map((name) => keyOf(account, name))) },
          }),
        }),
        regenerateKey: defineAction({
          body: z.looseObject({ keyName: z.enum(keyNames) }),
          run: async (_call, { keyName }, account) => {
            await secrets.replace(account.id.text, keyName, random.bytes(accountKeyBytes));
            return { kind: "done", body: { keys: await Promise.all(keyNames.map((name) => keyOf(account, name))) } };
          },
        }),
      },
    }),
  ];
}

/** A key of the account, made at its first use. */
export async function accountKey(
  dependencies: { readonly secrets: SecretStore; readonly random: Random },
  accountId: string,
  name: (typeof keyNames)[number],
): Promise<Uint8Array> {
  return await dependencies.secrets.getOrCreate(accountId, name, () => dependencies.random.bytes(accountKeyBytes));
}

/** Account names are DNS names, so one hub has each once. */
async function refuseTakenName(resources: ResourceStore, name: string, key: string): Promise<void> {
  const others = await resources.having({ type: storageAccountType, property: "name", value: name });
  const taken = others.find((account) => account.id.key !== key);
  if (taken === undefined) return;
  throw new Fault("StateConflict", `could not create the storage account ${name}: the name is taken`, {
    evidence: { takenBy: taken.id.text },
    action: "choose another name",
    retry: "never",
  });
}
