// Wires the appliances' face to the stores.

import { createApplianceFace, type ApplianceFace } from "./appliances/appliance-face.ts";
import { openItemLookup } from "./db/item-lookup.ts";
import type { HubStores } from "./hub-stores.ts";
import type { Authority } from "./pki/authority.ts";
import type { HubServices } from "./services.ts";

export async function openAppliances(wanted: {
  readonly stores: HubStores;
  readonly services: HubServices;
  readonly authority: Authority;
}): Promise<ApplianceFace> {
  const { stores, services, authority } = wanted;
  const { appliances, orders, points, events, vaults, clock, random, log } = services;
  return await createApplianceFace({
    itemOf: openItemLookup(services.database),
    ...{ keys: stores.registrationKeys, appliances, orders, points, events, vaults },
    ...{ authority, clock, random, log },
  });
}
