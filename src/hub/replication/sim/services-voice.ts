// The voice of a simulated appliance that lives in the hub's own process: straight to the hub's stores.

import { systemClock, toTimestamp } from "../../../base/clock.ts";
import { systemRandom } from "../../../base/random.ts";
import type { ApplianceId } from "../../../contract/ids.ts";
import { applianceCertificateDays } from "../../pki/authority.ts";
import type { HubServices } from "../../services.ts";
import type { SimVoice } from "./sim-appliance.ts";

const waitMs = 2000;

export function createServicesVoice(wanted: {
  readonly services: Pick<HubServices, "orders" | "appliances" | "points">;
  readonly applianceId: ApplianceId;
  readonly vaultKey: string;
}): SimVoice {
  const { services, applianceId, vaultKey } = wanted;
  return {
    serve: async (site, signal) => {
      while (!signal.aborted) {
        const orders = await services.orders.waitQueued(applianceId, waitMs, signal);
        for (const order of orders) await services.orders.answer(applianceId, await site.obey(order));
      }
    },
    tellInventory: async (inventory) => await services.appliances.saveInventory(applianceId, inventory),
    tellPoint: async (report) => await services.points.add(vaultKey, [report]),
    renewCertificate: async () => {
      const endsAt = toTimestamp(systemClock.nowMs() + applianceCertificateDays * 86_400_000);
      const digest = systemRandom.uuid();
      await services.appliances.offerCertificate(applianceId, digest);
      await services.appliances.useCertificate(applianceId, { digest, endsAt });
      return { certificateEndsAt: endsAt };
    },
    tellMachine: async (machine) => await services.appliances.saveMachines(vaultKey, applianceId, [machine]),
  };
}
