// Orders that change what the appliance looks at: vCenters and machines of the site. The hub has the new inventory before it has the result.

import { readFile } from "node:fs/promises";
import type { ApplianceOrder } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import { discoverOne, putVcenter, type DiscoveryParts } from "../discovery/discover.ts";
import type { VcenterStore } from "../discovery/vcenter-store.ts";
import type { VcenterTrust } from "../discovery/vcenter-session.ts";
import type { Guests } from "../push/guests.ts";

export type SiteOrder = Extract<ApplianceOrder, { kind: "putVcenter" | "removeVcenter" | "addMachine" }>;

export interface SiteOrderParts {
  readonly vcenters: VcenterStore;
  readonly registry: MachineRegistry;
  readonly guests: Guests;
  /** The way to vCenters, to the host named too. */
  readonly discovery: (extraHosts: readonly string[]) => DiscoveryParts;
  readonly pushInventory: (signal: AbortSignal) => Promise<void>;
}

/** May be carried out again after a kill at any line. */
export async function carryOutSiteOrder(
  parts: SiteOrderParts,
  order: SiteOrder,
  signal: AbortSignal,
): Promise<{ readonly infrastructureId?: string }> {
  const done = await change(parts, order, signal);
  await parts.pushInventory(signal);
  return done;
}

async function change(parts: SiteOrderParts, order: SiteOrder, signal: AbortSignal): Promise<{ readonly infrastructureId?: string }> {
  const { vcenters, guests } = parts;
  switch (order.kind) {
    case "putVcenter": {
      const { vcenterId, name, host, port, runAsAccountId: credentialId } = order;
      const discovery = parts.discovery([host]);
      const kept = await putVcenter(discovery, { vcenterId, name, host, port, credentialId, trust: trustOf(vcenters, order) }, signal);
      // The vCenter answered and is kept; what fails in the look at its machines is told with the inventory, as at any later look.
      await discoverOne(discovery, kept, signal);
      return {};
    }
    case "removeVcenter":
      requireUnprotected(parts, order.vcenterId);
      vcenters.remove(order.vcenterId);
      return {};
    case "addMachine": {
      const { infrastructureId } = await guests.addOrdered(order, signal);
      return { infrastructureId };
    }
  }
}

function trustOf(vcenters: VcenterStore, { trust, host, port, vcenterId }: Extract<SiteOrder, { kind: "putVcenter" }>): VcenterTrust {
  if (trust !== undefined) return trust;
  const known = vcenters.list().find((each) => each.vcenterId === vcenterId && each.host === host && each.port === port);
  return known?.trust ?? { kind: "system" };
}

/** Without the vCenter, a machine could not be fenced any more. */
function requireUnprotected({ vcenters, registry }: SiteOrderParts, vcenterId: string): void {
  const held = registry.list().filter(({ protectedBy, infrastructureId }) => {
    const shownBy = infrastructureId === undefined ? undefined : vcenters.findMachine(infrastructureId)?.vcenterId;
    return protectedBy !== undefined && shownBy === vcenterId;
  });
  if (held.length === 0) return;
  throw new Fault("StateConflict", "could not remove the vCenter: machines that it shows are protected", {
    evidence: { vcenterId, machines: held.slice(0, 20).map(({ facts }) => facts.hostname) },
    causes: ["a migration powers the source off through its vCenter"],
    action: "complete or stop the replication of the machines that are named first",
    retry: "never",
  });
}

/** Authorities that sign the certificates of the site's vCenters, beside those of the system. Read anew each time: files are replaced. */
export async function readAuthorities(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new Fault("InputInvalid", "could not read the file with the vCenters' authorities", {
      evidence: { file },
      action: "correct vcenterAuthoritiesFile in the appliance's settings, or put the file there",
      cause: error,
    });
  }
}
