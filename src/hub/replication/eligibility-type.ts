// Whether a landed machine could be replicated again: a question that Azure's clients ask of any machine. Here the answer is no, with the reason.

import { z } from "zod";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { machineType } from "./names.ts";

const type = "Microsoft.RecoveryServices/replicationEligibilityResults";
const name = "default";

export function eligibilityResource({ resources }: HubServices): ResourceType {
  const show = async (machine: ResourceId, clientRequestId: string): Promise<JsonObject | undefined> => {
    if (machine.type !== machineType || (await resources.find(machine)) === undefined) return undefined;
    const error = {
      code: "MachineHasLanded",
      message: `${machine.name} is where it was moved to: machines are moved one way`,
      possibleCauses: "the machine was landed by a migration or by its test",
      recommendedAction: "none is needed; before the commit of a migration, failoverCancel goes back to the source",
      status: "Ineligible",
    };
    return { id: `${machine.text}/providers/${type}/${name}`, name, type, properties: { clientRequestId, errors: [error] } };
  };
  return defineResource({
    type,
    within: "anything",
    properties: z.strictObject({}),
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async ({ id, correlationId }) =>
        id.name.toLowerCase() === name ? await show(parseResourceId(id.parentText), correlationId) : undefined,
      list: async ({ id, correlationId }) => {
        const shown = await show(id, correlationId);
        return { items: shown === undefined ? [] : [shown], next: undefined };
      },
    },
  });
}
