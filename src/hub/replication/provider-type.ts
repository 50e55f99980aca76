// Recovery services providers: the appliance again, as the part of a fabric that talks to the vault.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineAction, defineResource, noBody, type ResourceType } from "../api/resource-type.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import { requireSame } from "../resources/same-as-present.ts";
import type { HubServices } from "../services.ts";
import { removeAction, unregister } from "./fabric-type.ts";
import { fabricId, providerType } from "./names.ts";
import { beginRefresh } from "./refresh-provider.ts";
import { countItems, healthOf, isSilent, sourceOf } from "./site-appliances.ts";
import type { ReplicationFront } from "./world.ts";

export function providerResource(front: ReplicationFront): ResourceType {
  const { services } = front;
  const source = sourceOf(
    services,
    async (vault, appliance) => await show(services, vault, appliance),
    ({ applianceId }) => applianceId,
  );
  return defineResource({
    type: providerType,
    isBare: true,
    within: "parent",
    isListedUnderAncestors: true,
    properties: z.record(z.string(), z.unknown()),
    source,
    onPut: async (call, { properties }) => {
      const present = await source.get(call);
      if (present !== undefined) requireSame("the provider", properties, present["properties"]);
      if (present !== undefined) return { kind: "answered", body: present };
      throw new Fault("OperationNotSupported", `could not create the provider ${call.id.name}: it comes with an appliance's registration`, {
        action: "make a registration key (POST registrationKeys on the vault) and register the appliance with it",
      });
    },
    onDelete: async ({ id }) => {
      await unregister(services, id);
      return { kind: "done" };
    },
    actions: {
      remove: removeAction(services),
      refreshProvider: defineAction({
        body: noBody,
        isLong: true,
        run: async (call) => await beginRefresh(front, call, async () => await source.get(call)),
      }),
    },
  });
}

async function show(services: HubServices, vault: ResourceId, appliance: Appliance): Promise<JsonObject> {
  const { applianceId, name, version, lastSeenAt } = appliance;
  return {
    id: `${fabricId(vault, applianceId).text}/replicationRecoveryServicesProviders/${applianceId}`,
    name: applianceId,
    type: providerType,
    properties: {
      fabricType: "VMware",
      friendlyName: name,
      fabricFriendlyName: name,
      providerVersion: version,
      serverVersion: version,
      providerVersionState: "Supported",
      providerVersionDetails: { version, status: "Supported" },
      lastHeartBeat: lastSeenAt,
      connectionStatus: isSilent(services, appliance) ? "Disconnected" : "Connected",
      protectedItemCount: await countItems(services, vault, appliance),
      allowedScenarios: ["Refresh", "Remove"],
      healthErrorDetails: healthOf(services, appliance).errors,
      draIdentifier: applianceId,
      machineId: applianceId,
      machineName: name,
    },
  };
}
