// A simulated agent: the agent's own program over a simulated machine, registered and running in this process.

import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import type { MachineId } from "../../contract/ids.ts";
import { runAgent } from "../agent.ts";
import type { Endpoint } from "../identity/appliance-client.ts";
import { registerAgent } from "../identity/registration.ts";
import { createAgentLog } from "../log.ts";
import type { SimulatedSource } from "./simulated-source.ts";

export interface SimulatedAgentOptions {
  readonly source: SimulatedSource;
  readonly stateFolder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly writeLog?: (line: string) => void;
}

/** Registers the simulated machine; the passphrase file is removed as on a real one. */
export async function registerSimulatedAgent(
  options: SimulatedAgentOptions & { readonly appliance: Endpoint; readonly authorityPem: string; readonly passphraseFile: string },
): Promise<MachineId> {
  const { stateFolder, appliance, authorityPem, passphraseFile } = options;
  const facts = await options.source.facts();
  return (await registerAgent({ stateFolder, appliance, authorityPem, passphraseFile, facts })).machineId;
}

export interface RunningAgent extends AsyncDisposable {
  /** Resolves when it has ended by itself, rejects with what made it end. */
  readonly ended: Promise<"stopped" | "uninstall">;
}

/** Starts the agent; disposal stops it as SIGTERM would. The machine goes on. */
export function startSimulatedAgent(options: SimulatedAgentOptions): RunningAgent {
  const ending = new AbortController();
  const log = createAgentLog({ clock: options.clock, write: options.writeLog ?? (() => undefined) });
  // A test process shares its processor with the appliance, so the simulated agent is not held back.
  const ended = runAgent({ ...options, log, cpuShareMax: 4 }, ending.signal).then(async (outcome) => {
    if (outcome === "uninstall") await options.source.uninstall();
    return outcome;
  });
  ended.catch(() => undefined); // Given to whoever awaits `ended`.
  return {
    ended,
    [Symbol.asyncDispose]: async () => {
      ending.abort();
      await ended.catch(() => undefined); // What made it end is told by `ended`.
    },
  };
}
