// The simulated target whose machines outlive the process, as those of a real one do: its world is a file between calls.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../../base/atomic-file.ts";
import type { Clock } from "../../../base/clock.ts";
import { Semaphore } from "../../../base/semaphore.ts";
import { SimTarget, SimWorld } from "../../../landing/sim/sim-target.ts";
import type { Authority } from "../../../landing/fence-ledger.ts";
import type { ConsoleView, LandedStatus, LandingDisk, Probe, ProbeOutcome, Target, TargetCommands } from "../../../landing/target.ts";
import type { Journal } from "./journal.ts";

export interface DurableSimTargetOptions {
  readonly folder: string;
  readonly clock: Clock;
  readonly journal: Journal;
  /** Called just before and just after each call; a test kills the process or fails here. */
  readonly onCall?: (call: string) => void;
}

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
          return await commands.launch(spec, signal);
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
        await this.#call("remove", async () => await commands.remove(name));
        journal.append("target", name, "off");
      },
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
