// Finds the one machine that an operator means, by host name or id.

import type { AdminResponse } from "../../contract/appliance-admin.ts";
import { Fault } from "../../contract/errors.ts";
import { callAppliance } from "../admin/admin-client.ts";

/** A name that fits none or several is a Fault that lists the choices. */
export async function findMachine(stateFolder: string, name: string): Promise<AdminResponse<"listMachines">["machines"][number]> {
  const { machines } = await callAppliance(stateFolder, "listMachines", {});
  const found = machines.filter((each) => each.machineId === name || each.hostname === name);
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new Fault("NotFound", `could not tell which machine is meant: ${found.length} are called ${name}`, {
    evidence: { known: machines.slice(0, 50).map((each) => `${each.hostname} ${each.machineId}`) },
    action: "give the id of one that `watari appliance machine list` shows",
  });
}
