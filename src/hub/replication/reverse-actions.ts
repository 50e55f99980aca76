// The actions of a protected item on the way back after its commit.

import { z } from "zod";
import { defineAction, noBody, type ActionDefinition } from "../api/resource-type.ts";
import { machineOf, startJob } from "./item-start.ts";
import { parseItem } from "./item.ts";
import { requireFinal, reverseDeltaKind } from "./reverse-delta.ts";
import { reverseEndKind, writtenDisksShape } from "./reverse-end.ts";
import { requireGoingBack, reverseKind } from "./reverse-point.ts";
import type { ReplicationFront } from "./world.ts";

/** Of a final point the landed machine is switched off and stays so. */
const pointBody = z.strictObject({
  properties: z.strictObject({ isFinal: z.boolean().default(false) }).default({ isFinal: false }),
});

/** Ours: who has the machine then. Of the source: the answer of `reverse apply`. */
const endBody = z.strictObject({
  properties: z.discriminatedUnion("side", [
    z.strictObject({ side: z.literal("source"), disks: writtenDisksShape }),
    z.strictObject({ side: z.literal("landed") }),
  ]),
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
    /** What the source's disks lack becomes a signed file in the export folder. */
    reverseDelta: defineAction({
      body: noBody,
      isLong: true,
      run: async (call, _body, resource) => {
        const item = parseItem(resource.properties);
        const change = { busyWith: reverseDeltaKind };
        return await startJob(front, call, item, { kind: reverseDeltaKind, parameters: requireFinal(item), change });
      },
    }),
    reverseEnd: defineAction({
      body: endBody,
      isLong: true,
      run: async (call, { properties }, resource) => {
        const item = parseItem(resource.properties);
        const { pointId } = requireFinal(item);
        const disks = properties.side === "source" ? properties.disks : [];
        const parameters = { ...machineOf(item), landedName: item.failover?.landedName ?? "", pointId, side: properties.side, disks };
        return await startJob(front, call, item, { kind: reverseEndKind, parameters, change: { busyWith: reverseEndKind } });
      },
    }),
  };
}
