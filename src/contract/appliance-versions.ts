// Which versions of the appliance protocol a hub speaks: its own and the four before; and what each of them knows.

import { applianceProtocolVersion, type ApplianceOrder } from "./appliance-protocol.ts";
import { Fault } from "./errors.ts";

/** N-4: an appliance may be four versions behind its hub. */
const versionsBehindMax = 4;

export interface ProtocolOffer {
  readonly oldest: number;
  readonly newest: number;
}

/** The version from which on an appliance knows an order; those that are not named: from the first. Name every kind that is added. */
const knownSince: Partial<Record<ApplianceOrder["kind"], number>> = {
  setDisks: 2,
  updateAgent: 2,
  putVcenter: 3,
  removeVcenter: 3,
  addMachine: 3,
  renewCertificate: 3,
  adopt: 3,
  forget: 3,
  takeVaultKeys: 4,
  changeLimits: 4,
  profileMachine: 4,
  checkNetwork: 4,
};

/** What a hub whose own version is `newest` offers. */
export function offerOf(newest: number = applianceProtocolVersion): ProtocolOffer {
  return { oldest: Math.max(1, newest - versionsBehindMax), newest };
}

/** Refuses an appliance outside the offer, and says which of the two is to be updated. */
export function requireProtocolVersion(version: number, doing: string, offer: ProtocolOffer = offerOf()): void {
  if (version >= offer.oldest && version <= offer.newest) return;
  const isNewer = version > offer.newest;
  throw new Fault(
    "ProtocolVersionUnsupported",
    `could not ${doing}: the ${isNewer ? "hub is older than the appliance" : "appliance is too old"}`,
    {
      evidence: { applianceVersion: version, oldestVersion: offer.oldest, newestVersion: offer.newest },
      causes: [isNewer ? "the appliance was updated before its hub" : "the appliance is more than four versions behind its hub"],
      action: isNewer ? "update the hub; the appliance goes on by itself" : "update the appliance",
    },
  );
}

/** Of an order that an appliance of this version does not know. */
export function tooOldFor(kind: ApplianceOrder["kind"], applianceVersion: number): Fault {
  return new Fault("ProtocolVersionUnsupported", `could not give the order ${kind}: the appliance does not know it`, {
    evidence: { applianceVersion, order: kind, knownSince: knownSince[kind] ?? 1 },
    causes: ["the appliance is older than its hub"],
    action: "update the appliance, then start the operation again",
  });
}

/** Whether an appliance of this version knows the order; one that does not must never get it. */
export function knowsOrder(version: number, kind: ApplianceOrder["kind"], since: Partial<Record<string, number>> = knownSince): boolean {
  return version >= (since[kind] ?? 1);
}
