// The actions of a protected item on the way back after its commit.

import { z } from "zod";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import { machineOf, startJob } from "./item-start.ts";
import { parseItem } from "./item.ts";
import { requireGoingBack, reverseKind } from "./reverse-point.ts";
import type { ReplicationFront } from "./world.ts";

/** Of a final point the landed machine is switched off and stays so. */
const pointBody = z.strictObject({
  properties: z.strictObject({ isFinal: z.boolean().default(false) }).default({ isFinal: false }),
});

export function reverseActions(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  return {
    /** What the landed machine has written becomes a point on the chain of its source. */
    reversePoint: defineAction({
      body: pointBody,
      isLong: true,
      run: async (call, { properties: { isFinal } }, resource) => {
        const item = parseItem(resource.properties);
        const parameters = { ...requireGoingBack(item), machineId: machineOf(item).machineId, isFinal };
        return await startJob(front, call, item, { kind: reverseKind, parameters, change: { busyWith: reverseKind } });
      },
    }),
  };
}
