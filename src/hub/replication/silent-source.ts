// The proof that a source which cannot be switched off does not run: its site is not heard of, or its vCenter shows it off.

import { fromTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { Item } from "./item.ts";
import { vaultOf } from "./names.ts";
import type { Replication } from "./world.ts";

/** An agent that spoke so recently lives, whatever a vCenter shows. */
const agentAliveSeconds = 60;

export interface SourceSilence {
  /** off: shown so by its vCenter, with the site at hand. lost: nothing is heard of the site. */
  readonly kind: "off" | "lost";
  readonly because: string;
}

/** Answers why the source is taken to be off. Throws StateConflict while there is any sign that it runs. */
export async function requireSilentSource(
  { services, limits }: Pick<Replication, "services" | "limits">,
  { itemId, item }: { readonly itemId: string; readonly item: Item },
): Promise<SourceSilence> {
  const { appliances, clock } = services;
  const applianceId = parseApplianceId(item.applianceId);
  const vault = vaultOf(parseResourceId(itemId));
  const [appliance, inventory, machine] = await Promise.all([
    appliances.find(applianceId),
    appliances.inventory(applianceId),
    item.machineId === undefined ? undefined : appliances.machine(vault.key, item.machineId),
  ]);
  const secondsSince = (at: string | undefined): number =>
    at === undefined ? Number.POSITIVE_INFINITY : (clock.nowMs() - fromTimestamp(at)) / 1000;
  const agentSeconds = secondsSince(machine?.lastSeenAt);
  const siteSeconds = secondsSince(appliance?.lastSeenAt);
  const powerState = inventory?.machines.find((each) => each.infrastructureId === item.infrastructureId)?.powerState;
  const isSilent = agentSeconds >= Math.min(agentAliveSeconds, limits.silentSeconds);
  if (isSilent && powerState !== undefined && powerState !== "poweredOn")
    return { kind: "off", because: `its vCenter shows it ${powerState}` };
  if (isSilent && agentSeconds >= limits.silentSeconds && siteSeconds >= limits.silentSeconds)
    return { kind: "lost", because: `neither its agent nor its site was heard of for ${limits.silentSeconds} s` };
  throw new Fault("StateConflict", `could not migrate ${item.machineName} without its site: the source may still run, and so would both`, {
    evidence: {
      agentSecondsAgo: Math.round(Math.min(agentSeconds, Number.MAX_SAFE_INTEGER)),
      siteSecondsAgo: Math.round(Math.min(siteSeconds, Number.MAX_SAFE_INTEGER)),
      powerState: powerState ?? "unknown",
      silentSecondsMin: limits.silentSeconds,
    },
    action:
      "call with sourceSiteOperations Required, which switches the source off; or power the machine off, run a discovery and call again",
    retry: "later",
  });
}
