// Adds replication and migration to a hub: its resource types, its jobs, and what a killed hub left of them.

import type { OpenExtension, HubExtension, HubServices } from "../services.ts";
import { startAutostart } from "./autostart.ts";
import { Collector } from "../collector/collector.ts";
import { defineMachineCreation } from "../compute/made-machine.ts";
import { defineGroupRemoval } from "../resources/group-removal.ts";
import { startCollecting } from "../collector/collector-loop.ts";
import type { HealthLimits } from "../health/health-rules.ts";
import { startHealth } from "../health/reconciler.ts";
import { JobEngine, type JobEngineOptions } from "../jobs/job-engine.ts";
import type { JobKind } from "../jobs/job.ts";
import { defineDisableProtection } from "./disable-protection.ts";
import { defineDiscoverMachine } from "./discover-machine.ts";
import { startDueLoop } from "./due-loop.ts";
import { defineEnableProtection } from "./enable-protection.ts";
import { defineExportPoint } from "./export-point.ts";
import { defineCancelFailover, defineCommitFailover } from "./finish-failover.ts";
import { defineAddDisks, defineRemoveDisks } from "./change-disks.ts";
import { defineUpdateAgent } from "./update-agent.ts";
import { defineApplyPoint } from "./apply-point.ts";
import { defineRepairReplication } from "./repair-replication.ts";
import { reportActions } from "./equality-report.ts";
import { itemResource } from "./item-type.ts";
import { startRetention } from "./record-retention.ts";
import { eventResource } from "./event-type.ts";
import { eventOfJob } from "./job-events.ts";
import { jobFileActions, offerJobFiles } from "./job-file-reads.ts";
import { jobResource } from "./job-type.ts";
import { defineChangeLimits, defineCheckNetwork, defineProfileMachine } from "./appliance-jobs.ts";
import { startKeyKeeper } from "./key-keeper.ts";
import { Landings, landedMachineShape, landedUnfilled } from "./landed.ts";
import { defineMachinePower, defineMachineRemoval } from "./machine-jobs.ts";
import { offerConsoles } from "./machine-console.ts";
import { machineParts } from "./machine-parts.ts";
import { machineResource, offerBootLogs } from "./machine-type.ts";
import { planJobs } from "./plan-run.ts";
import { planResource } from "./plan-type.ts";
import { offerPointFiles } from "./point-files.ts";
import { pointResource } from "./point-type.ts";
import { defineRefreshProvider } from "./refresh-provider.ts";
import { defineRehearsal } from "./rehearsal.ts";
import { defineRenewCertificate } from "./renew-certificate.ts";
import { defineReverseDelta } from "./reverse-delta.ts";
import { defineReverseEnd } from "./reverse-end.ts";
import { defineReversePoint } from "./reverse-point.ts";
import { siteTypes } from "./site-types.ts";
import { defineSwitchProcessServer } from "./switch-process-server.ts";
import { defineTestFailover, defineTestFailoverCleanup } from "./test-failover.ts";
import { defineUnplannedFailover } from "./unplanned-failover.ts";
import { defineUpdatePolicy } from "./update-policy.ts";
import { defineCountVaultSeals, defineDestroyVaultKey, defineRotateVaultKey } from "./vault-key-jobs.ts";
import { definePutVcenter, defineRemoveVcenter } from "./vcenter-jobs.ts";
import { replicationLimits, type Replication, type ReplicationFront, type ReplicationLimits, type ReplicationWorld } from "./world.ts";

/** Who composes the hub gives these. `openWorld` gets the configuration's landing section; what it opens is closed by `closeWorld`. */
export interface ReplicationDependencies {
  readonly openWorld: (services: HubServices, landing: unknown) => Promise<ReplicationWorld & AsyncDisposable>;
  readonly limits?: Partial<ReplicationLimits>;
  /** When a thing counts as ill; tests give shorter limits. */
  readonly health?: Partial<HealthLimits>;
  /** Lease, poll and bound of the job engine. */
  readonly jobs?: Pick<JobEngineOptions, "leaseMs" | "pollMs" | "jobsMax" | "onMoment">;
}

export function registerReplication(dependencies: ReplicationDependencies): OpenExtension {
  return async (services, { landing }) => {
    const world = await dependencies.openWorld(services, landing);
    const limits = { ...replicationLimits, ...dependencies.limits };
    const landings = new Landings({ ...world, openManaged: async (diskId) => await services.managedDisks.open(diskId) });
    const { [Symbol.asyncDispose]: _close, ...opened } = world;
    const { target, images, place } = opened;
    const replication: Replication = { ...opened, services, landings, limits };
    let engine: JobEngine | undefined;
    const loops = new AsyncDisposableStack();
    const running = (): JobEngine => {
      if (engine === undefined) throw new Error("assertion failed: the extension was started before the first request");
      return engine;
    };
    const front: ReplicationFront = {
      ...replication,
      get engine() {
        return running();
      },
    };
    const extension: HubExtension = {
      name: "replication",
      types: [
        ...siteTypes(front),
        itemResource(front),
        pointResource(front),
        planResource(front),
        jobResource(services, running, { ...reportActions(front), ...jobFileActions(front) }),
        eventResource(services),
        machineResource(front),
        ...machineParts(front),
      ],
      jobKinds: () => running().kinds,
      submit: async (order, db) => await running().submit(order, db),
      start: async () => {
        offerBootLogs(front);
        offerConsoles(front);
        offerPointFiles(front);
        offerJobFiles(front);
        await reattachLanded(replication);
        const { database, clock, log } = services;
        engine = loops.use(
          new JobEngine({
            ...{ ...services, kinds: [...replicationJobs(replication), ...planJobs(front)], place, ...dependencies.jobs },
            onEnd: async (db, job, outcome) => {
              const event = eventOfJob(job, outcome);
              if (event !== undefined) await services.events.record(event, db);
            },
          }),
        );
        loops.use(startRetention(services));
        loops.use(startKeyKeeper(replication, engine));
        loops.use(startDueLoop(front));
        loops.use(startAutostart(front));
        const seen = { database, log, target, ...(images === undefined ? {} : { images }) };
        loops.use(startCollecting({ collector: new Collector(seen), database, clock, log }));
        loops.use(startHealth({ services, landedNames: async () => await target.list(), place, limits: dependencies.health ?? {} }));
      },
      [Symbol.asyncDispose]: async () => {
        await loops.disposeAsync();
        await world[Symbol.asyncDispose]();
        await landings[Symbol.asyncDispose]();
      },
    };
    return extension;
  };
}

function replicationJobs(world: Replication): readonly JobKind[] {
  return [
    defineGroupRemoval(world.services),
    defineEnableProtection(world),
    defineTestFailover(world),
    defineTestFailoverCleanup(world),
    defineRehearsal(world),
    defineUnplannedFailover(world),
    defineCommitFailover(world),
    defineCancelFailover(world),
    defineDisableProtection(world),
    defineExportPoint(world),
    defineUpdatePolicy(world),
    definePutVcenter(world, "add"),
    definePutVcenter(world, "change"),
    defineRemoveVcenter(world),
    defineDiscoverMachine(world),
    defineRenewCertificate(world),
    defineSwitchProcessServer(world),
    defineRefreshProvider(world),
    defineRepairReplication(world),
    defineUpdateAgent(world),
    defineAddDisks(world),
    defineRemoveDisks(world),
    defineApplyPoint(world),
    defineReversePoint(world),
    defineReverseDelta(world),
    defineReverseEnd(world),
    defineMachinePower(world),
    defineMachineRemoval(world),
    defineMachineCreation(world),
    defineRotateVaultKey(world),
    defineCountVaultSeals(world),
    defineDestroyVaultKey(world),
    defineChangeLimits(world),
    defineProfileMachine(world),
    defineCheckNetwork(world),
  ];
}

/**
 * Machines that still read from a recovery point get it served again, before any job goes on. Only those are looked at that may: a migration
 * that has ended has filled its machine.
 */
async function reattachLanded(world: Replication): Promise<void> {
  const { database, log } = world.services;
  for (const properties of await landedUnfilled(database.db)) {
    const landed = landedMachineShape.parse(properties);
    if (landed.place !== undefined && world.place !== undefined && landed.place !== world.place) continue;
    try {
      await world.landings.reattach(landed);
    } catch (error) {
      // The hub must start without it: the machine's own job or its clean-up tells the person, and the next start tries again.
      const reason = error instanceof Error ? error.message : String(error);
      log.error("landed machine not reattached", { name: landed.launch.name, reason });
    }
  }
}
