// Jobs of vCenters: an appliance adds, changes or forgets one; the credential never leaves it.

import { z } from "zod";
import { vcenterTrustShape } from "../../contract/appliance-protocol.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { JsonObject } from "../db/resources.ts";
import { defineJob, type JobKind } from "../jobs/job.ts";
import { giveOrder, type OrderDraft, type OrderWish } from "./give-order.ts";
import { applianceOf } from "./names.ts";
import { findVcenter } from "./vcenter.ts";
import type { Replication } from "./world.ts";

const putShape = z.object({
  resourceId: z.string(),
  vcenterId: z.string(),
  name: z.string(),
  host: z.string(),
  port: z.number(),
  runAsAccountId: z.string(),
  trust: vcenterTrustShape.optional(),
});
export type PutVcenter = z.infer<typeof putShape>;

/** DiscoverVCenter is Azure's name for the job that adds one. */
export const putVcenterKinds = { add: "DiscoverVCenter", change: "UpdateVCenter" } as const;

export function definePutVcenter(world: Replication, kind: keyof typeof putVcenterKinds): JobKind {
  return defineJob<PutVcenter, { readonly shown?: JsonObject }>({
    kind: putVcenterKinds[kind],
    title: kind === "add" ? "add vCenter server" : "change vCenter server",
    parameters: putShape,
    steps: [
      {
        name: "connect",
        title: "let the appliance log in to the vCenter and read its machines",
        run: async (context) => {
          const { resourceId, ...vcenter } = context.parameters;
          await giveOrder(world.services, context, wishOf(world, resourceId, { kind: "putVcenter", ...vcenter }));
          const shown = await findVcenter(world.services, parseResourceId(resourceId));
          return shown === undefined ? {} : { shown };
        },
        undo: "a vCenter that answered stays known; deleting it takes it away",
      },
    ],
    settle: async (_db, { state, outcome }) => (outcome.kind === "succeeded" ? state.shown : undefined),
    restart: async () => undefined,
  });
}

const removeShape = z.object({ resourceId: z.string(), vcenterId: z.string() });

export function defineRemoveVcenter(world: Replication): JobKind {
  return defineJob<z.infer<typeof removeShape>, object>({
    kind: "RemoveVCenter",
    title: "remove vCenter server",
    parameters: removeShape,
    steps: [
      {
        name: "forget",
        title: "let the appliance forget the vCenter",
        run: async (context) => {
          const { resourceId, vcenterId } = context.parameters;
          await giveOrder(world.services, context, wishOf(world, resourceId, { kind: "removeVcenter", vcenterId }));
          return {};
        },
        undo: "a vCenter that was forgotten is added again by a PUT",
      },
    ],
    settle: async () => undefined,
    restart: async () => undefined,
  });
}

function wishOf(world: Replication, resourceId: string, draft: OrderDraft): OrderWish {
  const { shortOrderSeconds: waitSecondsMax, pollMs } = world.limits;
  return { applianceId: applianceOf(parseResourceId(resourceId)), draft, label: draft.kind, waitSecondsMax, pollMs };
}
