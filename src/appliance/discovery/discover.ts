// Discovery and power over all vCenters of the site: each is asked with its own credential, a failing one is remembered as such.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import type { Connector } from "../../connectivity/connector.ts";
import type { CredentialStore } from "../credentials/credential-store.ts";
import { readInventory } from "./inventory.ts";
import { setPower } from "./power.ts";
import { openVcenterSession, type VcenterSession } from "./vcenter-session.ts";
import type { Vcenter, VcenterDraft, VcenterStore } from "./vcenter-store.ts";

export interface DiscoveryParts {
  readonly vcenters: VcenterStore;
  readonly credentials: CredentialStore;
  readonly connector: () => Pick<Connector, "connect">;
  /** PEM of authorities that are trusted beside the system's. */
  readonly authorities: () => Promise<string | undefined>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Adds or changes a vCenter after a login with its credential has succeeded; nothing is kept otherwise. */
export async function putVcenter(parts: DiscoveryParts, vcenter: VcenterDraft, signal?: AbortSignal): Promise<Vcenter> {
  parts.vcenters.requireFree(vcenter);
  await using session = await open(parts, vcenter, signal);
  parts.log.info("vCenter answered", { name: vcenter.name, version: session.service.about.fullName });
  return parts.vcenters.put(vcenter);
}

/** Asks every vCenter. Throws the first failure after all were asked. */
export async function discoverAll(parts: DiscoveryParts, signal?: AbortSignal): Promise<{ readonly machineCount: number }> {
  let failed: Fault | undefined;
  for (const vcenter of parts.vcenters.list()) {
    const fault = await discoverOne(parts, vcenter, signal);
    failed ??= fault;
  }
  if (failed !== undefined) throw failed;
  return { machineCount: parts.vcenters.machines().length };
}

/** Asks one vCenter; how it went is kept either way. Answers what failed. */
export async function discoverOne(parts: DiscoveryParts, vcenter: Vcenter, signal?: AbortSignal): Promise<Fault | undefined> {
  try {
    await using session = await open(parts, vcenter, signal);
    const entries = await readInventory(session, vcenter.vcenterId, signal);
    const machines = entries.map((entry) => entry.machine);
    parts.vcenters.recordDiscovery(vcenter.vcenterId, machines);
    parts.log.info("vCenter discovered", { name: vcenter.name, machineCount: entries.length });
    return undefined;
  } catch (error) {
    signal?.throwIfAborted();
    const fault = asFault(error, `discover the vCenter ${vcenter.name}`);
    parts.vcenters.recordFault(vcenter.vcenterId, fault);
    return fault;
  }
}

/** Powers a machine on or off through the vCenter that shows it, and reads the state back. */
export async function setMachinePower(
  parts: DiscoveryParts,
  order: { readonly infrastructureId: string; readonly wanted: "poweredOn" | "poweredOff" },
  signal?: AbortSignal,
): Promise<void> {
  const known = parts.vcenters.findMachine(order.infrastructureId);
  const vcenter = parts.vcenters.list().find((each) => each.vcenterId === known?.vcenterId);
  if (vcenter === undefined) {
    throw new Fault("NotFound", "no vCenter of this appliance shows the machine, so it cannot be powered", {
      evidence: { infrastructureId: order.infrastructureId },
      action: "add the vCenter that holds the machine, or power the machine by hand",
    });
  }
  await using session = await open(parts, vcenter, signal);
  const entries = await readInventory(session, vcenter.vcenterId, signal);
  const entry = entries.find((each) => each.machine.infrastructureId === order.infrastructureId);
  if (entry === undefined) {
    throw new Fault("NotFound", `the vCenter ${vcenter.name} does not show the machine any more`, {
      evidence: { infrastructureId: order.infrastructureId },
    });
  }
  await setPower(session, { machine: entry.object, wanted: order.wanted, clock: parts.clock }, signal);
  parts.log.info("machine power set", { infrastructureId: order.infrastructureId, wanted: order.wanted });
}

async function open(
  { credentials, connector, authorities }: DiscoveryParts,
  vcenter: Omit<Vcenter, "vcenterId">,
  signal?: AbortSignal,
): Promise<VcenterSession> {
  const credential = credentials.find(vcenter.credentialId);
  const secret = credentials.reveal(credential.credentialId);
  if (credential.kind !== "vcenter" || secret.kind !== "password") {
    throw new Fault("InputInvalid", `the credential ${credential.name} is not one of a vCenter`, {
      evidence: { credential: credential.name, kind: credential.kind },
      action: "give a credential of kind vcenter",
    });
  }
  const authoritiesPem = await authorities();
  const address = { ...vcenter, ...(authoritiesPem === undefined ? {} : { authoritiesPem }) };
  return await openVcenterSession(
    { address, login: { userName: credential.userName, password: secret.password }, connector: connector() },
    signal,
  );
}
