// The resource types of sites: an appliance is a fabric with one container; what its vCenters show can be protected.

import type { ResourceType } from "../api/resource-type.ts";
import { containerResource } from "./container-type.ts";
import { eligibilityResource } from "./eligibility-type.ts";
import { fabricResource } from "./fabric-type.ts";
import { mappingResource } from "./mapping-type.ts";
import { policyResource } from "./policy-type.ts";
import { protectableResource } from "./protectable-type.ts";
import { providerResource } from "./provider-type.ts";
import { siteNetworkResource } from "./site-network-type.ts";
import { targetSizeResource } from "./target-size-type.ts";
import { vaultHealthResource } from "./vault-health-type.ts";
import { vaultKeyResource } from "./vault-key-type.ts";
import { vaultListTypes } from "./vault-list-types.ts";
import { vaultUsageTypes } from "./vault-usages-type.ts";
import { vcenterResource } from "./vcenter-type.ts";
import type { ReplicationFront } from "./world.ts";

export function siteTypes(front: ReplicationFront): readonly ResourceType[] {
  const { services } = front;
  return [
    fabricResource(front),
    providerResource(front),
    containerResource(front),
    protectableResource(services),
    policyResource(front),
    mappingResource(services),
    siteNetworkResource(services),
    vcenterResource(front),
    vaultHealthResource(services),
    vaultKeyResource(front),
    ...vaultListTypes(services),
    ...vaultUsageTypes(services),
    eligibilityResource(services),
    targetSizeResource(services),
  ];
}
