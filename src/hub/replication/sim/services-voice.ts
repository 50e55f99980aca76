// The voice of a simulated appliance that lives in the hub's own process: straight to the hub's stores.

import { systemClock, toTimestamp } from "../../../base/clock.ts";
import { systemRandom } from "../../../base/random.ts";
import type { ApplianceId } from "../../../contract/ids.ts";
import { parseResourceId } from "../../api/resource-id.ts";
import { keepPoints } from "../../appliances/keep-points.ts";
import { openItemLookup } from "../../db/item-lookup.ts";
import { applianceCertificateDays } from "../../pki/authority.ts";
import { isConnectionFault } from "../../jobs/connection-fault.ts";
import type { HubServices } from "../../services.ts";
import type { SimVoice } from "./sim-appliance.ts";

const waitMs = 2000;
const retryMs = 20;

export function createServicesVoice(wanted: {
  readonly services: Pick<HubServices, "orders" | "appliances" | "points" | "events" | "database" | "vaults">;
  readonly applianceId: ApplianceId;
  readonly vaultKey: string;
}): SimVoice {
  const { services, applianceId, vaultKey } = wanted;
  const { points, events, database } = services;
  const stores = { points, events, itemOf: openItemLookup(database) };
  return {
    serve: async (site, signal) => {
      while (!signal.aborted) {
        const orders = await untilReached(async () => await services.orders.waitQueued(applianceId, waitMs, signal));
        for (const order of orders) {
          const result = await site.obey(order);
          await untilReached(async () => await services.orders.answer(applianceId, result));
        }
      }
    },
    renewCertificate: async () => {
      const endsAt = toTimestamp(systemClock.nowMs() + applianceCertificateDays * 86_400_000);
      const digest = systemRandom.uuid();
      await services.appliances.offerCertificate(applianceId, digest);
      await services.appliances.useCertificate(applianceId, { digest, endsAt });
      return { certificateEndsAt: endsAt };
    },
    vaultKeys: async () => await untilReached(async () => (await services.vaults.open(vaultKey)).key.keys),
    tellInventory: async (inventory) => await untilReached(async () => await services.appliances.saveInventory(applianceId, inventory)),
    tellPoint: async (report) => await untilReached(async () => await keepPoints(stores, parseResourceId(vaultKey), [report])),
    tellMachine: async (machine) =>
      await untilReached(async () => await services.appliances.saveMachines(vaultKey, applianceId, [machine])),
  };
}

/** An appliance tells again what a hub without its database did not hear. */
export async function untilReached<T>(task: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await task();
    } catch (error) {
      if (!isConnectionFault(error)) throw error;
      await systemClock.sleep(retryMs);
    }
  }
}
