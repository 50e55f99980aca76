// What data-path.ts and its two processes say to each other.

import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { MachineId, PointId } from "../src/contract/ids.ts";

export interface ApplianceStart {
  readonly folder: string;
  /** Threads that check blocks. */
  readonly blockThreads: number;
  /** Absent: packs go into a folder. */
  readonly blob?: { readonly accountUrl: string; readonly ca: string; readonly key: string };
}
export interface ApplianceReady {
  readonly controlPort: number;
  readonly dataPort: number;
  readonly caPem: string;
  readonly passphrase: string;
}
export interface AgentStart extends ApplianceReady {
  readonly folder: string;
  readonly image: string;
  /** Processors that the agent may use. */
  readonly cores: number;
  readonly threadFile: string;
}
export interface Usage {
  readonly cpuSeconds: number;
  readonly residentBytesMax: number;
}
/** Of an appliance with many machines. */
export interface FleetUsage extends Usage {
  readonly pointCount: number;
  readonly machinesWithPoints: number;
  /** Since the last time that it was asked. */
  readonly stallP99Ms: number;
}
export interface AgentPoint {
  readonly pointId: PointId;
  readonly wallSeconds: number;
  readonly readBytes: number;
  readonly sentBytes: number;
}
export interface SealedPoint {
  readonly root: string;
  readonly storedBytes: number;
}

export interface ServedPoint {
  /** NBD address of the point's disk, read only. */
  readonly uri: string;
}

/** A process that answers one message after the other. */
export class BenchProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #gone: Promise<never>;

  constructor(file: string, { execArgv = [], env = {} }: { readonly execArgv?: readonly string[]; readonly env?: NodeJS.ProcessEnv } = {}) {
    this.#child = fork(file, [], {
      execArgv: ["--disable-warning=ExperimentalWarning", ...execArgv],
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
      env: { ...process.env, MALLOC_ARENA_MAX: "2", ...env },
    });
    this.#gone = once(this.#child, "exit").then(([code]: unknown[]) => {
      throw new Error(`a process of the benchmark ended with ${String(code)}`);
    });
    this.#gone.catch(() => undefined); // Told to whoever waits for an answer; at its own end nobody does.
  }

  /** The type of the answer is what the file of the process answers to this message. */
  async ask<T>(message: BenchMessage): Promise<T> {
    this.#child.send(message);
    const waiting = new AbortController();
    const answered = once(this.#child, "message", { signal: waiting.signal });
    const [answer]: unknown[] = await Promise.race([answered, this.#gone]).finally(() => waiting.abort());
    if (typeof answer === "object" && answer !== null && "failed" in answer) throw new Error(String(answer.failed));
    return answer as T; // Both ends are this folder's files of the same checkout.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, "exit");
    if (this.#child.connected) this.#child.disconnect();
    await ended;
  }
}

export type BenchMessage =
  | { readonly kind: "startAppliance"; readonly start: ApplianceStart }
  | { readonly kind: "startAgent"; readonly start: AgentStart }
  | { readonly kind: "protect"; readonly machineId: MachineId }
  | { readonly kind: "sealed"; readonly pointId: PointId }
  | { readonly kind: "usage" }
  | { readonly kind: "order"; readonly machineId: MachineId; readonly pointIntervalSeconds: number }
  | { readonly kind: "fleet"; readonly machineIds: readonly MachineId[] }
  | { readonly kind: "point" }
  | { readonly kind: "serve"; readonly pointId: PointId }
  | { readonly kind: "loseTracking" }
  | { readonly kind: "write"; readonly from: string; readonly granules: readonly number[] };

/** The other end: answers in order, ends when the parent is gone. */
export function serveMessages(answer: (message: BenchMessage) => Promise<unknown>, close: () => Promise<void>): void {
  let last = Promise.resolve();
  process.on("message", (message: BenchMessage) => {
    last = last.then(async () => {
      try {
        process.send?.((await answer(message)) ?? {});
      } catch (error) {
        process.send?.({ failed: error instanceof Error ? (error.stack ?? error.message) : String(error) });
      }
    });
  });
  process.once("disconnect", () => void last.then(close));
}

export function usage(): Usage {
  const { user, system } = process.cpuUsage();
  return { cpuSeconds: (user + system) / 1e6, residentBytesMax: residentBytesMax() };
}

/** Of this program alone: what resourceUsage() tells begins with what the process that started it had. */
function residentBytesMax(): number {
  const kibibytes = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
  if (kibibytes === undefined) throw new Error("the kernel does not tell how much memory was resident");
  return Number(kibibytes) * 1024;
}
