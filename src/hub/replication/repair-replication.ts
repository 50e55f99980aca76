// Job RepairReplication, the resynchronisation: the agent reads the whole source again and repairs what differs in the replica.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { parseMachineId } from "../../contract/ids.ts";
import { defineJob, stored, type JobKind } from "../jobs/job.ts";
import { giveOrder } from "./give-order.ts";
import { faultsOf, patchItem } from "./item.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

const parametersShape = z.object({ itemId: z.string(), applianceId: z.string(), machineId: z.string() });

interface State {
  readonly startedAt?: string;
  readonly repairedBlockCount?: number;
  /** The point that holds what was repaired. */
  readonly pointId?: string;
}

export function defineRepairReplication(world: Replication): JobKind {
  const { services, limits } = world;
  return defineJob<z.infer<typeof parametersShape>, State>({
    kind: "RepairReplication",
    title: "resynchronize",
    parameters: parametersShape,
    steps: [
      {
        name: "compare",
        title: "compare the whole source with the replica and repair what differs",
        run: async (context) => {
          const { applianceId } = context.parameters;
          const machineId = parseMachineId(context.parameters.machineId);
          if (context.state.startedAt === undefined) await context.save({ startedAt: toTimestamp(services.clock.nowMs()) });
          const wish = { applianceId, label: "verify", waitSecondsMax: limits.longOrderSeconds, pollMs: limits.pollMs };
          const result = await giveOrder(services, context, { ...wish, draft: { kind: "verify", machineId } });
          return {
            repairedBlockCount: result.repairedBlockCount ?? 0,
            ...(result.pointId === undefined ? {} : { pointId: result.pointId }),
          };
        },
        undo: "it only reads the source, and what it repaired in the replica is right",
      },
    ],
    settle: async (db, { parameters: { itemId }, state, outcome }) => {
      await patchItem(db, itemId, {
        busyWith: undefined,
        faults: faultsOf(outcome),
        ...(outcome.kind === "succeeded"
          ? {
              resync: {
                startedAt: stored(state, "startedAt"),
                endedAt: toTimestamp(services.clock.nowMs()),
                repairedBlockCount: stored(state, "repairedBlockCount"),
              },
            }
          : {}),
      });
      return await presentAfter(world, db, itemId);
    },
  });
}
