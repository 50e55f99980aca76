// Landed machines as Microsoft.Compute/virtualMachines: get, list, start, power off, delete.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { Authority } from "../../landing/fence-ledger.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import { nextFence } from "../db/fences.ts";
import type { JsonObject, Resource } from "../db/resources.ts";
import { findItemWithLanded } from "./item.ts";
import { landedShape, requireHere, type Landed, type Landings } from "./landed.ts";
import { machineType } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

const gibibyte = 2 ** 30;

export function machineResource(front: ReplicationFront): ResourceType {
  const { target } = front;
  return defineResource({
    type: machineType,
    within: "resourceGroup",
    properties: z.record(z.string(), z.unknown()),
    onPut: "refuse",
    onDelete: async (_call, resource) => {
      await remove(front, front.landings, resource);
      return { kind: "done" };
    },
    present: async (resource) => await show(front, resource),
    actions: {
      start: defineAction({
        body: z.unknown(),
        run: async (_call, _body, resource) => {
          await target.under(await personNow(front)).start(hereOf(front, resource).launch.name);
          return { kind: "done", body: {} };
        },
      }),
      powerOff: defineAction({
        body: z.unknown(),
        run: async (_call, _body, resource) => {
          await target.under(await personNow(front)).stop(hereOf(front, resource).launch.name);
          return { kind: "done", body: {} };
        },
      }),
    },
  });
}

async function personNow({ services }: ReplicationFront): Promise<Authority> {
  return { kind: "person", fence: await nextFence(services.database.db) };
}

function hereOf({ place }: ReplicationFront, resource: Resource): Landed {
  const landed = landedShape.parse(resource.properties);
  requireHere(landed, place);
  return landed;
}

/** A machine that a protected item still counts on goes through that item: clean-up, cancel or completion. */
async function remove(front: ReplicationFront, landings: Landings, resource: Resource): Promise<void> {
  const { launch, itemId } = hereOf(front, resource);
  const item = await findItemWithLanded(front.services.database.db, itemId);
  const isHeld = item !== undefined && item.protectionState !== "CommitFailoverCompleted";
  if (isHeld)
    throw new Fault("StateConflict", `could not delete the machine ${launch.name}: the protected item ${item.machineName} counts on it`, {
      evidence: { protectedItemId: itemId, protectionState: item.protectionState },
      action: "clean up the test migration or cancel the failover of that item",
      retry: "never",
    });
  // Nobody else commands it any more; remembered, so that no late command brings it back.
  await landings.remove({ ...(await personNow(front)), kind: "job" }, launch.name);
}

async function show({ target }: ReplicationFront, resource: Resource): Promise<JsonObject> {
  const landed = landedShape.parse(resource.properties);
  const { launch } = landed;
  const status = await target.status(launch.name);
  const powerState = { running: "running", stopped: "stopped", gone: "unknown" }[status.power];
  return {
    vmId: landed.vmId,
    hardwareProfile: { vmSize: "Watari", vmSizeProperties: { vCPUsAvailable: launch.cpuCount } },
    storageProfile: {
      osDisk: { name: launch.disks.find((disk) => disk.isBoot)?.diskId ?? "", osType: "Linux", createOption: "Attach" },
      dataDisks: launch.disks
        .filter((disk) => !disk.isBoot)
        .map((disk, lun) => ({ lun, name: disk.diskId, createOption: "Attach", diskSizeGB: Math.ceil(disk.sizeBytes / gibibyte) })),
    },
    osProfile: { computerName: launch.name },
    networkProfile: { networkInterfaces: [] },
    instanceView: { statuses: [{ code: `PowerState/${powerState}`, level: "Info", displayStatus: `VM ${powerState}` }] },
    watari: {
      purpose: landed.purpose,
      protectedItemId: landed.itemId,
      recoveryPointId: landed.pointId,
      network: launch.network,
      nics: launch.nics,
      memoryBytes: launch.memoryBytes,
      addresses: status.addresses,
      bytesToFill: status.bytesToFill,
      serialTail: status.serialTail,
    },
  };
}
