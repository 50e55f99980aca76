// Orders actions of the protected item and follows their jobs, with the copy's rate while disks are copied for the first time.

import { systemClock } from "../../base/clock.ts";
import { Fault, type FaultCode } from "../../contract/errors.ts";
import type { ArmClient } from "../arm-client.ts";
import { vaultPath } from "../vault.ts";
import { CopyMeter } from "./copy-meter.ts";
import { followJob, jobText, type FollowedJob } from "./follow-job.ts";
import { hubNames } from "./hub-settings.ts";
import { findItem, type MoveItem } from "./hub-view.ts";
import type { Tell } from "./live.ts";

export type JobEvidence = FollowedJob["watari"]["evidence"];

const provider = "InMageAzureV2";

export class ItemJobs {
  readonly #arm: ArmClient;
  readonly #infrastructureId: string;
  readonly #evidence: Record<string, JobEvidence> = {};

  constructor(arm: ArmClient, infrastructureId: string) {
    this.#arm = arm;
    this.#infrastructureId = infrastructureId;
  }

  /** What the jobs that were followed found out, by scenario name. */
  get evidence(): Readonly<Record<string, JobEvidence>> {
    return this.#evidence;
  }

  async find(): Promise<MoveItem | undefined> {
    return await findItem(this.#arm, this.#infrastructureId);
  }

  /** Begins a protection. */
  async enable(
    itemId: string,
    details: { readonly protectableItemId: string; readonly policy: string; readonly specific: object },
    tell: Tell,
  ): Promise<void> {
    const { protectableItemId, policy, specific } = details;
    const policyId = `${vaultPath(this.#arm.groupPath, hubNames.vault)}/replicationPolicies/${policy}`;
    const providerSpecificDetails = { instanceType: provider, ...specific };
    await this.#arm.begin("PUT", itemId, { properties: { protectableItemId, policyId, providerSpecificDetails } });
    await this.#followLast(tell);
  }

  /** Calls an action of the item and answers what its job found out. */
  async act(
    item: MoveItem | undefined,
    order: { readonly action: string; readonly properties?: object; readonly specific?: object },
    tell: Tell,
  ): Promise<JobEvidence> {
    if (item === undefined) throw new Error("assertion failed: the step follows from an item");
    const { action, properties, specific } = order;
    const details = specific === undefined ? {} : { providerSpecificDetails: { instanceType: provider, ...specific } };
    // Actions that take nothing refuse a body that looks as if it said something.
    const body = properties === undefined && specific === undefined ? {} : { properties: { ...properties, ...details } };
    await this.#arm.begin("POST", `${item.id}/${action}`, body);
    return await this.#followLast(tell);
  }

  /** Ends replication and removes the agent; the item is gone on return. */
  async remove(item: MoveItem | undefined, reason: "NotSpecified" | "MigrationComplete", tell: Tell): Promise<void> {
    const properties = { disableProtectionReason: reason, replicationProviderInput: { instanceType: provider } };
    await this.act(item, { action: "remove", properties }, tell);
  }

  async cancel(jobId: string): Promise<void> {
    await this.#arm.begin("POST", `${vaultPath(this.#arm.groupPath, hubNames.vault)}/replicationJobs/${jobId}/cancel`, {});
  }

  async follow(jobId: string, tell: Tell): Promise<JobEvidence> {
    const meter = new CopyMeter();
    const job = await followJob(this.#arm, jobId, async (now) => tell((await this.#copyText(now, meter)) ?? jobText(now)));
    this.#evidence[job.scenarioName] = job.watari.evidence;
    return job.watari.evidence;
  }

  /** An operation's job is the item's last one from the moment at which it was accepted. */
  async #followLast(tell: Tell): Promise<JobEvidence> {
    const jobId = (await this.find())?.properties.currentScenario?.jobId;
    // A removal may have ended, item and all, before this look.
    return jobId === undefined ? {} : await this.follow(jobId, tell);
  }

  async #copyText(job: FollowedJob, meter: CopyMeter): Promise<string | undefined> {
    const isCopying = job.tasks.some((task) => task.name === "initialReplication" && task.state === "InProgress");
    const disks = isCopying ? ((await this.find())?.properties.providerSpecificDetails.protectedDisks ?? []) : [];
    if (disks.length === 0) return undefined;
    const copiedBytes = disks.reduce((sum, disk) => sum + disk.resyncProcessedBytes, 0);
    const totalBytes = disks.reduce((sum, disk) => sum + disk.diskCapacityInBytes, 0);
    return `copied ${meter.look(systemClock.monotonicMs(), copiedBytes, totalBytes)}`;
  }
}

const enablingStates: ReadonlySet<string> = new Set(["EnablingProtection", "InitialReplicationInProgress"]);

/** Gives a replication up, whatever it is at; nothing of it is left on the source. Throws StateConflict once the source was cut over. */
export async function giveUp(jobs: ItemJobs, tell: Tell): Promise<void> {
  for (let item = await jobs.find(); item !== undefined; item = await jobs.find()) {
    const { protectionState, testFailoverState, currentScenario } = item.properties;
    const jobId = currentScenario?.jobId;
    if (enablingStates.has(protectionState) && jobId !== undefined) {
      await jobs.cancel(jobId).catch(unlessFault("StateConflict")); // It is being taken back already, by an earlier call.
      await jobs.follow(jobId, tell).catch(unlessFault()); // A cancelled job ends with a fault: that is what was asked for.
    } else if (protectionState === "Protected" && testFailoverState === "TestMigrationSucceeded") {
      await jobs.act(item, { action: "testFailoverCleanup", properties: { comments: "given up" } }, tell);
    } else if ((item.properties.allowedOperations ?? []).includes("DisableProtection")) {
      await jobs.remove(item, "NotSpecified", tell);
    } else {
      throw new Fault("StateConflict", `could not give the move of ${item.properties.friendlyName} up: it is ${protectionState}`, {
        evidence: { protectionState, testFailoverState },
        action: "call watari move again, which goes on from here; then remove",
      });
    }
  }
}

/** Passes a fault over, any or only this one. */
function unlessFault(code?: FaultCode): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof Fault) || (code !== undefined && error.code !== code)) throw error;
  };
}
