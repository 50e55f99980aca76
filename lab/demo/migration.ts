// One migration as the operator orders it: the commands in their order, and what each part found out for the report.

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { Fault } from "../../src/contract/errors.ts";
import { machinePaths, readRecord } from "../../src/landing/qemu/machine-record.ts";
import type { LabFacts } from "../lab.ts";
import type { LabMachine } from "../machine.ts";
import { readLedgerFromDisk, verifyLedger } from "./ledger.ts";
import { measureRawBoot, type RawBoot } from "./raw-boot.ts";
import type { DemoDisk, DemoMeasurements } from "./report.ts";
import { landingNetwork, operate, type Stage, startAppliance, startHub, stopProgram, watari } from "./stage.ts";
import type { StepRunner } from "./steps.ts";

export type Measured = Omit<DemoMeasurements, "seconds" | "steps" | "forbiddenPackets" | "forbiddenFlows">;

const vault = "vault1";
const storage = "watarilab1";
const policy = "every-5-seconds";
const ledgerPort = "8080";
const pointsBeforeTest = 4;

const credentialsShape = z.object({ credentials: z.array(z.object({ name: z.string(), credentialId: z.string() })) });
const pointsShape = z.array(z.looseObject({ name: z.string() }));
const evidenceShape = z.looseObject({
  landedName: z.string(),
  hydrationSeconds: z.number(),
  orderToProbeSeconds: z.number().optional(),
  downtimeSeconds: z.number().optional(),
  addresses: z.array(z.string()).default([]),
  sourceRoots: z.array(z.object({ diskId: z.string(), root: z.string() })).default([]),
  pointId: z.string(),
  osUpgrade: z.object({ to: z.string(), text: z.string(), seconds: z.number() }).optional(),
});
type Evidence = z.infer<typeof evidenceShape>;
const jobShape = z.looseObject({ properties: z.looseObject({ watari: z.looseObject({ evidence: evidenceShape }) }) });

const itemShape = z.looseObject({
  properties: z.looseObject({
    providerSpecificDetails: z.looseObject({
      protectedDisks: z.array(z.looseObject({ diskId: z.string(), progressStatus: z.string() })),
      watari: z.looseObject({ residentBytes: z.number(), cpuSeconds: z.number() }),
    }),
  }),
});
const recoveryPointShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    providerSpecificDetails: z.looseObject({
      watari: z.looseObject({
        readBytes: z.number(),
        sentBytes: z.number(),
        storedBytes: z.number(),
        frozenMs: z.number(),
        disks: z.array(z.looseObject({ diskId: z.string(), sizeBytes: z.number(), root: z.string() })),
      }),
    }),
  }),
});
type Point = z.infer<typeof recoveryPointShape>;
type PointFacts = Point["properties"]["providerSpecificDetails"]["watari"];

/** Orders one migration and measures it. The methods are called once each, in the order in which they stand. */
export class Migration {
  readonly #stage: Stage;
  readonly #facts: LabFacts;
  readonly #source: LabMachine;
  readonly #runner: StepRunner;
  #setupSeconds = 0;
  #initialSeconds = 0;
  #agent = { residentBytes: 0, cpuSeconds: 0, tracking: [] as readonly string[] };
  #points: readonly Point[] = [];
  #test: Evidence | undefined;
  #rawBootToProbeSeconds = 0;
  #cutover: Evidence | undefined;
  #upgrade: Evidence["osUpgrade"];

  constructor(stage: Stage, facts: LabFacts, source: LabMachine, runner: StepRunner) {
    this.#stage = stage;
    this.#facts = facts;
    this.#source = source;
    this.#runner = runner;
  }

  async prepare(): Promise<void> {
    const stage = this.#stage;
    const { proxy, applianceAddress, zones } = this.#facts;
    await this.#runner.run("start the hub in the landing zone", async () => await startHub(stage, this.#facts));
    await this.#runner.run("create project, storage account and vault with private endpoints", async () => {
      await this.#order("login", "--operator-file", join(stage.hubState, "operator.json"), "--proxy", proxy.url);
      await this.#order("network", "create", landingNetwork, "--cidr", "10.200.0.0/24");
      await this.#order("project", "create", "demo", "--network", landingNetwork);
      await this.#order("storage", "create", storage, "--network", landingNetwork);
      await this.#order("vault", "create", vault, "--storage", storage, "--network", landingNetwork);
      await this.#order("policy", "create", policy, "--vault", vault, "--interval", "5");
    });
    const keyFile = join(stage.folder, "registration-key.json");
    await this.#runner.run("start the appliance and check every hop", async () => {
      await this.#order("vault", "registration-key", vault, "--out", keyFile);
      await this.#appliance("init", "--listen", applianceAddress, "--proxy", proxy.url, "--dns", zones.onprem.resolver);
      await startAppliance(stage, async () => await this.#isApplianceUp());
      await this.#appliance("check", "--key", keyFile);
    });
    await this.#runner.run("register the appliance through the private endpoint", async () => {
      await this.#appliance("register", "--key", keyFile);
    });
    this.#setupSeconds = this.#runner.steps.slice(-2).reduce((sum, { seconds }) => sum + seconds, 0);
    await this.#runner.run("keep credentials on the appliance and discover machines in vCenter", async () => await this.#discover());
  }

  async replicate(): Promise<void> {
    const { credentials } = credentialsShape.parse(await this.#appliance("credential", "list"));
    const guest = credentials.find((credential) => credential.name === "guest");
    if (guest === undefined) throw new Fault("NotFound", "the appliance does not list the guest's account");
    await this.#runner.run("push the agent over SSH and copy both disks", async () => {
      await this.#machine("protect", "--account", guest.credentialId, "--policy", policy);
    });
    this.#initialSeconds = this.#runner.steps.at(-1)?.seconds ?? 0;
    await this.#runner.run(`follow the changes until there are ${pointsBeforeTest} recovery points`, async (tell) => {
      const points = pointsShape.parse(await this.#machine("points", "--wait", String(pointsBeforeTest)));
      tell(`${points.length} recovery points, the newest is ${points[0]?.name ?? ""}`);
    });
  }

  async test(): Promise<void> {
    await this.#runner.run("test migration: boot the latest point in an isolated network", async (tell) => {
      this.#test = evidenceOf(await this.#machine("test", "--probe-port", ledgerPort));
      tell(`the ledger answered ${this.#test.orderToProbeSeconds ?? 0} s after the order; hydration took ${this.#test.hydrationSeconds} s`);
    });
    // Now, while the source runs beside it as it did during the test: the same load for both.
    this.#rawBootToProbeSeconds = await this.#runner.run(
      "yardstick: boot the same machine from local raw files",
      async () => await this.#bootRaw(),
    );
    await this.#runner.run("clean the test up", async () => {
      await this.#machine("test-cleanup", "--comment", "the ledger answered");
    });
  }

  /** A second test, in which the copy is upgraded from a disk that is made for this very machine; the source goes on as it is. */
  async testUpgrade(release: string): Promise<void> {
    const [status, disk] = [join(this.#stage.folder, "source.status"), join(this.#stage.hubState, "upgrades", `${release}.raw`)];
    await this.#runner.run(`make the disk that upgrades to ${release}, from the source's list of packages`, async (tell) => {
      await this.#machine("fetch", "/var/lib/dpkg/status", "--plain", "--volume", await this.#rootVolume(), "--out", status);
      // Not from the desk, which reaches no archive of packages.
      const built = await watari(["upgrade-disk", "build", "--to", release, "--status", status, "--out", disk]);
      const { packages, sizeBytes } = z.looseObject({ packages: z.record(z.string(), z.string()), sizeBytes: z.number() }).parse(built);
      tell(`${Object.keys(packages).length} packages, ${Math.round(sizeBytes / 2 ** 20)} MiB`);
    });
    await this.#runner.run(`test migration with an upgrade to ${release} (long on an emulated processor)`, async (tell) => {
      const evidence = evidenceOf(await this.#machine("test", "--probe-port", ledgerPort, "--upgrade", release));
      if (evidence.osUpgrade === undefined) throw new Fault("UpgradeFailed", "the job does not tell that the test machine was upgraded");
      this.#upgrade = evidence.osUpgrade;
      tell(`the guest says: ${evidence.osUpgrade.text}; the ledger answered after it`);
    });
    await this.#runner.run("clean the test of the upgrade up", async () => {
      await this.#machine("test-cleanup", "--comment", "upgraded, and the ledger answered");
    });
  }

  async #rootVolume(): Promise<string> {
    const volumes = z.array(z.looseObject({ name: z.string(), isReadable: z.boolean() })).parse(await this.#machine("files"));
    return volumes.find(({ isReadable }) => isReadable)?.name ?? "1.1";
  }

  async migrate(): Promise<void> {
    await this.#runner.run("migrate: last delta, equal roots, source off, target on, probe", async (tell) => {
      await this.#readAgent();
      this.#cutover = evidenceOf(await this.#machine("migrate", "--network", landingNetwork, "--probe-port", ledgerPort));
      tell(`from the order to freeze to the target's answer: ${this.#cutover.downtimeSeconds ?? 0} s`);
    });
    await this.#runner.run("commit", async () => {
      await this.#machine("commit");
    });
  }

  /** With `keep` the vault, its storage and the appliance stay. */
  async complete({ keep }: { readonly keep: boolean }): Promise<Measured> {
    this.#points = z.array(recoveryPointShape).parse(await this.#machine("points"));
    const ledger = await this.#runner.run(
      "read the ledgers: the source's disk and the landed machine",
      async () => await this.#compareLedgers(),
    );
    await this.#runner.run("complete: stop replication, give back what the vault holds", async () => {
      await this.#machine("complete");
    });
    const left = keep
      ? []
      : await this.#runner.run("end the appliance; remove vault, storage account and project with their endpoints", async () => {
          return await this.#removeResources();
        });
    const total = (read: (facts: PointFacts) => number): number => this.#points.reduce((sum, point) => sum + read(factsOf(point)), 0);
    return {
      setupSeconds: Math.round(this.#setupSeconds * 100) / 100,
      disks: this.#compareDisks(),
      recoveryPoints: this.#points.length,
      replication: {
        readBytes: total((point) => point.readBytes),
        sentBytes: total((point) => point.sentBytes),
        storedBytes: total((point) => point.storedBytes),
        initialSeconds: this.#initialSeconds,
      },
      agent: { ...this.#agent, longestFreezeMs: Math.max(0, ...this.#points.map((point) => factsOf(point).frozenMs)) },
      testMigration: {
        orderToProbeSeconds: this.#test?.orderToProbeSeconds ?? 0,
        hydrationSeconds: this.#test?.hydrationSeconds ?? 0,
        rawBootToProbeSeconds: this.#rawBootToProbeSeconds,
      },
      ...(this.#upgrade === undefined ? {} : { upgrade: this.#upgrade }),
      ledger,
      leftovers: left,
    };
  }

  async #discover(): Promise<void> {
    const { vcenter, guest, caFile } = this.#facts;
    const kept = (name: string, kind: string, user: string, file: string): readonly string[] => [
      ...["credential", "add", "--name", name, "--kind", kind, "--user", user, "--secret-file", file],
    ];
    await this.#appliance(...kept("vcenter", "vcenter", vcenter.user, vcenter.passwordFile));
    await this.#appliance(...kept("guest", "linux-password", guest.user, guest.passwordFile), "--privilege", "sudo");
    await this.#appliance("vcenter", "add", "--name", "vc", "--address", vcenter.name, "--credential", "vcenter", "--ca", caFile);
    await this.#appliance("discover");
  }

  async #readAgent(): Promise<void> {
    const item = itemShape.parse(await this.#machine("show"));
    const { watari, protectedDisks } = item.properties.providerSpecificDetails;
    this.#agent = {
      residentBytes: watari.residentBytes,
      cpuSeconds: watari.cpuSeconds,
      tracking: protectedDisks.map((disk) => `${disk.diskId}: ${disk.progressStatus}`),
    };
  }

  async #compareLedgers(): Promise<Measured["ledger"]> {
    const { place, folder } = this.#stage;
    const [address] = this.#cutover?.addresses ?? [];
    const [firstDisk] = this.#source.disks;
    if (address === undefined || firstDisk === undefined) throw new Fault("NotFound", "the landed machine told no address");
    const before = await readLedgerFromDisk(firstDisk.path, folder);
    const landed = await verifyLedger(place, "landing", `http://${address}:${ledgerPort}`);
    const [current, previous] = landed.boots.toReversed();
    if (current === undefined || previous === undefined) throw new Fault("DataDamaged", "the landed ledger does not tell two boots");
    return {
      lastBefore: before.last,
      firstAfter: current.first,
      missing: landed.missing + Math.max(0, before.last - previous.last),
      damaged: landed.damaged,
      downtimeSeconds: (current.firstTimeMs - before.timeMs) / 1000,
    };
  }

  #compareDisks(): readonly DemoDisk[] {
    const final = this.#points.find((point) => point.name === this.#cutover?.pointId);
    const sourceRoots = new Map(this.#cutover?.sourceRoots.map(({ diskId, root }) => [diskId, root]));
    return (final === undefined ? [] : factsOf(final).disks).map(({ diskId, sizeBytes, root }) => ({
      id: diskId,
      sizeBytes,
      sourceRoot: sourceRoots.get(diskId) ?? "",
      targetRoot: root,
    }));
  }

  /** Answers what the hub still has of the migration; the landed machine is meant to stay. */
  async #removeResources(): Promise<readonly string[]> {
    const { replicating } = z
      .looseObject({ replicating: z.array(z.looseObject({ name: z.string() })) })
      .parse(await this.#order("machine", "list", "--vault", vault));
    // An appliance that asks for a name whose endpoint is gone would be counted, and rightly.
    await stopProgram(this.#stage, "appliance");
    await this.#order("vault", "remove", vault);
    await this.#order("storage", "remove", storage);
    await this.#order("project", "remove", "demo");
    const packs = await findFiles(join(this.#stage.hubState, "blob"));
    return [...replicating.map((item) => `protected item ${item.name}`), ...packs.map((file) => `stored file ${file}`)];
  }

  /** The test machine is switched off; its hydrated clone, still standing on the recovery point, is copied whole into raw files. */
  async #bootRaw(): Promise<number> {
    const name = this.#test?.landedName ?? "";
    await this.#order("landed", "stop", name);
    const paths = machinePaths(join(this.#stage.hubState, "landing"), name);
    const record = await readRecord(paths);
    if (record === undefined) throw new Fault("Internal", `could not read the record of the test machine ${name}`);
    const machine: RawBoot = {
      place: this.#stage.place,
      disks: record.disks.map(({ isBoot }, index) => ({ image: paths.overlay(index), isBoot })),
      workFolder: this.#stage.folder,
      mac: this.#source.mac,
      cpuCount: this.#source.cpuCount,
      memoryBytes: this.#source.memoryMiB * 2 ** 20,
      accelerator: this.#facts.accelerator,
    };
    return await measureRawBoot(machine);
  }

  async #isApplianceUp(): Promise<boolean> {
    try {
      await this.#appliance("status");
      return true;
    } catch (error) {
      if (error instanceof Fault && error.code === "ApplianceNotRunning") return false;
      throw error;
    }
  }

  async #order(...args: readonly string[]): Promise<unknown> {
    return await operate(this.#stage, args);
  }

  async #machine(verb: string, ...args: readonly string[]): Promise<unknown> {
    return await operate(this.#stage, ["machine", verb, this.#source.name, "--vault", vault, ...args]);
  }

  async #appliance(...args: readonly string[]): Promise<unknown> {
    return await operate(this.#stage, ["appliance", ...args, "--state", this.#stage.applianceState]);
  }
}

function evidenceOf(job: unknown): Evidence {
  return jobShape.parse(job).properties.watari.evidence;
}

function factsOf(point: Point): PointFacts {
  return point.properties.providerSpecificDetails.watari;
}

async function findFiles(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}
