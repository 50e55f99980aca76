// The simulated target whose machines outlive the process, as those of a real one do: its world is a file between calls.

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../../base/atomic-file.ts";
import type { Clock } from "../../../base/clock.ts";
import { Semaphore } from "../../../base/semaphore.ts";
import { diskIdShape } from "../../../contract/shapes.ts";
import { MemoryDisk } from "../../../disk/memory-disk.ts";
import { SimTarget, SimWorld } from "../../../landing/sim/sim-target.ts";
import type { Authority } from "../../../landing/fence-ledger.ts";
import type {
  ConsoleView,
  LandedDisk,
  LandedDisks,
  LandedReading,
  LandedStatus,
  LandingDisk,
  LaunchSpec,
  Probe,
  ProbeOutcome,
  Target,
  TargetCommands,
} from "../../../landing/target.ts";
import type { Journal } from "./journal.ts";

export interface DurableSimTargetOptions {
  readonly folder: string;
  readonly clock: Clock;
  readonly journal: Journal;
  /** Called just before and just after each call; a test kills the process or fails here. */
  readonly onCall?: (call: string) => void;
}

export const simUndoneByte = 0x55;

export class DurableSimTarget implements Target {
  readonly kind = "durable-sim";
  readonly #options: DurableSimTargetOptions;
  readonly #world = new SimWorld();
  readonly #target: SimTarget;
  readonly #path: string;
  /** Of several machines at once, one call reads and writes the file at a time. */
  readonly #turn = new Semaphore(1);

  constructor(options: DurableSimTargetOptions) {
    this.#options = options;
    this.#target = new SimTarget({ world: this.#world, clock: options.clock });
    this.#path = join(options.folder, "target.json");
  }

  under(authority: Authority): TargetCommands {
    const { journal } = this.#options;
    const commands = this.#target.under(authority);
    return {
      launch: async (spec, signal) =>
        await this.#call("launch", async () => {
          if (authority.fence >= (this.#world.fences.get(spec.name) ?? 0)) journal.append("target", spec.name, "on");
          const outcome = await commands.launch(spec, signal);
          if (spec.tracksWrites === true) await this.#keepDisks(spec);
          return outcome;
        }),
      fill: async (name, onProgress, signal) => await this.#call("fill", async () => await commands.fill(name, onProgress, signal)),
      start: async (name) =>
        await this.#call("start", async () => {
          if (authority.fence >= (this.#world.fences.get(name) ?? 0)) journal.append("target", name, "on");
          await commands.start(name);
        }),
      stop: async (name, how) => {
        await this.#call("stop", async () => await commands.stop(name, how));
        journal.append("target", name, "off");
      },
      remove: async (name) => {
        await this.#call("remove", async () => {
          await commands.remove(name);
          await rm(this.#diskFolder(name), { recursive: true, force: true });
        });
        journal.append("target", name, "off");
      },
      bar: async (name) => await this.#call("bar", async () => await commands.bar?.(name)),
      allow: async (name) => await this.#call("allow", async () => await commands.allow?.(name)),
    };
  }

  async status(name: string): Promise<LandedStatus> {
    return await this.#call("status", async () => await this.#target.status(name));
  }

  async probe(name: string, probe: Probe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    return await this.#call("probe", async () => await this.#target.probe(name, probe, timeoutSeconds, signal));
  }

  async look(name: string): Promise<ConsoleView> {
    return await this.#call("look", async () => await this.#target.look(name));
  }

  async reattach(name: string, disks: readonly LandingDisk[]): Promise<void> {
    await this.#call("reattach", async () => await this.#target.reattach(name, disks));
  }

  /** Where a landed machine's disks lie as files; a test writes to them as its guest would. */
  diskPath(name: string, index: number): string {
    return join(this.#diskFolder(name), `disk-${index}.raw`);
  }

  /** For the source, the last byte of each disk is another: the one thing that hydration is taken to have edited. */
  async openLanded(name: string, { shape = "asLanded" }: LandedReading = {}): Promise<LandedDisks> {
    const machine = await this.#call("openLanded", async () => this.#world.machines.get(name));
    const shapes = z.array(z.object({ diskId: diskIdShape, isBoot: z.boolean() }));
    const disks = shapes.parse(JSON.parse(await readFile(join(this.#diskFolder(name), "disks.json"), "utf8")));
    const opened: LandedDisk[] = [];
    for (const [index, disk] of disks.entries()) {
      const bytes = await readFile(this.diskPath(name, index));
      if (shape === "forSource") bytes[bytes.length - 1] = simUndoneByte;
      opened.push({ ...disk, content: new MemoryDisk(Uint8Array.from(bytes)), written: "unknown" });
    }
    return {
      disks: opened,
      timeMs: this.#options.clock.nowMs(),
      isAtRest: machine?.power === "stopped",
      undone: shape === "forSource" ? ["the last byte of each disk: the original again"] : [],
      [Symbol.asyncDispose]: async () => {
        for (const { content } of opened) await content[Symbol.asyncDispose]();
      },
    };
  }

  #diskFolder(name: string): string {
    return join(this.#options.folder, "landed", name);
  }

  async #keepDisks({ name, disks }: LaunchSpec): Promise<void> {
    const folder = this.#diskFolder(name);
    const list = join(folder, "disks.json");
    if (
      await readFile(list).then(
        () => true,
        () => false,
      )
    )
      return; // Launched before.
    await mkdir(folder, { recursive: true });
    for (const [index, { content }] of disks.entries()) {
      const bytes = new Uint8Array(content.sizeBytes);
      await content.read(0, bytes);
      await writeFile(this.diskPath(name, index), bytes);
    }
    await writeFileAtomic(list, JSON.stringify(disks.map(({ diskId, isBoot }) => ({ diskId, isBoot }))));
  }

  async list(): Promise<readonly string[]> {
    return await this.#call("list", async () => await this.#target.list());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#target[Symbol.asyncDispose]();
  }

  /** Reads the world before the call and writes it after; a kill in between leaves it as it was before. */
  async #call<T>(name: string, task: () => Promise<T>): Promise<T> {
    return await this.#turn.run(async () => await this.#callAlone(name, task));
  }

  async #callAlone<T>(name: string, task: () => Promise<T>): Promise<T> {
    this.#options.onCall?.(`before ${name}`);
    const text = await readFile(this.#path, "utf8").catch(() => `{"machines":[],"fences":[]}`); // No file: nothing was launched yet.
    const { machines, fences } = JSON.parse(text) as { machines: [string, never][]; fences: [string, number][] }; // Written below.
    this.#world.machines.clear();
    this.#world.fences.clear();
    for (const machine of machines) this.#world.machines.set(...machine);
    for (const fence of fences) this.#world.fences.set(...fence);
    const answer = await task();
    await writeFileAtomic(this.#path, JSON.stringify({ machines: [...this.#world.machines], fences: [...this.#world.fences] }));
    this.#options.onCall?.(`after ${name}`);
    return answer;
  }
}
