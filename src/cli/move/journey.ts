// Goes a move's way step by step: looks at the hub, decides, orders, follows the job; ends where the wish ends or a person says no.

import { z } from "zod";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ArmClient } from "../arm-client.ts";
import { askPrediction, comparisonShape, comparisonText, predictionText, type Prediction } from "../downtime.ts";
import { formatBytes } from "../output.ts";
import { hubNames } from "./hub-settings.ts";
import { findLanded, findProtectable, landedPath, toSeenItem, type LandedMachine, type MoveItem } from "./hub-view.ts";
import { ItemJobs, type JobEvidence } from "./item-jobs.ts";
import type { LiveSteps, Tell } from "./live.ts";
import { nextStep, type Step } from "./next-step.ts";
import { writeRecord, type MoveRecord, type Site } from "./site.ts";
import type { MoveWish } from "./wish.ts";

export interface Journey {
  readonly site: Site;
  readonly arm: ArmClient;
  readonly live: LiveSteps;
  readonly wish: MoveWish;
  /** Asked right before the source is switched off. */
  readonly confirmCutOver: (machineName: string, prediction: Prediction) => Promise<boolean>;
}

export interface JourneyEnd {
  readonly reached: "tested" | "landed" | "exported" | "declined";
  readonly record: MoveRecord;
  readonly landed: LandedMachine | undefined;
  /** What the jobs of this call found out, by scenario name. */
  readonly evidence: Readonly<Record<string, JobEvidence>>;
}

type Machine = NonNullable<MoveRecord["machine"]>;

/** A machine that was just added reaches the hub with the appliance's next inventory. */
const inventoryWaitMsMax = 120_000;
const lookAgainMs = 500;
const probeSecondsMax = 600;

export async function travel(journey: Journey, begun: MoveRecord): Promise<JourneyEnd> {
  const { machine } = begun;
  if (machine === undefined) throw new Error("assertion failed: the source was added");
  return await new Travel(journey, begun, machine).run();
}

class Travel {
  readonly #journey: Journey;
  readonly #machine: Machine;
  readonly #jobs: ItemJobs;
  #record: MoveRecord;
  #isTested = false;
  #isExported = false;

  constructor(journey: Journey, record: MoveRecord, machine: Machine) {
    this.#journey = journey;
    this.#record = record;
    this.#machine = machine;
    this.#jobs = new ItemJobs(journey.arm, machine.infrastructureId);
  }

  async run(): Promise<JourneyEnd> {
    const { arm, wish } = this.#journey;
    for (;;) {
      const [item, landed] = await Promise.all([this.#jobs.find(), findLanded(arm)]);
      const step = nextStep(
        {
          item: item === undefined ? undefined : toSeenItem(item),
          landedName: landed?.name,
          exported: this.#record.exported,
          done: { isTested: this.#isTested, isExported: this.#isExported },
        },
        wish,
      );
      if (step.kind === "end") return await this.#end(step.reached, landed);
      const isDeclined = step.kind === "cutOver" && item !== undefined && !(await this.#confirmCutOver(item));
      if (isDeclined) return await this.#end("declined", landed);
      await this.#journey.live.run(this.#titleOf(step), async (tell) => await this.#take(step, item, tell));
    }
  }

  async #confirmCutOver(item: MoveItem): Promise<boolean> {
    const { arm, live, confirmCutOver } = this.#journey;
    const prediction = await askPrediction(arm, item.id);
    for (const line of predictionText(prediction)) live.note(line);
    return await confirmCutOver(this.#machine.name, prediction);
  }

  async #end(reached: JourneyEnd["reached"], landed: LandedMachine | undefined): Promise<JourneyEnd> {
    const isOver = reached === "landed" || reached === "exported";
    if (reached === "landed" && landed?.isRunning === false) {
      const { arm, live } = this.#journey;
      await live.run(`start ${landed.name}`, async () => void (await arm.change("POST", `${landedPath(arm, landed.name)}/start`, {})));
    }
    if (isOver && this.#record.completedAt === undefined) await this.#keep({ completedAt: toTimestamp(systemClock.nowMs()) });
    return { reached, landed, record: this.#record, evidence: this.#jobs.evidence };
  }

  #titleOf(step: OrderedStep): string {
    return {
      protect: `replicate ${this.#machine.name}: agent over SSH, then every disk`,
      wait: "go on with the job under way",
      test: "test: boot the latest recovery point in a network of its own",
      cleanUp: "clean the test up",
      cutOver: "cut over: last changes, equal roots, source off, boot here",
      cancel: "cancel the cut-over that failed",
      commit: "commit",
      clear: "take away what a failed protection left",
      complete: "complete: end replication, give back what the vault holds",
      export: "write the disks as files",
      discard: "remove the machine that proved the files",
    }[step.kind];
  }

  async #take(step: OrderedStep, item: MoveItem | undefined, tell: Tell): Promise<void> {
    const jobs = this.#jobs;
    switch (step.kind) {
      case "protect":
        return await this.#protect(tell);
      case "wait":
        return void (await jobs.follow(step.jobId, tell));
      case "test":
        return await this.#test(item, tell);
      case "cleanUp":
        this.#isTested = true;
        return void (await jobs.act(item, { action: "testFailoverCleanup", properties: { comments: "watari move" } }, tell));
      case "cutOver":
        return await this.#cutOver(item, tell);
      case "cancel":
        return void (await jobs.act(item, { action: "failoverCancel" }, tell));
      case "commit":
        return void (await jobs.act(item, { action: "failoverCommit" }, tell));
      case "clear":
        return await jobs.remove(item, "NotSpecified", tell);
      case "complete":
        return await jobs.remove(item, "MigrationComplete", tell);
      case "export":
        return await this.#export(item, step.pointId, tell);
      case "discard":
        return void (await this.#journey.arm.change("DELETE", landedPath(this.#journey.arm, step.name)));
    }
  }

  async #protect(tell: Tell): Promise<void> {
    const { arm } = this.#journey;
    const { infrastructureId, credentialId } = this.#machine;
    const endsAtMs = systemClock.monotonicMs() + inventoryWaitMsMax;
    let ids = await findProtectable(arm, infrastructureId);
    while (ids === undefined) {
      if (systemClock.monotonicMs() > endsAtMs)
        throw new Fault("ApplianceSilent", "the appliance did not tell the hub of the machine", { evidence: { infrastructureId } });
      tell("waiting until the hub knows the machine");
      await systemClock.sleep(lookAgainMs);
      ids = await findProtectable(arm, infrastructureId);
    }
    const specific = { runAsAccountId: credentialId, address: this.#record.sourceAddress };
    await this.#jobs.enable(ids.itemId, { protectableItemId: ids.protectableId, policy: hubNames.policy, specific }, tell);
  }

  async #test(item: MoveItem | undefined, tell: Tell): Promise<void> {
    const properties = { failoverDirection: "PrimaryToRecovery", networkType: "NoNetworkAttachAsInput" };
    this.#noteLaunch(await this.#jobs.act(item, { action: "testFailover", properties, specific: this.#probe() }, tell));
    this.#isTested = true;
  }

  async #cutOver(item: MoveItem | undefined, tell: Tell): Promise<void> {
    // A machine that is only to become files boots once as their proof, and reaches nothing meanwhile.
    const network = this.#journey.wish.outcome.kind === "files" ? hubNames.sealedNetwork : hubNames.network;
    const properties = { failoverDirection: "PrimaryToRecovery", sourceSiteOperations: "Required" };
    const specific = { network, ...this.#probe() };
    const evidence = await this.#jobs.act(item, { action: "unplannedFailover", properties, specific }, tell);
    this.#noteLaunch(evidence);
    const { downtime, equalRoots } = launchEvidenceShape.parse(evidence);
    const { live } = this.#journey;
    if (downtime !== undefined) live.note(`from the order to freeze to the machine here: ${comparisonText(downtime)}`);
    for (const { diskId, root } of equalRoots) live.note(`disk ${diskId}: source and replica have the root ${root.slice(0, 16)}…`);
  }

  #noteLaunch(evidence: JobEvidence): void {
    const { probeStatus, probeSeconds = 0, hydrationSeconds = 0 } = launchEvidenceShape.parse(evidence);
    const asked = probeStatus !== undefined;
    const probed = asked ? `it answered ${probeStatus} after ${probeSeconds.toFixed(1)} s` : "its processor runs (no probe was asked for)";
    this.#journey.live.note(`${probed}; drivers were put in within ${hydrationSeconds.toFixed(1)} s`);
  }

  #probe(): object {
    const { probe } = this.#journey.wish;
    return probe === undefined ? {} : { probe: { ...probe, timeoutSeconds: probeSecondsMax } };
  }

  async #export(item: MoveItem | undefined, pointId: string | undefined, tell: Tell): Promise<void> {
    const { outcome } = this.#journey.wish;
    if (outcome.kind !== "files") throw new Error("assertion failed: files are wanted");
    const specific = {
      format: outcome.format,
      isHydrated: outcome.isHydrated,
      ...(pointId === undefined ? {} : { recoveryPointId: pointId }),
    };
    const exported = exportEvidenceShape.parse(await this.#jobs.act(item, { action: "export", specific }, tell));
    await this.#keep({ exported: { pointId: exported.pointId, isFinal: pointId !== undefined, files: exported.files } });
    this.#isExported = true;
    for (const { path, sizeBytes } of exported.files) this.#journey.live.note(`${path}: ${formatBytes(sizeBytes)}`);
  }

  async #keep(change: Partial<MoveRecord>): Promise<void> {
    this.#record = { ...this.#record, ...change };
    await writeRecord(this.#journey.site, this.#record);
  }
}

type OrderedStep = Exclude<Step, { readonly kind: "end" }>;

const launchEvidenceShape = z.looseObject({
  probeStatus: z.number().optional(),
  probeSeconds: z.number().optional(),
  hydrationSeconds: z.number().optional(),
  downtime: comparisonShape.optional(),
  equalRoots: z.array(z.object({ diskId: z.string(), root: z.string() })).default([]),
});

const exportEvidenceShape = z.looseObject({
  pointId: z.string(),
  files: z.array(z.object({ path: z.string(), sizeBytes: z.number() })),
});
