// Sizes that a protected item may land with: the one that there is, with what the machine has, and why it may not fit on this host.

import { z } from "zod";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { parseItem } from "./item.ts";
import { hostSize } from "../compute/machine-sizes.ts";
import { sizeName } from "./machine-view.ts";
import { itemType } from "./names.ts";

const type = `${itemType}/targetComputeSizes`;
const mebibyte = 2 ** 20;
const nicsMax = 8;

export function targetSizeResource({ resources }: HubServices): ResourceType {
  const show = async (item: ResourceId): Promise<JsonObject> => {
    const { facts, machineName } = parseItem((await resources.get(item)).properties);
    const host = hostSize();
    const cpuCoresCount = facts?.cpuCount ?? host.numberOfCores;
    const memoryInMB = facts === undefined ? host.memoryInMB : Math.round(facts.memoryBytes / mebibyte);
    const isSmall = cpuCoresCount > host.numberOfCores || memoryInMB > host.memoryInMB;
    const message = `${machineName} has ${cpuCoresCount} processors and ${memoryInMB} MB; this host has ${host.numberOfCores} and ${host.memoryInMB} MB`;
    return {
      id: `${item.text}/targetComputeSizes/${sizeName}`,
      name: sizeName,
      type,
      properties: {
        name: sizeName,
        friendlyName: "as the source",
        cpuCoresCount,
        vCPUsAvailable: host.numberOfCores,
        memoryInGB: memoryInMB / 1024,
        maxDataDiskCount: host.maxDataDiskCount,
        maxNicsCount: nicsMax,
        errors: isSmall ? [{ message, severity: "Warning" }] : [],
        highIopsSupported: "Yes",
        hyperVGenerations: [facts?.firmware === "efi" ? "V2" : "V1"],
      },
    };
  };
  return defineResource({
    type,
    within: "parent",
    properties: z.strictObject({}),
    onPut: "refuse",
    onDelete: "refuse",
    source: { get: async () => undefined, list: async ({ id }) => ({ items: [await show(id)], next: undefined }) },
  });
}
