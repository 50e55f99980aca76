// FlowBook: how each machine's data flow through this appliance, and the changes of mode that the hub was not told yet.

import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { AgentState } from "../../contract/agent-control.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { FlowMode, MachineFlow, ModeChange } from "../../contract/machine-flow.ts";
import type { PointLedger } from "../ingest/point-ledger.ts";
import type { LineLimits } from "../limits/line-limits.ts";
import { BusyTime } from "./busy-time.ts";
import { judgeStages, predict } from "./judge-flow.ts";
import { MachineMeter } from "./machine-meter.ts";

/** The vault uploads so many packs at once; all taken means that the storage account is behind. */
const uploadsAtOnce = 4;
const changesMax = 200;
const rungs = ["ebpf", "tracefs", "checksum", "full"] as const;

export interface FlowBookParts {
  readonly clock: Clock;
  readonly ledger: Pick<PointLedger, "newestOf">;
  readonly limits: LineLimits;
}

export class FlowBook {
  readonly #parts: FlowBookParts;
  readonly #meters = new Map<MachineId, MachineMeter>();
  readonly #modes = new Map<MachineId, FlowMode>();
  readonly #changes: ModeChange[] = [];
  readonly uploads: BusyTime;

  constructor(parts: FlowBookParts) {
    this.#parts = parts;
    this.uploads = new BusyTime(parts.clock, uploadsAtOnce);
  }

  meterOf(machineId: MachineId): MachineMeter {
    const known = this.#meters.get(machineId);
    if (known !== undefined) return known;
    const meter = new MachineMeter(this.#parts.clock, () => this.uploads.totalMs);
    this.#meters.set(machineId, meter);
    return meter;
  }

  noteState(machineId: MachineId, state: AgentState): void {
    this.meterOf(machineId).noteState(state);
    const from = this.#modes.get(machineId);
    const to = modeOf(state);
    this.#modes.set(machineId, to);
    if (from === undefined || (from.phase === to.phase && from.rung === to.rung)) return;
    this.#changes.push({ machineId, time: toTimestamp(this.#parts.clock.nowMs()), from, to });
    if (this.#changes.length > changesMax) this.#changes.shift();
  }

  forgetMachine(machineId: MachineId): void {
    this.#meters.delete(machineId);
    this.#modes.delete(machineId);
  }

  /** Oldest first. */
  untoldChanges(): readonly ModeChange[] {
    return [...this.#changes];
  }

  markTold(changes: readonly ModeChange[]): void {
    for (const change of changes) {
      const place = this.#changes.indexOf(change);
      if (place >= 0) this.#changes.splice(place, 1);
    }
  }

  flowOf(machineId: MachineId, state: AgentState | undefined): MachineFlow {
    const { limits } = this.#parts;
    const meter = this.meterOf(machineId);
    const { churn, throughput, wireShare } = meter.rates();
    const minute = meter.lastMinute();
    const capped = capOf(throughput, wireShare, [
      limits.inForce({ scope: "machine", machineId }).bytesPerSecond,
      limits.inForce({ scope: "agents" }).bytesPerSecond,
    ]);
    const lagSeconds = this.#lagOf(machineId, meter);
    const backlogBytes = backlogOf(state, meter, (churn ?? 0) * (lagSeconds ?? 0));
    return {
      mode: state === undefined ? { phase: "unknown", reason: "the agent has not spoken yet" } : modeOf(state),
      ...(lagSeconds === undefined ? {} : { lagSeconds }),
      backlogBytes,
      ...(churn === undefined ? {} : { churnBytesPerSecond: Math.round(churn) }),
      ...(capped === undefined ? {} : { throughputBytesPerSecond: Math.round(capped) }),
      ...predict({
        ...{ backlogBytes, churnBytesPerSecond: churn, throughputBytesPerSecond: capped },
        ...{ lastFrozenMs: state?.lastFrozenMs ?? 0, lastSealMs: meter.lastSealMs },
      }),
      ...judgeStages({
        windowMs: minute.atMs,
        activeMs: minute.activeMs,
        answeringMs: minute.answeringMs,
        heldBackMs: minute.heldBackMs,
        storageFullMs: minute.storageFullMs,
        lanes: minute.laneMs,
        throttleReason: limits.throttle?.reason,
        storageHeldBackShare: limits.lineOf({ scope: "storage" }).figures().waitedShare,
      }),
    };
  }

  #lagOf(machineId: MachineId, meter: MachineMeter): number | undefined {
    const { clock, ledger } = this.#parts;
    if (meter.newestEndMs !== undefined) return Math.max(0, clock.monotonicMs() - meter.newestEndMs) / 1000;
    const newest = ledger.newestOf(machineId);
    return newest === undefined ? undefined : Math.max(0, clock.nowMs() - fromTimestamp(newest.sealedAt)) / 1000;
  }
}

/** The worst disk decides: a point is as good as its worst. */
function modeOf({ phase, disks }: AgentState): FlowMode {
  const worst = disks.toSorted((one, two) => rungs.indexOf(two.tracking.rung) - rungs.indexOf(one.tracking.rung))[0];
  if (worst === undefined) return { phase, reason: "no disk is replicated" };
  return { phase, rung: worst.tracking.rung, reason: worst.tracking.reason };
}

/** While a point is under way the agent does not count: what churn has brought since the newest point is taken instead, when it is more. */
function backlogOf(state: AgentState | undefined, meter: MachineMeter, churnedBytes: number): number {
  if (state === undefined || state.phase === "idle" || state.phase === "stopped") return 0;
  if (state.phase !== "initial") return Math.max(meter.dirtyBytes, Math.round(meter.leftOf(churnedBytes) ?? 0));
  return state.disks.reduce((sum, { sizeBytes, copiedBytes }) => sum + Math.max(0, sizeBytes - copiedBytes), 0);
}

/** What was measured, or what the limits of now let through of it. */
function capOf(throughput: number | undefined, wireShare: number, limits: readonly (number | undefined)[]): number | undefined {
  if (throughput === undefined) return undefined;
  const lowest = Math.min(...limits.map((limit) => limit ?? Infinity));
  return Math.min(throughput, wireShare <= 0 ? Infinity : lowest / wireShare);
}
