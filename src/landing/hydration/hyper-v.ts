// What machines of Hyper-V are made of, here and in Azure.

import type { TargetHardware } from "./hydrate.ts";

/** A card keeps the address of its source, where who makes the machine says so; Azure does not. */
export const hyperVHardware: TargetHardware = {
  drivers: { required: ["hv_vmbus", "hv_storvsc"], wished: ["sd_mod", "hv_netvsc", "hv_utils"] },
  cardDriver: "hv_netvsc",
};
