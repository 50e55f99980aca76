// The simulated target in its own time: launch and fill take a while, as they do where real processors and disks work.

import type { Clock } from "../base/clock.ts";
import { SimTarget, SimWorld } from "../landing/sim/sim-target.ts";
import type { Authority } from "../landing/fence-ledger.ts";
import type { HttpProbe, LandedStatus, LandingDisk, ProbeOutcome, Target, TargetCommands } from "../landing/target.ts";

export class PacedTarget implements Target {
  readonly kind = "sim";
  readonly #target: SimTarget;
  readonly #pace: (signal?: AbortSignal) => Promise<void>;

  constructor({ clock, paceMs }: { readonly clock: Clock; readonly paceMs: number }) {
    this.#target = new SimTarget({ world: new SimWorld(), clock });
    this.#pace = async (signal) => await clock.sleep(paceMs, signal);
  }

  under(authority: Authority): TargetCommands {
    const commands = this.#target.under(authority);
    return {
      ...commands,
      launch: async (spec, signal) => {
        await this.#pace(signal);
        return await commands.launch(spec, signal);
      },
      fill: async (name, onProgress, signal) => {
        await this.#pace(signal);
        await commands.fill(name, onProgress, signal);
      },
    };
  }

  async status(name: string): Promise<LandedStatus> {
    return await this.#target.status(name);
  }

  async probe(name: string, probe: HttpProbe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome> {
    await this.#pace(signal);
    return await this.#target.probe(name, probe, timeoutSeconds, signal);
  }

  async reattach(name: string, disks: readonly LandingDisk[]): Promise<void> {
    await this.#target.reattach(name, disks);
  }

  async list(): Promise<readonly string[]> {
    return await this.#target.list();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#target[Symbol.asyncDispose]();
  }
}
