// Recovery points of a protected item, newest first, from the catalogue.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { storedAtBegin } from "../api/arm-call.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { PointVerification } from "../db/points.ts";
import type { JsonObject } from "../db/resources.ts";
import { parseItem } from "./item.ts";
import { pointType, provider, vaultOf } from "./names.ts";
import { pointFileActions } from "./point-files.ts";
import type { ReplicationFront } from "./world.ts";

export function pointResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  return defineResource({
    type: pointType,
    within: "parent",
    properties: z.record(z.string(), z.unknown()),
    actions: pointFileActions(front),
    source: {
      get: async ({ id }) => {
        const pointId = pointIdShape.safeParse(id.name.toLowerCase());
        if (!pointId.success) return undefined;
        const itemId = parseResourceId(id.parentText);
        const { machineId } = parseItem((await services.resources.get(itemId)).properties);
        const point = await services.points.find(vaultOf(id).key, pointId.data);
        if (point === undefined || point.machineId !== machineId) return undefined;
        const { key } = vaultOf(id);
        const verified = await services.points.verifiedOf(key, [point.pointId]);
        return show(itemId, point, { complete: await services.points.completeOf(key, [point]), verified });
      },
      list: async (call, { after, countMax }) => {
        const { id } = call;
        const item = (await storedAtBegin(services.resources, call)) ?? (await services.resources.get(id));
        const { machineId } = parseItem(item.properties);
        if (machineId === undefined) return { items: [], next: undefined };
        const before = after === undefined ? undefined : pointIdShape.parse(after);
        const points = await services.points.list(vaultOf(id).key, machineId, { countMax: countMax + 1, before });
        const page = points.slice(0, countMax);
        const { key } = vaultOf(id);
        const complete = await services.points.completeOf(key, page);
        const verified = await services.points.verifiedOf(
          key,
          page.map(({ pointId }) => pointId),
        );
        return {
          items: page.map((point) => show(id, point, { complete, verified })),
          next: points.length > countMax ? page.at(-1)?.pointId : undefined,
        };
      },
    },
  });
}

/** A point of a whole group shows the group's moment; one whose group is not whole is its machine's alone. */
function show(
  itemId: ResourceId,
  point: SealedPointReport,
  { complete, verified }: { readonly complete: ReadonlySet<string>; readonly verified: ReadonlyMap<string, PointVerification> },
): JsonObject {
  const verification = verified.get(point.pointId);
  const group = complete.has(point.pointId) ? point.group : undefined;
  return {
    id: `${itemId.text}/recoveryPoints/${point.pointId}`,
    name: point.pointId,
    type: pointType,
    properties: {
      recoveryPointTime: toTimestamp(group?.timeMs ?? point.timeMs),
      recoveryPointType: point.consistency === "application" ? "ApplicationConsistent" : "CrashConsistent",
      providerSpecificDetails: {
        instanceType: provider,
        isMultiVmSyncPoint: group === undefined ? "No" : "Yes",
        watari: verification === undefined ? point : { ...point, verified: verification },
      },
    },
  };
}
