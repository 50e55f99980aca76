// The hub's metrics in Prometheus' form: requests are counted as they are answered, the database's figures are read when somebody asks.

import { collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { AnsweredRequest } from "../api/api-server.ts";
import type { Database } from "../db/database.ts";
import { readFigures, type Figure, type HubFigures } from "../db/figures.ts";
import { healthCodes } from "../health/health-codes.ts";
import { healthLimits } from "../health/health-rules.ts";

export interface Metrics {
  readonly contentType: string;
  answered(face: string, request: AnsweredRequest): void;
  /** Figures of the database are at most `figuresAgeMsMax` old; askers at once share one look. */
  text(): Promise<string>;
}

/** A value of a label with no end would fill the asker's memory: this many rows of a figure are shown. */
const rowsMax = 500;
const figuresAgeDefault = 10_000;
const secondsBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

const criticalCodes = Object.entries(healthCodes).flatMap(([code, { severity }]) => (severity === "Critical" ? [code] : []));

export function createMetrics(wanted: {
  readonly database: Database;
  readonly clock: Clock;
  /** The name of a path's route, of a bounded number. */
  readonly routeOf: (path: string) => string;
  readonly figuresAgeMsMax?: number;
}): Metrics {
  const { database, clock, figuresAgeMsMax = figuresAgeDefault } = wanted;
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const requests = new Histogram({
    ...{ name: "watari_http_request_seconds", help: "Time to answer a request, by route and status", registers },
    ...{ labelNames: ["face", "method", "route", "status"], buckets: secondsBuckets },
  });
  const connections = new Gauge({
    ...{ name: "watari_database_connections", help: "Connections of this hub's pool", labelNames: ["state"], registers: [] },
    collect() {
      const { inUse, idle, waiting } = database.connections();
      this.set({ state: "inUse" }, inUse);
      this.set({ state: "idle" }, idle);
      this.set({ state: "waiting" }, waiting);
    },
  });
  registry.registerMetric(connections);
  const figures = createFigures({ database, clock, ageMsMax: figuresAgeMsMax });
  addFigures(registry, figures);
  const { routeOf } = wanted;
  return {
    contentType: registry.contentType,
    answered: (face, { method, route, path, status, seconds }) =>
      requests.observe({ face, method, route: route.endsWith("*") ? routeOf(path) : route, status: String(status) }, seconds),
    text: async () => await registry.metrics(),
  };
}

function addFigures(registry: Registry, figures: () => Promise<HubFigures>): void {
  const add = (name: string, help: string, labelNames: readonly string[], pick: (of: HubFigures) => readonly Figure[]): void => {
    const gauge = new Gauge({
      ...{ name, help, labelNames: [...labelNames], registers: [] },
      async collect() {
        const found = pick(await figures());
        this.reset();
        for (const { labels, value } of found) this.set({ ...labels }, value);
      },
    });
    registry.registerMetric(gauge);
  };
  add("watari_jobs", "Jobs that are open or ended within a day", ["kind", "state"], ({ jobs }) => jobs);
  add("watari_job_step_seconds", "Steps that ended within an hour", ["kind", "step", "quantile"], ({ stepSeconds }) => stepSeconds);
  add("watari_appliances", "Appliances, online or lost", ["state"], ({ appliances }) => appliances);
  add("watari_orders_queued", "Orders that wait for an appliance", [], ({ ordersQueued }) => [{ labels: {}, value: ordersQueued }]);
  add("watari_protected_items", "Protected items", ["state", "health"], ({ items }) => items);
  add(
    "watari_pause_seconds",
    "Standstill of writers for the newest recovery point",
    ["vault", "quantile"],
    ({ pauseSeconds }) => pauseSeconds,
  );
  add("watari_lag_seconds", "Age of the newest recovery point", ["vault", "quantile"], ({ lagSeconds }) => lagSeconds);
  add("watari_machine_modes", "Machines by what their replication does", ["phase", "rung"], ({ modes }) => modes);
  add("watari_slowest_stages", "Machines by the stage that the others wait for", ["stage"], ({ slowestStages }) => slowestStages);
  add("watari_backlog_bytes", "Bytes of sources that no recovery point has", ["vault"], ({ backlogBytes }) => backlogBytes);
  add("watari_churn_bytes_per_second", "Bytes of sources that change", ["vault"], ({ churnBytes }) => churnBytes);
  add("watari_machines_falling_behind", "Machines that change faster than they are moved", ["vault"], ({ fallingBehind }) => fallingBehind);
  add("watari_health_errors", "Health errors that are raised", ["code"], ({ healthErrors }) => healthErrors);
  add("watari_events_last_hour", "Events of the last hour", ["severity"], ({ events }) => events);
  add("watari_alerts_queued", "Alerts that wait to become a message", ["channel"], ({ alertsQueued }) => alertsQueued);
  add(
    "watari_alert_messages",
    "Messages of alerts that wait or ended within a day",
    ["channel", "state"],
    ({ alertMessages }) => alertMessages,
  );
  add("watari_alert_age_seconds", "Age of the oldest alert that waits", ["channel"], ({ alertAgeSeconds }) => alertAgeSeconds);
}

/** One look for all who ask while it is fresh; one that failed is not kept. */
function createFigures({ database, clock, ageMsMax }: { readonly database: Database; readonly clock: Clock; readonly ageMsMax: number }) {
  let kept: { readonly atMs: number; readonly figures: Promise<HubFigures> } | undefined;
  return async (): Promise<HubFigures> => {
    if (kept !== undefined && clock.monotonicMs() - kept.atMs < ageMsMax) return await kept.figures;
    const nowMs = clock.nowMs();
    const lostBefore = toTimestamp(nowMs - healthLimits.applianceSilentMs);
    const figures = readFigures(database.db, { now: toTimestamp(nowMs), lostBefore, criticalCodes, rowsMax });
    const look = { atMs: clock.monotonicMs(), figures };
    kept = look;
    figures.catch(() => {
      if (kept === look) kept = undefined;
    });
    return await figures;
  };
}

/** The resource type that a path speaks of: as many names as the type table has, and "other", whatever clients ask for. */
export function createRouteNames(types: readonly string[]): (path: string) => string {
  const known = new Map(types.map((type) => [type.toLowerCase(), type]));
  return (path) => {
    const after = path.toLowerCase().split("/providers/").at(-1)?.split("/") ?? [];
    const [namespace = "", ...rest] = path.toLowerCase().includes("/providers/") ? after : ["microsoft.resources", ...after.slice(1)];
    const segments = rest.filter((_segment, index) => index % 2 === 0);
    const whole = known.get([namespace, ...segments].join("/"));
    if (whole !== undefined) return whole;
    const owner = known.get([namespace, ...segments.slice(0, -1)].join("/")); // Of an action, whose name clients choose.
    return owner === undefined ? "other" : `${owner} action`;
  };
}
