// Job RefreshProvider: an appliance looks at its vCenters anew, for consistency checks of fabrics and refreshes of providers.

import { z } from "zod";
import type { ActionOutcome, ArmCall } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { defineJob, type JobKind } from "../jobs/job.ts";
import { giveOrder } from "./give-order.ts";
import { applianceOf, vaultOf } from "./names.ts";
import type { Replication, ReplicationFront } from "./world.ts";

/** `answer` is what the caller gets at the end: the resource as it was at the call, which the look at the site does not change. */
const parametersShape = z.object({ applianceId: z.string(), answer: z.record(z.string(), z.unknown()) });
type Parameters = z.infer<typeof parametersShape>;

export function defineRefreshProvider(world: Replication): JobKind {
  return defineJob<Parameters, object>({
    kind: "RefreshProvider",
    title: "look at the site anew",
    parameters: parametersShape,
    steps: [
      {
        name: "discover",
        title: "let the appliance read its vCenters",
        run: async (context) => {
          await giveOrder(world.services, context, {
            applianceId: context.parameters.applianceId,
            draft: { kind: "discover" },
            label: "discover",
            waitSecondsMax: world.limits.shortOrderSeconds,
            pollMs: world.limits.pollMs,
          });
          return {};
        },
        undo: "a look at the site changes nothing there",
      },
    ],
    settle: async (_db, { parameters, outcome }) => (outcome.kind === "succeeded" ? parameters.answer : undefined),
    restart: async () => undefined,
  });
}

/** One look at a time for each fabric; StateConflict for a second one meanwhile. */
export async function beginRefresh(
  { engine }: ReplicationFront,
  call: ArmCall,
  show: () => Promise<JsonObject | undefined>,
): Promise<ActionOutcome> {
  const { id, caller } = call;
  const applianceId = applianceOf(id);
  const target = { scope: vaultOf(id).key, targetId: id.text, targetName: id.name, lockKey: `refresh:${applianceId}`, actor: caller.name };
  const parameters = { applianceId, answer: (await show()) ?? {} };
  return { kind: "accepted", operationId: await engine.submit({ kind: "RefreshProvider", ...target, parameters }) };
}
