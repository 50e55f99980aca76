// Mappings of protection containers as they are stored: a policy that is offered for the machines of one appliance.

import { z } from "zod";
import type { ResourceId } from "../api/resource-id.ts";
import type { HubServices } from "../services.ts";
import { mappingType } from "./names.ts";

export const azureTarget = "Microsoft Azure";
const mappingsMax = 10_000;

export const storedMappingShape = z.object({ policyId: z.string(), targetProtectionContainerId: z.string() });
export type StoredMapping = z.infer<typeof storedMappingShape>;

/** Every mapping at any depth under a vault, a fabric or a container. */
export async function mappingsOf(
  { resources }: Pick<HubServices, "resources">,
  under: ResourceId,
): Promise<readonly (StoredMapping & { readonly id: string })[]> {
  const rows = await resources.list({ under: under.text, isDeep: true, type: mappingType, countMax: mappingsMax });
  return rows.map((row) => ({ ...storedMappingShape.parse(row.properties), id: row.id.text }));
}
