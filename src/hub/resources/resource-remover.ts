// Deletes resources for jobs through the router itself: every rule, hook and audit entry of a call, without asking for rights again.

import { createArmRouter } from "../api/arm-router.ts";
import type { ArmRouterDependencies } from "../api/arm-call.ts";
import { newestVersionOf } from "../api/type-dialect.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { ResourceRemover } from "./group-removal.ts";

export function createRemover(
  hub: () => Omit<ArmRouterDependencies, "authorize">,
  tools: { readonly log: Log; readonly random: Random },
): ResourceRemover {
  return {
    remove: async (id, caller, signal) => {
      const router = createArmRouter({ ...hub(), authorize: async () => undefined });
      const correlationId = tools.random.uuid();
      const answer = await router({
        method: "DELETE",
        path: id,
        query: { "api-version": newestVersionOf(parseResourceId(id).type) },
        ifMatch: undefined,
        ifNoneMatch: undefined,
        body: undefined,
        caller,
        correlationId,
        origin: "",
        log: tools.log.with({ correlationId }),
        signal,
      });
      if (answer.status !== 202) return { kind: "done" };
      const operationId = answer.headers?.["azure-asyncoperation"]?.split("?", 1)[0]?.split("/").at(-1);
      if (operationId === undefined) throw new Error("assertion failed: a removal that goes on names its operation");
      return { kind: "accepted", operationId };
    },
  };
}
