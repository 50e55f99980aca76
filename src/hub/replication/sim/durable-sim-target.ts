// The simulated target whose machines outlive the process, as those of a real one do: its world is a file between calls.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../../base/atomic-file.ts";
import type { Clock } from "../../../base/clock.ts";
import { SimTarget, SimWorld } from "../../../landing/sim/sim-target.ts";
import type { HttpProbe, LandedStatus, LandingDisk, LaunchSpec, ProbeOutcome, Target } from "../../../landing/target.ts";
import type { Journal } from "./journal.ts";

export interface DurableSimTargetOptions {
  readonly folder: string;
  readonly clock: Clock;
  readonly journal: Journal;
  /** Called just before and just after each call; a test kills the process or fails here. */
  readonly onCall?: (call: string) => void;
}

type SimMachines = SimWorld["machines"];

export class DurableSimTarget implements Target {
  readonly kind = "durable-sim";
  readonly #options: DurableSimTargetOptions;
  readonly #world = new SimWorld();
  readonly #target: SimTarget;
  readonly #path: string;

  constructor(options: DurableSimTargetOptions) {
    this.#options = options;
    this.#target = new SimTarget({ world: this.#world, clock: options.clock });
    this.#path = join(options.folder, "target.json");
  }

  async launch(spec: LaunchSpec, signal?: AbortSignal): ReturnType<Target["launch"]> {
    return await this.#call("launch", async () => {
      this.#options.journal.append("target", spec.name, "on");
      return await this.#target.launch(spec, signal);
    });
  }

  async status(name: string): Promise<LandedStatus> {
    return await this.#call("status", async () => await this.#target.status(name));
  }

  async probe(name: string, probe: HttpProbe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    return await this.#call("probe", async () => await this.#target.probe(name, probe, timeoutSeconds, signal));
  }

  async fill(name: string, onProgress: (bytesLeft: number) => void, signal?: AbortSignal): Promise<void> {
    await this.#call("fill", async () => await this.#target.fill(name, onProgress, signal));
  }

  async start(name: string): Promise<void> {
    await this.#call("start", async () => {
      this.#options.journal.append("target", name, "on");
      await this.#target.start(name);
    });
  }

  async stop(name: string): Promise<void> {
    await this.#call("stop", async () => await this.#target.stop(name));
    this.#options.journal.append("target", name, "off");
  }

  async reattach(name: string, disks: readonly LandingDisk[]): Promise<void> {
    await this.#call("reattach", async () => await this.#target.reattach(name, disks));
  }

  async remove(name: string): Promise<void> {
    await this.#call("remove", async () => await this.#target.remove(name));
    this.#options.journal.append("target", name, "off");
  }

  async list(): Promise<readonly string[]> {
    return await this.#call("list", async () => await this.#target.list());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#target[Symbol.asyncDispose]();
  }

  /** Reads the world before the call and writes it after; a kill in between leaves it as it was before. */
  async #call<T>(name: string, task: () => Promise<T>): Promise<T> {
    this.#options.onCall?.(`before ${name}`);
    const text = await readFile(this.#path, "utf8").catch(() => "[]"); // No file: nothing was launched yet.
    this.#world.machines.clear();
    for (const machine of JSON.parse(text) as [string, never][]) this.#world.machines.set(...machine); // Written below.
    const answer = await task();
    const machines: SimMachines = this.#world.machines;
    await writeFileAtomic(this.#path, JSON.stringify([...machines]));
    this.#options.onCall?.(`after ${name}`);
    return answer;
  }
}
