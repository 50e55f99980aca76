// What is asked of the vaults' provider before a vault is there: free names and the DNS zones that endpoints need.

import { z } from "zod";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceStore } from "../db/resources.ts";
import { vaultType } from "../private-link/link-target.ts";
import { groupIds } from "../private-link/names.ts";
import { absentType } from "./plain-types.ts";

const locationType = "Microsoft.RecoveryServices/locations";
const namePattern = /^[A-Za-z][A-Za-z0-9-]{1,49}$/;
const nameBody = z.strictObject({ type: z.string().max(200), name: z.string().max(260) });
const capabilitiesBody = z.strictObject({
  type: z.string().max(200),
  properties: z
    .strictObject({
      dnsZones: z
        .array(z.strictObject({ subResource: z.string().max(100) }))
        .max(20)
        .optional(),
    })
    .optional(),
});

const deleted = {
  reason: "a deleted vault is gone at once with all that it held",
  action: "restore a backup of the hub that was made before (watari hub restore)",
};

export function vaultLocationTypes({
  resources,
  domain,
}: {
  readonly resources: ResourceStore;
  readonly domain: string;
}): readonly ResourceType[] {
  const nothing = { properties: z.record(z.string(), z.unknown()), list: async () => ({ items: [], next: undefined }) };
  return [
    defineResource({
      type: locationType,
      within: "anything",
      properties: nothing.properties,
      source: { get: async ({ id }) => ({ id: id.text, name: id.name, type: locationType, properties: {} }), list: nothing.list },
      actions: {
        checkNameAvailability: defineAction({
          body: nameBody,
          isRead: true,
          run: async ({ id }, { type, name }) => {
            const isVault = type.toLowerCase() === vaultType.toLowerCase();
            const taken = await resources.find(`${id.parentText}/providers/${vaultType}/${name}`);
            return { kind: "done", body: isVault ? answerName(name, taken !== undefined) : unknownType(type) };
          },
        }),
        capabilities: defineAction({
          body: capabilitiesBody,
          isRead: true,
          run: async (_call, { type, properties }) => ({
            kind: "done",
            body: { type, properties: { dnsZones: (properties?.dnsZones ?? []).map(({ subResource }) => zonesOf(subResource, domain)) } },
          }),
        }),
      },
    }),
    absentType(`${locationType}/deletedVaults`, deleted, ["undelete"]),
    absentType(`${locationType}/deletedVaults/operations`, deleted),
  ];
}

function answerName(name: string, isTaken: boolean): object {
  if (isTaken) return { nameAvailable: false, reason: "AlreadyExists", message: `the resource group has a vault ${name}` };
  if (namePattern.test(name)) return { nameAvailable: true };
  return { nameAvailable: false, reason: "Invalid", message: "a vault's name has 2 to 50 letters, digits and hyphens, a letter first" };
}

function unknownType(type: string): object {
  return { nameAvailable: false, reason: "Invalid", message: `${type} is not ${vaultType}` };
}

function zonesOf(subResource: string, domain: string): object {
  const isOurs = subResource.toLowerCase() === groupIds.vault.toLowerCase();
  return { subResource, requiredZoneNames: isOurs ? [`privatelink.siterecovery.${domain}`] : [] };
}
