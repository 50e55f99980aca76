// Powers a source off or on and confirms it: through its vCenter, or through its own system where no vCenter knows it.

import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import type { Guests } from "../push/guests.ts";
import { setMachinePower, type DiscoveryParts } from "./discover.ts";

export async function fenceMachine(
  site: { readonly registry: MachineRegistry; readonly guests: Guests; discovery(): DiscoveryParts },
  { machineId, wanted }: { readonly machineId: MachineId; readonly wanted: "poweredOn" | "poweredOff" },
  signal: AbortSignal,
): Promise<void> {
  const { registry, guests } = site;
  const { infrastructureId } = registry.get(machineId);
  if (infrastructureId === undefined)
    throw new Fault("NotFound", "the machine is tied to none that a vCenter shows", { evidence: { machineId } });
  if (!guests.isByHand(machineId)) return await setMachinePower(site.discovery(), { infrastructureId, wanted }, signal);
  if (wanted === "poweredOff") return await guests.powerOff(machineId, signal);
  return await guests.requirePoweredOn(machineId, signal);
}
