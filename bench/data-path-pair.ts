// The agent and the appliance of a benchmark, each in a process of its own, joined as on two machines: what they do, by message.

import { open } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { build } from "esbuild";
import { agentUnitText } from "../src/agent/unit.ts";
import type { MachineId, PointId } from "../src/contract/ids.ts";
import { computeRoot } from "../src/disk/compute-root.ts";
import { openFileDisk } from "../src/disk/file-disk.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import {
  BenchProcess,
  type AgentPoint,
  type ApplianceReady,
  type ApplianceStart,
  type SealedPoint,
  type ServedPoint,
  type Usage,
} from "./data-path-messages.ts";
import type { Measured } from "./measured.ts";

/** One recovery point, from the order to its seal. */
export interface PointRun extends Measured {
  readonly pointId: PointId;
  readonly readBytes: number;
  readonly sentBytes: number;
  readonly storedBytes: number;
  readonly agentCpuSeconds: number;
  readonly applianceCpuSeconds: number;
  readonly agentResidentMib: number;
  readonly applianceResidentMib: number;
}

/** The agent's programs as it is shipped: each one file, less memory than many files that are read as TypeScript. */
export interface AgentFiles {
  readonly agentFile: string;
  readonly threadFile: string;
}

/** Flags and environment of the agent's unit: what keeps its memory small. */
function agentLimits(): { readonly execArgv: readonly string[]; readonly env: NodeJS.ProcessEnv } {
  const unit = agentUnitText();
  const execArgv =
    /^ExecStart=(.*)$/m
      .exec(unit)?.[1]
      ?.split(" ")
      .filter((word) => word.startsWith("--max-")) ?? [];
  const pairs =
    /^Environment=(.*)$/m
      .exec(unit)?.[1]
      ?.split(" ")
      .map((pair) => pair.split("=")) ?? [];
  if (execArgv.length === 0 || pairs.length === 0) throw new Error("the agent's unit has no limits");
  return { execArgv, env: Object.fromEntries(pairs.map(([name = "", value]) => [name, value])) };
}

/** Promised of an agent as it is installed: on one processor, under the limits of its unit. */
export const agentMegabytesMax = 120;

export async function bundleAgent(folder: string): Promise<AgentFiles> {
  return {
    agentFile: await bundle(folder, "data-path-agent-child.ts"),
    threadFile: await bundle(folder, "../src/agent/main.ts"),
  };
}

async function bundle(folder: string, file: string): Promise<string> {
  const outfile = join(folder, `${basename(file, ".ts")}.mjs`);
  const format = { platform: "node", target: "node26", format: "esm" } as const;
  await build({ entryPoints: [join(import.meta.dirname, file)], bundle: true, outfile, ...format, minify: true, logLevel: "silent" });
  return outfile;
}

export async function rootOfImage(path: string): Promise<string> {
  await using disk = await openFileDisk(path, { access: "read" });
  return await computeRoot(disk);
}

export interface PairOptions {
  /** Holds what both sides keep; the caller removes it. */
  readonly folder: string;
  /** The disk of the simulated machine; changed by write(). */
  readonly image: string;
  readonly files: AgentFiles;
  /** Processors that the agent may use. */
  readonly cores: number;
  readonly blob?: ApplianceStart["blob"];
  readonly execArgv?: readonly string[];
  /** Puts a line before the appliance's data port; answers the port that the agent dials. */
  readonly line?: (dataPort: number) => Promise<number>;
}

export class DataPathPair implements AsyncDisposable {
  readonly #agent: BenchProcess;
  readonly #appliance: BenchProcess;

  private constructor(agent: BenchProcess, appliance: BenchProcess) {
    this.#agent = agent;
    this.#appliance = appliance;
  }

  /** Registered and protected on return. */
  static async start({ folder, image, files, cores, blob, line, execArgv = [] }: PairOptions): Promise<DataPathPair> {
    await using cleanup = new AsyncDisposableStack();
    const appliance = cleanup.use(new BenchProcess(join(import.meta.dirname, "data-path-appliance-child.ts"), { execArgv }));
    const ready = await appliance.ask<ApplianceReady>({
      kind: "startAppliance",
      start: { folder, blockThreads: availableParallelism(), ...(blob === undefined ? {} : { blob }) },
    });
    const limits = agentLimits();
    const agent = cleanup.use(new BenchProcess(files.agentFile, { ...limits, execArgv: [...limits.execArgv, ...execArgv] }));
    const { machineId } = await agent.ask<{ machineId: MachineId }>({
      kind: "startAgent",
      start: { ...ready, dataPort: (await line?.(ready.dataPort)) ?? ready.dataPort, folder, image, cores, threadFile: files.threadFile },
    });
    await appliance.ask({ kind: "protect", machineId });
    cleanup.move();
    return new DataPathPair(agent, appliance);
  }

  /** Makes a recovery point. Throws when its root is not the image's. */
  async point(root: string): Promise<PointRun> {
    const before = await this.#usages();
    const { pointId, wallSeconds, readBytes, sentBytes } = await this.#agent.ask<AgentPoint>({ kind: "point" });
    const after = await this.#usages();
    const sealed = await this.#appliance.ask<SealedPoint>({ kind: "sealed", pointId });
    if (sealed.root !== root) throw new Error(`the sealed root ${sealed.root} is not the image's root ${root}`);
    const [agentCpuSeconds = 0, applianceCpuSeconds = 0] = after.map((one, index) => one.cpuSeconds - (before[index]?.cpuSeconds ?? 0));
    const [agentResidentMib = 0, applianceResidentMib = 0] = after.map((one) => Math.round(one.residentBytesMax / 2 ** 20));
    const cpuSeconds = agentCpuSeconds + applianceCpuSeconds;
    const bytes = { readBytes, sentBytes, storedBytes: sealed.storedBytes };
    return { pointId, wallSeconds, cpuSeconds, ...bytes, agentCpuSeconds, applianceCpuSeconds, agentResidentMib, applianceResidentMib };
  }

  /** The machine's programs change these granules to what another image holds there. */
  async write(from: string, granules: readonly number[]): Promise<void> {
    await this.#agent.ask({ kind: "write", from, granules });
  }

  /** The kernel says that it could not mark a change: the next point reads the whole disk. */
  async loseTracking(): Promise<void> {
    await this.#agent.ask({ kind: "loseTracking" });
  }

  /** Serves the point by our NBD server, until the pair is closed. */
  async serve(pointId: PointId): Promise<ServedPoint> {
    return await this.#appliance.ask<ServedPoint>({ kind: "serve", pointId });
  }

  async applianceCpuSeconds(): Promise<number> {
    return (await this.#appliance.ask<Usage>({ kind: "usage" })).cpuSeconds;
  }

  async #usages(): Promise<readonly Usage[]> {
    return [await this.#agent.ask<Usage>({ kind: "usage" }), await this.#appliance.ask<Usage>({ kind: "usage" })];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent[Symbol.asyncDispose]();
    await this.#appliance[Symbol.asyncDispose]();
  }
}

/** Writes these granules of `from` into `to`. */
export async function copyGranules(from: string, to: string, granules: readonly number[]): Promise<void> {
  await using source = await open(from, "r");
  await using target = await open(to, "r+");
  const bytes = Buffer.alloc(granuleBytes);
  for (const granule of granules) {
    await source.read(bytes, 0, granuleBytes, granule * granuleBytes);
    await target.write(bytes, 0, granuleBytes, granule * granuleBytes);
  }
}
