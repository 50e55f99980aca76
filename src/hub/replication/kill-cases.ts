// A case for every kind of job that the replication runs, for the kill matrix. A kind without one fails its test.

import { simGroup, simVault } from "./sim/sim-hub.ts";
import { enableBody, type KillCase, type TrialSite } from "./kill-trial.ts";

const machine = `${simGroup}/providers/Microsoft.Compute/virtualMachines/web`;
const details = { instanceType: "InMageAzureV2" };
const removeBody = { properties: { providerSpecificDetails: { ...details, disksToRemove: [{ diskId: "disk-1" }] } } };
const unlockKeys = [Buffer.from("a passphrase").toString("base64")];
const probe = { port: 80, path: "/", timeoutSeconds: 1 };
const migrateBody = {
  properties: { sourceSiteOperations: "Required", providerSpecificDetails: { ...details, network: "prod", probe, unlockKeys } },
};

const enable = async (trial: TrialSite): Promise<void> => await trial.run("PUT", trial.item, enableBody(trial));
const test = async (trial: TrialSite): Promise<string> =>
  await trial.begin("POST", `${trial.item}/testFailover`, { properties: { providerSpecificDetails: { ...details, probe, unlockKeys } } });
const migrate = async (trial: TrialSite): Promise<string> => await trial.begin("POST", `${trial.item}/unplannedFailover`, migrateBody);
const rehearse = async (
  trial: TrialSite,
  actions: readonly object[] = [{ kind: "ssh" }, { kind: "serial", text: "login:" }],
): Promise<string> => await trial.begin("POST", `${trial.item}/rehearse`, { properties: { actions, unlockKeys } });
const migrated = async (trial: TrialSite): Promise<void> => {
  await enable(trial);
  await trial.run("POST", `${trial.item}/unplannedFailover`, migrateBody);
};

const committed = async (trial: TrialSite): Promise<void> => {
  await migrated(trial);
  await trial.run("POST", `${trial.item}/failoverCommit`);
};
const goBack = async (trial: TrialSite, isFinal: boolean): Promise<string> =>
  await trial.begin("POST", `${trial.item}/reversePoint`, { properties: { isFinal } });

const wentBack = async (trial: TrialSite): Promise<void> => {
  await committed(trial);
  await trial.run("POST", `${trial.item}/reversePoint`, { properties: { isFinal: true } });
};

/** The oldest point cannot boot, the one that the machine migrated from can. */
const migratedWithBadPoint = async (trial: TrialSite): Promise<void> => {
  const bytes = trial.site.sources[0]?.disks[0]?.content.bytes;
  const mark = bytes?.slice(0, 16) ?? new Uint8Array();
  bytes?.fill(1, 0, 16);
  await enable(trial);
  bytes?.set(mark);
  await trial.run("POST", `${trial.item}/unplannedFailover`, migrateBody);
};
const applyOldest = async (trial: TrialSite): Promise<string> => {
  const recoveryPointId = (await trial.points()).at(-1);
  return await trial.begin("POST", `${trial.item}/applyRecoveryPoint`, {
    properties: { recoveryPointId, providerSpecificDetails: { ...details, unlockKeys } },
  });
};

const goingGroup = simGroup.replace(/[^/]+$/, "going");

const planPath = `${simVault}/replicationRecoveryPlans/plan`;
const planDetails = { failoverDirection: "PrimaryToRecovery", providerSpecificDetails: [{ ...details, probe }] };
const planBodies = { testFailover: { properties: planDetails }, unplannedFailover: { properties: planDetails } };

/** Protects the machine, makes a plan of one group with it, and runs what comes before. */
const planned =
  (...actions: readonly (keyof typeof planBodies)[]) =>
  async (trial: TrialSite): Promise<void> => {
    await enable(trial);
    await trial.call("PATCH", trial.item, { properties: { selectedRecoveryAzureNetworkId: "prod" } });
    await trial.call("PUT", planPath, {
      properties: {
        primaryFabricId: trial.site.container.split("/replicationProtectionContainers/")[0],
        recoveryFabricId: "Microsoft Azure",
        groups: [{ groupType: "Boot", replicationProtectedItems: [{ id: trial.item }] }],
      },
    });
    for (const action of actions) await trial.run("POST", `${planPath}/${action}`, planBodies[action]);
  };

const fabricOf = (trial: TrialSite): string => trial.site.container.replace(/\/replicationProtectionContainers\/.*/, "");
const vcenterBody = { properties: { friendlyName: "second", ipAddress: "second.site.test", port: "443", runAsAccountId: "vcenter" } };
const addVcenter = async (trial: TrialSite): Promise<void> =>
  await trial.run("PUT", `${fabricOf(trial)}/replicationvCenters/second`, vcenterBody);

const keyPath = (generation: number): string => `${simVault}/watariKeyGenerations/${generation}`;
const rotate = async (trial: TrialSite): Promise<string> => await trial.begin("PUT", keyPath(2), { properties: {} });

export const killCases: readonly KillCase[] = [
  {
    ...{ kind: "EnableProtection", name: "protects", ends: "succeeded" },
    prepare: async () => undefined,
    begin: async (trial) => await trial.begin("PUT", trial.item, enableBody(trial)),
  },
  {
    ...{ kind: "EnableProtection", name: "push fails", ends: "failed" },
    prepare: async () => undefined,
    harm: (site) => void site.appliance.failures.set("protect", { times: 1, code: "AgentSilent" }),
    begin: async (trial) => await trial.begin("PUT", trial.item, enableBody(trial)),
  },
  { ...{ kind: "TestFailover", name: "boots", ends: "succeeded" }, prepare: enable, begin: test },
  {
    ...{ kind: "TestFailover", name: "hydration fails", ends: "failed" },
    prepare: async (trial) => {
      // The simulated target cannot hydrate a disk without its mark; the point of the protection has it no more.
      trial.site.sources[0]?.disks[0]?.content.bytes.fill(1, 0, 16);
      await enable(trial);
    },
    begin: test,
  },
  {
    ...{ kind: "TestFailoverCleanup", name: "cleans", ends: "succeeded" },
    prepare: async (trial) => {
      await enable(trial);
      await trial.run("POST", `${trial.item}/testFailover`, { properties: { providerSpecificDetails: { ...details, probe } } });
    },
    begin: async (trial) => await trial.begin("POST", `${trial.item}/testFailoverCleanup`, {}),
  },
  { ...{ kind: "Rehearsal", name: "answers", ends: "succeeded" }, prepare: enable, begin: async (trial) => await rehearse(trial) },
  {
    ...{ kind: "Rehearsal", name: "does not answer", ends: "failed" },
    prepare: enable,
    begin: async (trial) =>
      await rehearse(trial, [
        { kind: "tcp", port: 80 },
        { kind: "serial", text: "nobody says this", timeoutSeconds: 1 },
      ]),
  },
  { ...{ kind: "UnplannedFailover", name: "lands", ends: "succeeded" }, prepare: enable, begin: migrate },
  {
    ...{ kind: "UnplannedFailover", name: "promotes a test", ends: "succeeded" },
    prepare: async (trial) => {
      await enable(trial);
      await trial.run("POST", `${trial.item}/testFailover`, { properties: { providerSpecificDetails: { ...details, probe } } });
    },
    begin: async (trial) => await trial.begin("POST", `${trial.item}/promote`, migrateBody),
  },
  {
    ...{ kind: "UnplannedFailover", name: "fence fails", ends: "failed" },
    prepare: enable,
    harm: (site) => void site.appliance.failures.set("fence", { times: 1, code: "FenceUnconfirmed" }),
    begin: migrate,
  },
  {
    ...{ kind: "UnplannedFailover", name: "launch fails", ends: "failed" },
    prepare: enable,
    harm: (site) => void site.sources[0]?.disks[0]?.content.bytes.fill(1, 0, 16),
    begin: migrate,
  },
  {
    ...{ kind: "UnplannedFailover", name: "lands from an earlier point", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) =>
      await trial.begin("POST", `${trial.item}/unplannedFailover`, {
        properties: { providerSpecificDetails: { ...details, network: "prod", recoveryPointType: "LatestProcessed" } },
      }),
  },
  { ...{ kind: "ApplyRecoveryPoint", name: "lands anew", ends: "succeeded" }, prepare: migrated, begin: applyOldest },
  {
    ...{ kind: "ApplyRecoveryPoint", name: "the point does not boot", ends: "failed" },
    prepare: migratedWithBadPoint,
    begin: applyOldest,
  },
  {
    ...{ kind: "ReversePoint", name: "stores", ends: "succeeded" },
    prepare: committed,
    begin: async (trial) => await goBack(trial, false),
  },
  { ...{ kind: "ReversePoint", name: "ends", ends: "succeeded" }, prepare: committed, begin: async (trial) => await goBack(trial, true) },
  {
    ...{ kind: "ReverseDelta", name: "writes", ends: "succeeded" },
    prepare: wentBack,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/reverseDelta`),
  },
  {
    ...{ kind: "ReverseEnd", name: "starts the landed machine", ends: "succeeded" },
    prepare: wentBack,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/reverseEnd`, { properties: { side: "landed" } }),
  },
  {
    ...{ kind: "ReverseEnd", name: "starts the source", ends: "succeeded" },
    prepare: wentBack,
    begin: async (trial) =>
      await trial.begin("POST", `${trial.item}/reverseEnd`, { properties: { side: "source", disks: await trial.returnRoots() } }),
  },
  {
    ...{ kind: "ReverseEnd", name: "is not told what was written", ends: "failed" },
    prepare: wentBack,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/reverseEnd`, { properties: { side: "source", disks: [] } }),
  },
  {
    ...{ kind: "RepairReplication", name: "compares", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/repairReplication`),
  },
  {
    ...{ kind: "UpdateMobilityService", name: "updates", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/updateMobilityService`),
  },
  {
    ...{ kind: "RemoveDisks", name: "leaves one out", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/removeDisks`, removeBody),
  },
  {
    ...{ kind: "RemoveDisks", name: "the point fails", ends: "failed" },
    prepare: enable,
    harm: (site) => void site.appliance.failures.set("point", { times: 1, code: "AgentSilent" }),
    begin: async (trial) => await trial.begin("POST", `${trial.item}/removeDisks`, removeBody),
  },
  {
    ...{ kind: "AddDisks", name: "takes one in", ends: "succeeded" },
    prepare: async (trial) => {
      await enable(trial);
      await trial.run("POST", `${trial.item}/removeDisks`, removeBody);
    },
    begin: async (trial) =>
      await trial.begin("POST", `${trial.item}/addDisks`, {
        properties: { providerSpecificDetails: { ...details, disksToInclude: [{ diskId: "disk-1" }] } },
      }),
  },
  {
    ...{ kind: "CommitFailover", name: "commits", ends: "succeeded" },
    prepare: migrated,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/failoverCommit`),
  },
  {
    ...{ kind: "CancelFailover", name: "goes back", ends: "succeeded" },
    prepare: migrated,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/failoverCancel`),
  },
  {
    ...{ kind: "DisableProtection", name: "ends", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${trial.item}/remove`, {}),
  },
  {
    ...{ kind: "ExportPoint", name: "writes", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) =>
      await trial.begin("POST", `${trial.item}/export`, { properties: { providerSpecificDetails: { ...details, format: "raw" } } }),
  },
  {
    ...{ kind: "RecoveryPlanTestFailover", name: "boots", ends: "succeeded" },
    prepare: planned(),
    begin: async (trial) => await trial.begin("POST", `${planPath}/testFailover`, planBodies.testFailover),
  },
  {
    ...{ kind: "RecoveryPlanTestFailoverCleanup", name: "cleans", ends: "succeeded" },
    prepare: planned("testFailover"),
    begin: async (trial) => await trial.begin("POST", `${planPath}/testFailoverCleanup`),
  },
  {
    ...{ kind: "RecoveryPlanUnplannedFailover", name: "lands", ends: "succeeded" },
    prepare: planned(),
    begin: async (trial) => await trial.begin("POST", `${planPath}/unplannedFailover`, planBodies.unplannedFailover),
  },
  {
    ...{ kind: "RecoveryPlanCommitFailover", name: "commits", ends: "succeeded" },
    prepare: planned("unplannedFailover"),
    begin: async (trial) => await trial.begin("POST", `${planPath}/failoverCommit`),
  },
  {
    ...{ kind: "RecoveryPlanCancelFailover", name: "goes back", ends: "succeeded" },
    prepare: planned("unplannedFailover"),
    begin: async (trial) => await trial.begin("POST", `${planPath}/failoverCancel`),
  },
  {
    ...{ kind: "UpdatePolicy", name: "tells", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) =>
      await trial.begin("PATCH", trial.item.replace(/replicationFabrics\/.*/, "replicationPolicies/default"), {
        properties: { replicationProviderSettings: { ...details, pointIntervalSeconds: 30 } },
      }),
  },
  {
    ...{ kind: "DiscoverVCenter", name: "adds", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("PUT", `${fabricOf(trial)}/replicationvCenters/second`, vcenterBody),
  },
  {
    ...{ kind: "DiscoverVCenter", name: "is refused", ends: "failed" },
    prepare: enable,
    begin: async (trial) =>
      await trial.begin("PUT", `${fabricOf(trial)}/replicationvCenters/second`, {
        properties: { ...vcenterBody.properties, runAsAccountId: "vcenter-wrong" },
      }),
  },
  {
    ...{ kind: "UpdateVCenter", name: "changes", ends: "succeeded" },
    prepare: async (trial) => {
      await enable(trial);
      await addVcenter(trial);
    },
    begin: async (trial) =>
      await trial.begin("PATCH", `${fabricOf(trial)}/replicationvCenters/second`, { properties: { friendlyName: "renamed" } }),
  },
  {
    ...{ kind: "RemoveVCenter", name: "forgets", ends: "succeeded" },
    prepare: async (trial) => {
      await enable(trial);
      await addVcenter(trial);
    },
    begin: async (trial) => await trial.begin("DELETE", `${fabricOf(trial)}/replicationvCenters/second`),
  },
  {
    ...{ kind: "RenewCertificate", name: "renews", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${fabricOf(trial)}/renewCertificate`, {}),
  },
  {
    ...{ kind: "SwitchProcessServer", name: "goes over", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => {
      const targetProcessServerId = await trial.site.addNeighbour();
      return await trial.begin("POST", `${fabricOf(trial)}/reassociateGateway`, { properties: { targetProcessServerId } });
    },
  },
  {
    ...{ kind: "DiscoverProtectableItem", name: "adds", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) =>
      await trial.begin("POST", `${trial.site.container}/discoverProtectableItem`, {
        properties: { friendlyName: "metal", ipAddress: "10.10.9.9", osType: "Linux" },
      }),
  },
  { ...{ kind: "RotateVaultKey", name: "changes", ends: "succeeded" }, prepare: enable, begin: rotate },
  {
    ...{ kind: "RotateVaultKey", name: "an appliance refuses", ends: "failed" },
    prepare: enable,
    harm: (site) => void site.appliance.failures.set("takeVaultKeys", { times: 1, code: "StoreUnavailable" }),
    begin: rotate,
  },
  {
    ...{ kind: "CountVaultSeals", name: "counts", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${keyPath(1)}/count`, {}),
  },
  {
    ...{ kind: "DestroyVaultKey", name: "destroys", ends: "succeeded" },
    prepare: async (trial) => await trial.run("PUT", keyPath(2), { properties: {} }),
    begin: async (trial) => await trial.begin("DELETE", keyPath(1)),
  },
  {
    ...{ kind: "DestroyVaultKey", name: "it is needed", ends: "failed" },
    prepare: async (trial) => {
      await enable(trial);
      await trial.run("PUT", keyPath(2), { properties: {} });
    },
    begin: async (trial) => await trial.begin("DELETE", keyPath(1)),
  },
  {
    ...{ kind: "ChangeLineLimits", name: "limits", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) =>
      await trial.begin("POST", `${fabricOf(trial)}/changeLineLimits`, { set: [{ scope: "storage", bytesPerSecond: 1_000_000 }] }),
  },
  {
    ...{ kind: "ProfileMachine", name: "counts", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${fabricOf(trial)}/profileMachine`, { machine: "web", seconds: 10 }),
  },
  {
    ...{ kind: "CheckNetwork", name: "tries", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", `${fabricOf(trial)}/checkNetwork`, {}),
  },
  {
    ...{ kind: "ResourceGroupRemoval", name: "empties", ends: "succeeded" },
    prepare: async (trial) => {
      await trial.call("PUT", goingGroup, { location: "sim" });
      for (const name of ["a", "b", "c"]) await trial.call("PUT", `${goingGroup}/providers/Microsoft.Watari/simThings/${name}`, {});
    },
    begin: async (trial) => await trial.begin("DELETE", goingGroup),
  },
  {
    ...{ kind: "RefreshProvider", name: "looks", ends: "succeeded" },
    prepare: enable,
    begin: async (trial) => await trial.begin("POST", trial.item.replace(/\/replicationProtectionContainers\/.*/, "/checkConsistency")),
  },
  {
    ...{ kind: "MachinePower", name: "restarts", ends: "succeeded" },
    prepare: migrated,
    begin: async (trial) => await trial.begin("POST", `${machine}/restart`),
  },
  {
    ...{ kind: "MachineCreation", name: "makes", ends: "succeeded" },
    prepare: async (trial) => {
      await enable(trial);
      await trial.uploadDisk("made-os");
    },
    begin: async (trial) =>
      await trial.begin("PUT", machine.replace(/web$/, "made"), {
        location: "sim",
        properties: {
          hardwareProfile: { vmSize: "Watari_1c_512m" },
          storageProfile: {
            osDisk: {
              createOption: "Attach",
              osType: "Linux",
              managedDisk: { id: `${simGroup}/providers/Microsoft.Compute/disks/made-os` },
            },
          },
          networkProfile: { networkInterfaces: [] },
        },
      }),
  },
  {
    ...{ kind: "MachineRemoval", name: "removes", ends: "succeeded" },
    prepare: async (trial) => {
      await migrated(trial);
      await trial.run("POST", `${trial.item}/failoverCommit`);
    },
    begin: async (trial) => await trial.begin("DELETE", machine),
  },
];
