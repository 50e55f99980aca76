// What works here and how well: each role of the appliance, its vCenters and agents, judged by the documented limits.

import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { ComponentMeasure, HealthLevel, SetupComponent, SetupResponse } from "../../contract/appliance-setup.ts";
import type { SystemFigures } from "../../contract/appliance-protocol.ts";
import {
  cacheSpaceOf,
  levelAbove,
  levelBelow,
  pendingBytesSmall,
  processServerLimits,
  type LimitLevel,
} from "../../contract/process-server-limits.ts";
import type { FaultReport } from "../../contract/errors.ts";
import { spoolBytesOf } from "../ingest/spool.ts";
import type { Appliance } from "../main.ts";

const levelNames = { Healthy: "healthy", Warning: "warning", Critical: "critical" } as const;

export async function componentsOf(appliance: Appliance, clock: Clock): Promise<SetupResponse<"components">> {
  const { config, health, spool } = appliance;
  const figures = await appliance.meter.glance();
  const spoolBytes = await spoolBytesOf(spool);
  const faults = health.reports();
  const isStorage = (fault: FaultReport): boolean => fault.id.startsWith("Store") || fault.id === "SpoolFull";
  const isCache = (fault: FaultReport): boolean => fault.id === "CacheSpaceLow";
  return {
    at: toTimestamp(clock.nowMs()),
    components: [
      withLevel({
        kind: "configurationServer",
        name: config.name,
        measures: [],
        faults: faults.filter((fault) => !isStorage(fault) && !isCache(fault)),
        ...(appliance.registration === undefined || !appliance.isHubReached ? { atLeast: "unknown" } : {}),
      }),
      withLevel({
        kind: "processServer",
        name: config.name,
        measures: processServerMeasures(figures, { spoolBytes, spoolBytesMax: spool.spoolBytesMax }),
        faults: faults.filter(isCache),
      }),
      ...othersOf(appliance, clock),
      withLevel({ kind: "uploader", name: config.name, measures: [backlogOf(spoolBytes, figures)], faults: faults.filter(isStorage) }),
      ...vcentersOf(appliance),
      ...agentsOf(appliance, clock),
    ],
  };
}

/** The vault's other process servers, each judged as this one is. */
function othersOf({ others: { atMs, appliances } }: Appliance, clock: Clock): readonly SetupComponent[] {
  const heardMinutes = (clock.monotonicMs() - atMs) / 60_000;
  const levels = { Normal: "healthy", Warning: "warning", Critical: "critical" } as const;
  return appliances.map(({ name, health, silentSeconds, system, spoolBytes = 0, spoolBytesMax = 0 }) =>
    withLevel({
      ...{ kind: "processServer", name, isElsewhere: true, faults: [], atLeast: system === undefined ? "unknown" : levels[health] },
      measures: [
        heartbeatOf(silentSeconds / 60 + heardMinutes),
        ...(system === undefined ? [] : processServerMeasures(system, { spoolBytes, spoolBytesMax })),
      ],
    }),
  );
}

function heartbeatOf(silentMinutes: number): ComponentMeasure {
  const { critical } = processServerLimits.silentMinutes;
  const level = silentMinutes > critical ? "critical" : "healthy";
  return { measure: "heartbeat", value: silentMinutes, unit: "minutes", critical, level };
}

function vcentersOf({ vcenters }: Appliance): readonly SetupComponent[] {
  return vcenters
    .summaries()
    .map(({ name, fault }) => withLevel({ kind: "vcenter", name, measures: [], faults: fault === undefined ? [] : [fault] }));
}

function agentsOf({ registry, flow }: Appliance, clock: Clock): readonly SetupComponent[] {
  return registry.list().map((machine) => {
    const { drainSeconds, isFallingBehind } = flow.flowOf(machine.machineId, machine.state);
    const heartbeat = heartbeatOf((clock.nowMs() - machine.seenAtMs) / 60_000);
    const behind = minutesMeasure("behind", drainSeconds === undefined ? undefined : drainSeconds / 60);
    const measures = [heartbeat, isFallingBehind ? { ...behind, level: "critical" as const } : behind];
    return withLevel({
      kind: "agent",
      name: machine.facts.hostname,
      measures: machine.protectedBy === undefined ? [heartbeat] : measures,
      faults: [],
    });
  });
}

/** Pure, so that each limit can be tried. */
export function processServerMeasures(
  figures: Pick<SystemFigures, "cpuShare" | "loadShare" | "memoryBytes" | "memoryAvailableBytes" | "diskAvailableBytes">,
  { spoolBytes, spoolBytesMax }: { readonly spoolBytes: number; readonly spoolBytesMax: number },
): readonly ComponentMeasure[] {
  const { loadShare, freeShare } = processServerLimits;
  const share = (measure: ComponentMeasure["measure"], value: number): ComponentMeasure => ({
    ...{ measure, value, unit: "share", ...loadShare, level: levelNames[levelAbove(value, loadShare)] },
  });
  const cacheFree = cacheSpaceOf({ spoolBytes, spoolBytesMax, diskAvailableBytes: figures.diskAvailableBytes }).freeShare;
  return [
    share("processor", figures.cpuShare),
    share("load", figures.loadShare),
    share("memory", 1 - figures.memoryAvailableBytes / Math.max(1, figures.memoryBytes)),
    { measure: "cacheFree", value: cacheFree, unit: "share", ...freeShare, level: levelNames[levelBelow(cacheFree, freeShare)] },
  ];
}

export function backlogOf(spoolBytes: number, { uploadedBytesPerSecond }: Pick<SystemFigures, "uploadedBytesPerSecond">): ComponentMeasure {
  const minutes = spoolBytes <= pendingBytesSmall ? 0 : spoolBytes / uploadedBytesPerSecond / 60;
  return minutesMeasure("uploadBacklog", minutes);
}

/** Without an end: as much as cannot be moved at all. */
function minutesMeasure(measure: ComponentMeasure["measure"], minutes: number | undefined): ComponentMeasure {
  const limit = processServerLimits.drainMinutes;
  const level: LimitLevel | undefined = minutes === undefined ? undefined : levelAbove(minutes, limit);
  return {
    ...{ measure, unit: "minutes", ...limit },
    ...(minutes === undefined || !Number.isFinite(minutes) ? {} : { value: minutes }),
    level: level === undefined ? "unknown" : levelNames[level],
  };
}

const order: readonly HealthLevel[] = ["healthy", "unknown", "warning", "critical"];

/** A component is as well as its worst measure; a fault makes it a warning at least. */
function withLevel({
  atLeast = "healthy",
  ...component
}: Omit<SetupComponent, "level" | "measures"> & {
  readonly measures: readonly ComponentMeasure[];
  readonly atLeast?: HealthLevel;
}): SetupComponent {
  const levels = [atLeast, ...component.measures.map(({ level }) => level), ...(component.faults.length > 0 ? (["warning"] as const) : [])];
  const level = levels.toSorted((one, other) => order.indexOf(other) - order.indexOf(one))[0] ?? "unknown";
  return { ...component, measures: [...component.measures], level };
}
