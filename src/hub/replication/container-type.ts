// Protection containers: each appliance has the one that holds all of its machines.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import { requireSame } from "../resources/same-as-present.ts";
import type { HubServices } from "../services.ts";
import { beginDiscovery, discoverBody } from "./discover-machine.ts";
import { containerId, containerName, containerType } from "./names.ts";
import { countItems, refusedAction, sourceOf } from "./site-appliances.ts";
import type { ReplicationFront } from "./world.ts";

export function containerResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  const source = sourceOf(
    services,
    async (vault, appliance) => await show(services, vault, appliance),
    ({ applianceId }) => containerName(applianceId),
  );
  const ofFabric = "a fabric has one container, which comes and goes with it";
  return defineResource({
    type: containerType,
    isBare: true,
    within: "parent",
    isListedUnderAncestors: true,
    properties: z.record(z.string(), z.unknown()),
    source,
    onPut: async (call, { properties }) => {
      const present = await source.get(call);
      if (present !== undefined) requireSame("the container", properties, present["properties"]);
      if (present !== undefined) return { kind: "answered", body: present };
      throw new Fault("OperationNotSupported", `could not create the container ${call.id.name}: ${ofFabric}`, {
        action: "use the container that the fabric lists",
      });
    },
    actions: {
      remove: refusedAction("remove the container", ofFabric, "remove the fabric"),
      discoverProtectableItem: defineAction({
        body: discoverBody,
        isLong: true,
        run: async (call, { properties }) => await beginDiscovery(front, call, properties, (await source.get(call)) ?? {}),
      }),
      switchProtection: refusedAction(
        "switch the direction of replication",
        "machines are moved one way",
        "enable the machine where it is",
      ),
    },
  });
}

async function show(services: HubServices, vault: ResourceId, appliance: Appliance): Promise<JsonObject> {
  const id = containerId(vault, appliance.applianceId);
  return {
    id: id.text,
    name: id.name,
    type: containerType,
    properties: {
      friendlyName: id.name,
      fabricFriendlyName: appliance.name,
      fabricType: "VMware",
      protectedItemCount: await countItems(services, vault, appliance),
      pairingStatus: "Paired",
      role: "Primary",
      fabricSpecificDetails: { instanceType: "VMware" },
    },
  };
}
