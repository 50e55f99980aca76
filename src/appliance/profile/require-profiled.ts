// Which machine can be profiled: one whose agent is registered and knows how, and that is not replicated.

import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";

type Known = ReturnType<MachineRegistry["get"]>;

/** Throws with the reason. */
export function requireProfiled({ machineId, state, facts, protectedBy }: Known): void {
  if (protectedBy !== undefined)
    throw new Fault("StateConflict", `could not profile ${facts.hostname}: it is replicated, and its churn is shown with it`, {
      evidence: { machineId },
      action: "look at its churn: watari appliance machine list",
    });
  // An agent that does not know an order could read none of those that come with it.
  if (state?.features?.includes("profile") !== true)
    throw new Fault("ProtocolVersionUnsupported", `could not profile ${facts.hostname}: its agent is older than this appliance`, {
      evidence: { machineId, hasSpoken: state !== undefined },
      action: "put this appliance's agent on the machine, then call again",
    });
}

/** The one machine of this host name or id. */
export function findProfiled(registry: Pick<MachineRegistry, "list">, name: string): MachineId {
  const machines = registry.list();
  const found = machines.filter(({ machineId, facts }) => machineId === name.toLowerCase() || facts.hostname === name);
  const [only] = found;
  if (only === undefined || found.length > 1)
    throw new Fault("NotFound", `could not profile ${name}: ${found.length} machines of the appliance are called so`, {
      evidence: { known: machines.slice(0, 50).map(({ machineId, facts }) => `${facts.hostname} ${machineId}`) },
      action: "give the id of one whose agent is registered at the appliance",
    });
  requireProfiled(only);
  return only.machineId;
}
