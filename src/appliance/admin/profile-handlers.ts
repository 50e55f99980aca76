// Answers of the admin socket about profiles: what a machine writes over a while.

import type { AdminRequest, AdminResponse } from "../../contract/appliance-admin.ts";
import { fromReport } from "../../contract/errors.ts";
import { parseMachineId, parseOrderId } from "../../contract/ids.ts";
import { systemRandom } from "../../base/random.ts";
import type { AgentOrders } from "../control/agent-orders.ts";
import { requireProfiled } from "../profile/require-profiled.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";

type Route = "startProfile" | "profileResult";
type ProfileHandlers = { readonly [Name in Route]: (request: AdminRequest<Name>) => Promise<AdminResponse<Name>> };

export function createProfileHandlers(parts: {
  readonly orders: Pick<AgentOrders, "give" | "resultOf">;
  readonly registry: Pick<MachineRegistry, "get">;
}): ProfileHandlers {
  const { orders, registry } = parts;
  return {
    startProfile: async ({ machineId: given, seconds }) => {
      const machineId = parseMachineId(given);
      requireProfiled(registry.get(machineId));
      const orderId = parseOrderId(systemRandom.uuid());
      orders.give(machineId, { kind: "profile", orderId, seconds });
      return await Promise.resolve({ orderId });
    },
    profileResult: async ({ orderId }) => {
      const result = orders.resultOf(orderId);
      if (result?.outcome === "failed") throw fromReport(result.fault);
      return await Promise.resolve(result?.profile === undefined ? {} : { profile: result.profile });
    },
  };
}
