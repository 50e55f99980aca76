// Private DNS zones, their links to networks and their A records; the landing zone's resolver follows them.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceStore } from "../db/resources.ts";
import { recordType, zoneLinkType, zoneType } from "../private-link/endpoint-plan.ts";
import type { PrivateLink } from "../private-link/private-link.ts";

const zoneNamePattern = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i;
const recordNamePattern = /^(@|[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*)$/i;

const linkShape = z.looseObject({
  virtualNetwork: z.looseObject({ id: z.string().max(2048) }),
  registrationEnabled: z.boolean().default(false),
});
const recordShape = z.looseObject({
  ttl: z.number().int().min(1).max(2_147_483_647).default(10),
  metadata: z.record(z.string().max(80), z.string().max(2048)).optional(),
  aRecords: z
    .array(z.object({ ipv4Address: z.ipv4() }))
    .min(1)
    .max(32),
});

export function dnsTypes(dependencies: {
  readonly resources: ResourceStore;
  readonly privateLink: () => PrivateLink;
}): readonly ResourceType[] {
  const { resources, privateLink } = dependencies;
  const onChanged = async (): Promise<void> => await privateLink().reconcile();
  return [
    defineResource({
      type: zoneType,
      within: "resourceGroup",
      properties: z.looseObject({}),
      canPatch: true,
      onPut: async (call) => {
        requireName(zoneNamePattern, call.id.name);
        return { kind: "done", properties: {} };
      },
      onChanged,
    }),
    defineResource({
      type: zoneLinkType,
      within: "parent",
      properties: linkShape,
      onPut: async (_call, desired) => {
        const network = await resources.get(desired.properties.virtualNetwork.id);
        const properties = { ...desired.properties, virtualNetwork: { id: network.id.text }, virtualNetworkLinkState: "Completed" };
        return { kind: "done", properties };
      },
      onChanged,
    }),
    defineResource({
      type: recordType,
      within: "parent",
      properties: recordShape,
      onPut: async (call, desired) => {
        requireName(recordNamePattern, call.id.name);
        return { kind: "done", properties: desired.properties };
      },
      onChanged,
    }),
  ];
}

function requireName(pattern: RegExp, name: string): void {
  if (!pattern.test(name) || name.length > 253)
    throw new Fault("InputInvalid", "could not save the DNS name: it is not a host name", { evidence: { name: name.slice(0, 300) } });
}
