// The appliance's figures in Prometheus' form: lines, machines and spool, read when somebody asks.

import { createServer, type Server } from "node:http";
import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { LimitsState } from "../../contract/line-limits.ts";
import { stages, type MachineFlow } from "../../contract/machine-flow.ts";

export interface ShownMachine {
  readonly machineId: MachineId;
  readonly hostname: string;
  readonly flow: MachineFlow;
}

export interface ShownFigures {
  readonly machines: readonly ShownMachine[];
  readonly lines: LimitsState["lines"];
  readonly spoolBytes: number;
  readonly spoolBytesMax: number;
  readonly cacheFreeShare: number;
  /** All agents are slowed down for want of cache. */
  readonly isThrottled: boolean;
  readonly healthErrorCount: number;
}

/** More machines than one appliance is made for. */
const machinesMax = 2000;

export interface ApplianceMetrics {
  readonly contentType: string;
  text(): Promise<string>;
}

export function createMetrics(figures: () => Promise<ShownFigures>): ApplianceMetrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, labelNames: readonly string[] = []): Gauge =>
    new Gauge({ name, help, labelNames: [...labelNames], registers: [registry] });
  const spool = gauge("watari_spool_bytes", "Bytes of packs that wait for their upload");
  const spoolMax = gauge("watari_spool_bytes_max", "Bytes of packs that may wait");
  const cacheFree = gauge("watari_cache_free_share", "Share of what packs may take that is free");
  const throttled = gauge("watari_agents_throttled", "1 while all agents are slowed down because the cache has little room");
  const faults = gauge("watari_health_errors", "Faults that the appliance has at the moment");
  const tellLines = lineGauges(gauge);
  const tellMachines = machineGauges(gauge);
  return {
    contentType: registry.contentType,
    text: async () => {
      const { machines, lines, spoolBytes, spoolBytesMax, cacheFreeShare, isThrottled, healthErrorCount } = await figures();
      spool.set(spoolBytes);
      spoolMax.set(spoolBytesMax);
      cacheFree.set(cacheFreeShare);
      throttled.set(isThrottled ? 1 : 0);
      faults.set(healthErrorCount);
      tellLines(lines);
      tellMachines(machines.slice(0, machinesMax));
      return await registry.metrics();
    },
  };
}

type CreateGauge = (name: string, help: string, labelNames?: readonly string[]) => Gauge;

function lineGauges(gauge: CreateGauge): (lines: ShownFigures["lines"]) => void {
  const names = ["line", "machine_id"];
  const limit = gauge("watari_line_limit_bytes_per_second", "Limit in force on a line; absent: unlimited", names);
  const rate = gauge("watari_line_bytes_per_second", "Bytes that passed a line, over the last minute", names);
  const waited = gauge("watari_line_waited_share", "Share of the last minute in which something waited for the limit", names);
  return (lines) => {
    for (const each of [limit, rate, waited]) each.reset();
    for (const line of lines) {
      const labels = { line: line.scope, machine_id: line.machineId ?? "" };
      if (line.bytesPerSecond !== undefined) limit.set(labels, line.bytesPerSecond);
      rate.set(labels, line.measuredBytesPerSecond);
      waited.set(labels, line.waitedShare);
    }
  };
}

function machineGauges(gauge: CreateGauge): (machines: readonly ShownMachine[]) => void {
  const names = ["machine_id", "hostname"];
  const values = {
    lagSeconds: gauge("watari_machine_lag_seconds", "Age of the newest sealed recovery point", names),
    backlogBytes: gauge("watari_machine_backlog_bytes", "Bytes of the source that no sealed point has", names),
    churnBytesPerSecond: gauge("watari_machine_churn_bytes_per_second", "Bytes that change and have to be moved", names),
    throughputBytesPerSecond: gauge("watari_machine_throughput_bytes_per_second", "Bytes of the source taken in while at work", names),
    drainSeconds: gauge("watari_machine_drain_seconds", "Predicted time until the backlog is gone", names),
    downtimeSeconds: gauge("watari_machine_downtime_seconds", "Predicted stand-still of the source for its final point", names),
  };
  const behind = gauge("watari_machine_falling_behind", "1 when changes come faster than they are moved", names);
  const mode = gauge("watari_machine_mode", "1 for the phase and the rung of change tracking", [...names, "phase", "rung"]);
  const share = gauge("watari_machine_stage_share", "Share of the last minute of work that a stage took", [...names, "stage"]);
  const slowest = gauge("watari_machine_slowest_stage", "1 for the stage that the others wait for", [...names, "stage"]);
  return (machines) => {
    for (const each of [...Object.values(values), behind, mode, share, slowest]) each.reset();
    for (const { machineId, hostname, flow } of machines) {
      const labels = { machine_id: machineId, hostname };
      for (const [name, each] of Object.entries(values)) {
        const value = flow[name as keyof typeof values]; // The table's own keys.
        if (value !== undefined) each.set(labels, value);
      }
      behind.set(labels, flow.isFallingBehind ? 1 : 0);
      mode.set({ ...labels, phase: flow.mode.phase, rung: flow.mode.rung ?? "" }, 1);
      for (const stage of stages) {
        const taken = flow.stageShares[stage];
        if (taken !== undefined) share.set({ ...labels, stage }, taken);
      }
      if (flow.slowestStage !== undefined) slowest.set({ ...labels, stage: flow.slowestStage }, 1);
    }
  };
}

/** Serves GET /metrics without asking who calls: only for an address that the operator has chosen. "host:port", "[::1]:port". */
export async function startMetricsListener(address: string, metrics: ApplianceMetrics, log: Log): Promise<AsyncDisposable> {
  const [, host = "", port = ""] = /^\[?([^\]]+)\]?:(\d+)$/.exec(address) ?? [];
  const server = createServer((request, response) => {
    const answer = (status: number, text: string): void => {
      response.writeHead(status, { "content-type": status === 200 ? metrics.contentType : "text/plain" }).end(text);
    };
    if (request.method !== "GET" || request.url !== "/metrics") return answer(404, "only GET /metrics is served\n");
    metrics.text().then(
      (text) => answer(200, text),
      (error: unknown) => {
        log.warn("metrics could not be read", { reason: error instanceof Error ? error.message : String(error) });
        answer(503, "the figures could not be read\n");
      },
    );
  });
  server.maxConnections = 16;
  await listening(server, { host, port: Number(port), address });
  return {
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}

async function listening(
  server: Server,
  { host, port, address }: { readonly host: string; readonly port: number; readonly address: string },
) {
  await new Promise<void>((resolve, reject) => {
    server.once("listening", resolve);
    server.once("error", (cause) =>
      reject(new Fault("InputInvalid", `could not listen for askers of metrics on ${address}`, { evidence: { address }, cause })),
    );
    server.listen(port, host);
  });
}
