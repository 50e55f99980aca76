// Takes in what an appliance tells of its machines, and tells each change of the way in which changes are found as an event of the machine.

import type { z } from "zod";
import type { applianceProgressShape } from "../../contract/appliance-protocol.ts";
import type { ApplianceId } from "../../contract/ids.ts";
import type { FlowMode, ModeChange } from "../../contract/machine-flow.ts";
import type { ResourceId } from "../api/resource-id.ts";
import type { ApplianceCatalogue } from "../db/appliances.ts";
import type { EventStore } from "../db/events.ts";
import type { ItemLookup } from "../db/item-lookup.ts";

interface Stores {
  readonly appliances: Pick<ApplianceCatalogue, "saveMachines">;
  readonly events: Pick<EventStore, "record">;
  readonly itemOf: ItemLookup;
}

/** The same changes again change nothing. */
export async function keepProgress(
  stores: Stores,
  from: { readonly vault: ResourceId; readonly applianceId: ApplianceId },
  { machines, modeChanges = [] }: z.output<typeof applianceProgressShape>,
): Promise<void> {
  await stores.appliances.saveMachines(from.vault.text, from.applianceId, machines);
  for (const change of modeChanges) await tellModeChange(stores, from.vault, change);
}

const rungs = ["ebpf", "tracefs", "checksum", "full"] as const;

async function tellModeChange({ events, itemOf }: Stores, vault: ResourceId, { machineId, time, from, to }: ModeChange): Promise<void> {
  const item = await itemOf(vault.key, machineId);
  if (item === undefined) return;
  const fabricId = /^.*?\/replicationFabrics\/[^/]+/i.exec(item.id)?.[0];
  await events.record({
    vaultKey: vault.key,
    dedupKey: `mode:${machineId}:${time}`,
    code: "ReplicationModeChanged",
    kind: "VmHealth",
    severity: rankOf(to) > rankOf(from) || to.phase === "failed" ? "Warning" : "Info",
    description: `${item.machineName}: replication went from ${textOf(from)} to ${textOf(to)}: ${to.reason}`,
    affected: { id: item.id, name: item.machineName },
    ...(fabricId === undefined ? {} : { fabricId }),
    component: "Agent",
    at: time,
  });
}

function rankOf({ rung }: FlowMode): number {
  return rung === undefined ? -1 : rungs.indexOf(rung);
}

function textOf({ phase, rung }: FlowMode): string {
  return rung === undefined ? phase : `${phase} (${rung})`;
}
