// Where the journey's machine comes from: a simulated site behind an ephemeral hub, or a lab with a real appliance and a real guest.

import { z } from "zod";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLog } from "../../../src/base/log.ts";
import { systemRandom } from "../../../src/base/random.ts";
import type { RegistrationKey } from "../../../src/contract/appliance-protocol.ts";
import { openSimulatedSite } from "../../../src/sim/simulated-site.ts";
import type { Rig } from "../rig.ts";
import { openLabSite } from "./lab-site.ts";
import type { Zone, ZoneWish } from "./landing-zone.ts";

export interface JourneySite {
  readonly network: ZoneWish["network"];
  readonly proxy?: string;
  /** Machine that moves, and the run-as account that may install its agent. */
  readonly machine: string;
  readonly runAsAccount: string;
  /** Longest wait for a state that the site reaches in its own time. */
  readonly secondsMax: number;
  /** Carries the key to an appliance, which registers with it and shows its machines. */
  register(key: RegistrationKey, hosts: Zone["hosts"]): Promise<AsyncDisposable>;
  /** Waits for the machine's own answer at its new place and throws when anything of its source is missing; says what it saw. A simulated machine runs nothing. */
  readonly proveLanded?: (addresses: readonly string[]) => Promise<string>;
}

const networkShape = z.object({ properties: z.object({ addressSpace: z.object({ addressPrefixes: z.array(z.string()) }) }) });
const labVariable = "WATARI_CONFORMANCE_LAB";
const simulatedSecondsMax = 30;

export async function openJourneySite(rig: Rig): Promise<JourneySite> {
  const labFile = process.env[labVariable];
  return labFile === undefined ? await simulatedSite(rig) : await openLabSite(labFile);
}

async function simulatedSite(rig: Rig): Promise<JourneySite> {
  const hubPort = Number(new URL(rig.endpoint).port);
  const place = { hubPort, name: "journey-site", machineCount: 2, paceSeconds: 0.2, siteNumber: 1 };
  return {
    network: { name: "landing", subnet: "default", cidr: await configuredRange(rig) },
    machine: "web-01",
    runAsAccount: "root",
    secondsMax: simulatedSecondsMax,
    register: async (key, hosts) =>
      await openSimulatedSite({ ...place, key, hosts, clock: systemClock, random: systemRandom, log: silentLog }),
  };
}

/** The group of an ephemeral hub declares the network of the hub's configuration already. */
async function configuredRange({ endpoint, subscriptionId, resourceGroup, token }: Rig): Promise<string> {
  const path = `/subscriptions/${subscriptionId}/resourceGroups/${resourceGroup}/providers/Microsoft.Network/virtualNetworks/landing`;
  const answer = await fetch(`${endpoint}${path}?api-version=2025-05-01`, { headers: { authorization: `Bearer ${await token()}` } });
  const { properties } = networkShape.parse(await answer.json());
  return properties.addressSpace.addressPrefixes[0] ?? "";
}
