// Wraps a target: launch, probe and fill take a while, as they do where real processors and disks work.

import type { Clock } from "../base/clock.ts";
import type { Target } from "../landing/target.ts";

export function withPace(target: Target, { clock, paceMs }: { readonly clock: Clock; readonly paceMs: number }): Target {
  const takeTime = async (signal?: AbortSignal): Promise<void> => await clock.sleep(paceMs, signal);
  return {
    kind: target.kind,
    under: (authority) => {
      const commands = target.under(authority);
      return {
        ...commands,
        launch: async (spec, signal) => {
          await takeTime(signal);
          return await commands.launch(spec, signal);
        },
        fill: async (name, onProgress, signal) => {
          await takeTime(signal);
          await commands.fill(name, onProgress, signal);
        },
      };
    },
    status: async (name) => await target.status(name),
    probe: async (name, probe, timeoutSeconds, signal) => {
      await takeTime(signal);
      return await target.probe(name, probe, timeoutSeconds, signal);
    },
    look: async (name) => await target.look(name),
    reattach: async (name, disks) => await target.reattach(name, disks),
    list: async () => await target.list(),
    [Symbol.asyncDispose]: async () => await target[Symbol.asyncDispose](),
  };
}
