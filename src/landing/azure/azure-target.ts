// Lands machines in Azure: a clone hydrated here, uploaded into managed disks, a virtual machine made of them. A hub's own front is such a place too.

import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { Fault } from "../../contract/errors.ts";
import { checkSpec } from "../check-spec.ts";
import { admit, type Authority, type FenceLedger } from "../fence-ledger.ts";
import { detachUnder } from "../hydration/raw-view.ts";
import { runProbeScript } from "../probe-script.ts";
import { openFenceFiles } from "../qemu/fence-files.ts";
import type { ProbeOrder } from "../qemu/http-probe.ts";
import { machinePaths, readRecord, recordOf, writeRecord, type MachinePaths, type MachineRecord } from "../qemu/machine-record.ts";
import type {
  ConsoleView,
  HydrationReport,
  LandedStatus,
  LandingDisk,
  LaunchSpec,
  Probe,
  ProbeOutcome,
  StopMode,
  Target,
  TargetCommands,
} from "../target.ts";
import { callAzure, type AzureClients } from "./azure-clients.ts";
import { AzureMachine, machineTag, ownerTag, type AzurePlace } from "./azure-machine.ts";
import type { PrepareDisks } from "./prepare-disks.ts";
import { uploadVhd } from "./vhd-upload.ts";

export interface AzureTargetOptions {
  /** Own folder for clones, journals and records; a short path: sockets lie in it. One process at a time owns it. */
  readonly stateFolder: string;
  readonly azure: AzureClients;
  readonly place: AzurePlace;
  readonly prepare: PrepareDisks;
  /** Asks a machine's service over the network, again and again until the time is over. */
  readonly ask: (order: ProbeOrder & { readonly name: string }, signal?: AbortSignal) => Promise<ProbeOutcome>;
  /** Reads what stands at a signed address; undefined when nothing does. */
  readonly fetchBytes: (address: string, bytesMax: number) => Promise<Uint8Array | undefined>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

const serialBytesMax = 1 << 20;
const screenshotBytesMax = 8 << 20;
const serialTailCharacters = 4096;
const probePauseMs = 500;
const pngSignature = Buffer.from("89504e470d0a1a0a", "hex");

export async function openAzureTarget(options: AzureTargetOptions): Promise<AzureTarget> {
  await mkdir(join(options.stateFolder, "machines"), { recursive: true, mode: 0o700 });
  return new AzureTarget(options);
}

/** A machine stands by itself once it runs: nothing depends on its recovery point any more. */
export class AzureTarget implements Target {
  readonly kind = "azure";
  readonly #options: AzureTargetOptions;
  readonly #ledger: FenceLedger;
  /** Changes to one machine come one after another. */
  readonly #turns = new Map<string, { readonly semaphore: Semaphore; count: number }>();

  /** Use openAzureTarget. */
  constructor(options: AzureTargetOptions) {
    this.#options = options;
    this.#ledger = openFenceFiles(join(options.stateFolder, "fences"));
  }

  under(authority: Authority): TargetCommands {
    const existing = async (name: string, doing: string): Promise<AzureMachine> => {
      await admit(this.#ledger, name, authority);
      return await this.#existing(name, doing);
    };
    return {
      launch: async (spec, signal) => await this.#launch(authority, spec, signal),
      fill: async (name, onProgress) => {
        await existing(name, "fill");
        onProgress(0);
      },
      start: async (name) =>
        await this.#inTurn(name, async () => {
          const machine = await existing(name, "start");
          if ((await powerOf(machine)) !== "running") await machine.start();
        }),
      stop: async (name, how: StopMode = "orderly") => await this.#inTurn(name, async () => await (await existing(name, "stop")).stop(how)),
      remove: async (name) =>
        await this.#inTurn(name, async () => {
          await admit(this.#ledger, name, authority);
          await this.#erase(name);
        }),
    };
  }

  async #launch(authority: Authority, spec: LaunchSpec, signal?: AbortSignal): Promise<{ readonly hydration: HydrationReport }> {
    checkSpec(spec);
    const machine = this.#machine(spec.name);
    machine.subnetOf(spec);
    return await this.#inTurn(spec.name, async () => {
      await admit(this.#ledger, spec.name, authority);
      const present = await readRecord(this.#paths(spec.name));
      if (present?.state === "landed" && (await machine.find()) !== undefined) {
        if ((await powerOf(machine)) !== "running") await machine.start();
        return { hydration: present.hydration };
      }
      try {
        return await this.#land(machine, authority, spec, signal);
      } catch (error) {
        // What is there now may be the newer hub's machine.
        if (!(error instanceof Fault && error.code === "StaleOrder")) await this.#erase(spec.name);
        throw error;
      }
    });
  }

  /** Each step finds what a killed run has done: the clone, the pages that were acknowledged, the disks, the cards, the machine. */
  async #land(
    machine: AzureMachine,
    authority: Authority,
    spec: LaunchSpec,
    signal?: AbortSignal,
  ): Promise<{ readonly hydration: HydrationReport }> {
    signal?.throwIfAborted();
    const paths = this.#paths(spec.name);
    const record = await this.#begin(spec, paths);
    const prepared = await this.#fillDisks(machine, authority, spec, signal);
    const cards = await machine.makeCards(spec, signal);
    await admit(this.#ledger, spec.name, authority); // The upload took a while; a hub that was paused in it must not start the machine.
    await machine.makeVirtualMachine(spec, cards.ids, signal);
    signal?.throwIfAborted();
    const hydration = { seconds: prepared.seconds, changes: [...prepared.changes, ...cards.told] };
    await writeRecord(paths, { ...record, state: "landed", hydration });
    await this.#dropClone(paths);
    this.#options.log.info("machine landed", { name: spec.name, hydrationSeconds: hydration.seconds });
    return { hydration };
  }

  /** Answers what was changed on the clone, and what became of each disk. The clone is closed on return. */
  async #fillDisks(machine: AzureMachine, authority: Authority, spec: LaunchSpec, signal?: AbortSignal): Promise<HydrationReport> {
    const paths = this.#paths(spec.name);
    const { disks, nics, hasSerialConsole = false, unlockKeys = [] } = spec;
    const guest = { disks, nics, hasSerialConsole, unlockKeys };
    const isMade = (await machine.find()) !== undefined;
    await using prepared = await this.#options.prepare({ paths, ...guest, ...(signal === undefined ? {} : { signal }) });
    const changes = [...prepared.hydration.changes];
    for (const [index, disk] of isMade ? [] : prepared.disks.entries()) {
      const root = spec.disks[index]?.root;
      await admit(this.#ledger, spec.name, authority);
      changes.push(await this.#upload(machine, { spec, index, disk, paths, ...(root === undefined ? {} : { root }) }, signal));
    }
    return { seconds: prepared.hydration.seconds, changes };
  }

  /** What another order left under the name is not gone on with. */
  async #begin(spec: LaunchSpec, paths: MachinePaths): Promise<MachineRecord> {
    const record = recordOf(spec);
    const present = await readRecord(paths);
    const isSame = present !== undefined && JSON.stringify(present.disks) === JSON.stringify(record.disks) && present.state === "landing";
    if (present !== undefined && !isSame) await this.#erase(spec.name);
    await mkdir(paths.folder, { recursive: true, mode: 0o700 });
    await writeRecord(paths, record);
    return record;
  }

  async #upload(
    machine: AzureMachine,
    given: {
      readonly spec: LaunchSpec;
      readonly index: number;
      readonly disk: Awaited<ReturnType<PrepareDisks>>["disks"][number];
      readonly paths: MachinePaths;
      readonly root?: string;
    },
    signal?: AbortSignal,
  ): Promise<string> {
    const { spec, index, disk, paths, root } = given;
    const { azure, clock, random, log } = this.#options;
    const made = await machine.makeDisk(spec, index, signal);
    const name = machine.diskName(index);
    if (made.diskState === "Unattached" || made.diskState === "Attached" || made.diskState === "Reserved")
      return `${name}: was uploaded before`;
    const journals = join(paths.folder, "journals");
    await mkdir(journals, { recursive: true, mode: 0o700 });
    const report = await uploadVhd({
      disk,
      journalPath: join(journals, made.uniqueId ?? name),
      address: async () => await machine.openDisk(index, signal),
      ...{ agent: azure.agent, clock, random },
      ...(root === undefined ? {} : { root }),
      ...(signal === undefined ? {} : { signal }),
    });
    await machine.closeDisk(index, signal);
    log.info("disk uploaded", { name, ...report });
    const { pointRoot, sentRoot } = report;
    return `${name}: uploaded; ${sentRoot === pointRoot ? `its root is the recovery point's, ${pointRoot}` : `root ${sentRoot}, of the recovery point ${pointRoot}`}`;
  }

  /** The clone has done its part: what stands in Azure is the machine. */
  async #dropClone(paths: MachinePaths): Promise<void> {
    for (const name of await readdir(paths.folder))
      if (join(paths.folder, name) !== paths.record) await rm(join(paths.folder, name), { recursive: true, force: true });
  }

  async status(name: string): Promise<LandedStatus> {
    const machine = this.#machine(name);
    if ((await machine.find()) === undefined) return { name, power: "gone", addresses: [], bytesToFill: 0, serialTail: "" };
    const power = await powerOf(machine);
    const serialLog = power === "running" ? await this.#serialLog(machine) : "";
    return { name, power, addresses: await machine.addresses(), bytesToFill: 0, serialTail: serialLog.slice(-serialTailCharacters) };
  }

  async probe(name: string, probe: Probe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    const machine = await this.#existing(name, "probe");
    if (probe.kind !== "serial" && probe.kind !== "script") {
      const path = "path" in probe ? probe.path : "";
      const order = {
        name,
        macs: [],
        addresses: [...(await machine.addresses())],
        kind: probe.kind ?? "http",
        port: probe.port,
        path,
        timeoutSeconds,
      };
      return (await powerOf(machine)) === "running"
        ? await this.#options.ask(order, signal)
        : { kind: "silent", seconds: 0, reason: "the machine is off" };
    }
    const ask =
      probe.kind === "serial"
        ? async () => await this.#hear(machine, probe.text)
        : async (secondsMax: number) => await this.#runScript(machine, probe.program, secondsMax, signal);
    return await this.#again(ask, timeoutSeconds, signal);
  }

  async #again(ask: (secondsLeft: number) => Promise<Heard>, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    const { clock } = this.#options;
    const startedMs = clock.monotonicMs();
    const seconds = (): number => (clock.monotonicMs() - startedMs) / 1000;
    for (;;) {
      signal?.throwIfAborted();
      const heard = await ask(Math.max(0.1, timeoutSeconds - seconds()));
      if (heard.kind === "answered" || seconds() >= timeoutSeconds) return { ...heard, seconds: seconds() };
      await clock.sleep(probePauseMs, signal);
    }
  }

  async #hear(machine: AzureMachine, text: string): Promise<Heard> {
    const line = (await this.#serialLog(machine)).split("\n").find((each) => each.includes(text));
    return line === undefined
      ? { kind: "silent", reason: `its serial console does not say ${JSON.stringify(text)}` }
      : { kind: "answered", body: line.trim() };
  }

  async #runScript(machine: AzureMachine, program: string, secondsMax: number, signal?: AbortSignal): Promise<Heard> {
    return await runProbeScript({ program, name: machine.name, addresses: await machine.addresses(), secondsMax }, signal);
  }

  /** Azure keeps the screen as a bitmap; only a PNG is passed on. */
  async look(name: string): Promise<ConsoleView> {
    const machine = await this.#existing(name, "look at");
    const serialLog = await this.#serialLog(machine);
    const { screenshot } = (await powerOf(machine)) === "running" ? await machine.consoleAddresses() : {};
    const bytes = screenshot === undefined ? undefined : await this.#options.fetchBytes(screenshot, screenshotBytesMax);
    const isPng = bytes !== undefined && Buffer.from(bytes).subarray(0, pngSignature.length).equals(pngSignature);
    return { serialLog, ...(isPng ? { screenshot: bytes } : {}) };
  }

  async #serialLog(machine: AzureMachine): Promise<string> {
    const { serialLog } = await machine.consoleAddresses();
    const bytes = serialLog === undefined ? undefined : await this.#options.fetchBytes(serialLog, serialBytesMax);
    return Buffer.from(bytes ?? new Uint8Array()).toString("utf8");
  }

  /** There is nothing to serve; the disks are checked all the same. */
  async reattach(name: string, disks: readonly LandingDisk[]): Promise<void> {
    await this.#existing(name, "reattach");
    const record = await readRecord(this.#paths(name));
    const expected = record?.disks.map(({ diskId, sizeBytes }) => `${diskId} ${sizeBytes}`);
    const given = disks.map(({ diskId, content }) => `${diskId} ${content.sizeBytes}`);
    if (expected !== undefined && expected.join() !== given.join())
      throw new Fault("InputInvalid", `could not reattach machine ${name}: these are not its disks`, { evidence: { expected, given } });
  }

  async list(): Promise<readonly string[]> {
    const { azure, place } = this.#options;
    const names: string[] = [];
    await callAzure("list the machines", undefined, async () => {
      for await (const { tags } of azure.compute.virtualMachines.list(place.resourceGroup))
        if (tags?.[ownerTag] === place.owner) names.push(tags[machineTag] ?? "");
    });
    return names.sort();
  }

  /** Disks and cards of ours, clones and journals here, whose machine is not there and is not being landed by this process. */
  async leftovers(): Promise<readonly string[]> {
    const { azure, place, stateFolder } = this.#options;
    const known = new Set([...(await this.list()), ...this.#turns.keys()]);
    const found: string[] = [];
    const look = (kind: string, name: string | undefined, tags: Readonly<Record<string, string>> | undefined): void => {
      if (tags?.[ownerTag] === place.owner && !known.has(tags[machineTag] ?? ""))
        found.push(`${kind} ${name ?? ""} of machine ${tags[machineTag] ?? ""}`);
    };
    await callAzure("look for leftovers", undefined, async () => {
      for await (const { name, tags } of azure.compute.disks.listByResourceGroup(place.resourceGroup)) look("disk", name, tags);
      for await (const { name, tags } of azure.network.networkInterfaces.list(place.resourceGroup)) look("card", name, tags);
    });
    for (const name of await readdir(join(stateFolder, "machines"))) if (!known.has(name)) found.push(`folder of machine ${name}`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Nothing is held open between calls: machines run in Azure.
  }

  async #erase(name: string): Promise<void> {
    const paths = this.#paths(name);
    const record = await readRecord(paths);
    await this.#machine(name).erase(record?.state === "landing" ? "doubtful" : "none");
    const { folder } = paths;
    await detachUnder(folder); // A program that was killed leaves the clone's view.
    await rm(folder, { recursive: true, force: true });
  }

  #machine(name: string): AzureMachine {
    return new AzureMachine(name, this.#options);
  }

  #paths(name: string): MachinePaths {
    return machinePaths(this.#options.stateFolder, name);
  }

  async #existing(name: string, doing: string): Promise<AzureMachine> {
    const machine = this.#machine(name);
    if ((await machine.find()) !== undefined) return machine;
    throw new Fault("NotFound", `could not ${doing} machine ${name}: there is none of that name`);
  }

  /** Entries go once nobody waits. */
  async #inTurn<T>(name: string, task: () => Promise<T>): Promise<T> {
    const turn = this.#turns.get(name) ?? { semaphore: new Semaphore(1), count: 0 };
    this.#turns.set(name, turn);
    turn.count += 1;
    try {
      return await turn.semaphore.run(task);
    } finally {
      turn.count -= 1;
      if (turn.count === 0) this.#turns.delete(name);
    }
  }
}

type Heard = { readonly kind: "answered"; readonly body: string } | { readonly kind: "silent"; readonly reason: string };

async function powerOf(machine: AzureMachine): Promise<"running" | "stopped"> {
  const vm = await machine.find();
  const isRunning = vm?.instanceView?.statuses?.some(({ code }) => code === "PowerState/running" || code === "PowerState/starting");
  return isRunning === true ? "running" : "stopped";
}
