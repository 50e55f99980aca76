// An appliance as the process server of its fabric: load, memory, space, throughput and certificate, judged by the documented limits.

import { fromTimestamp } from "../../base/clock.ts";
import { cacheSpaceOf, levelAbove, levelBelow, pendingBytesSmall, processServerLimits } from "../../contract/process-server-limits.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import { worseLevel } from "../health/present-health.ts";
import type { HubServices } from "../services.ts";
import { isSilent } from "./site-appliances.ts";

const dayMs = 86_400_000;

/** What fabric and process server both show; nothing that the appliance has not told. */
export function loadOf({ clock }: Pick<HubServices, "clock">, { telemetry, certificateEndsAt }: Appliance): JsonObject {
  const { system } = telemetry ?? {};
  return {
    ...spaceOf(telemetry),
    ...(certificateEndsAt === undefined
      ? {}
      : {
          sslCertExpiryDate: certificateEndsAt,
          sslCertExpiryRemainingDays: Math.floor((fromTimestamp(certificateEndsAt) - clock.nowMs()) / dayMs),
        }),
    ...(system === undefined
      ? {}
      : {
          ipAddress: system.address,
          systemLoad: percent(system.loadShare),
          systemLoadStatus: levelAbove(system.loadShare, processServerLimits.loadShare),
          cpuLoad: percent(system.cpuShare),
          cpuLoadStatus: levelAbove(system.cpuShare, processServerLimits.loadShare),
          totalMemoryInBytes: system.memoryBytes,
          availableMemoryInBytes: system.memoryAvailableBytes,
          memoryUsageStatus: levelAbove(1 - system.memoryAvailableBytes / Math.max(1, system.memoryBytes), processServerLimits.loadShare),
        }),
  };
}

export function showProcessServer(
  services: HubServices,
  appliance: Appliance,
  common: JsonObject & { readonly health: string },
): JsonObject {
  const { applianceId, name, lastSeenAt, telemetry } = appliance;
  const { system } = telemetry ?? {};
  const own = { ...loadOf(services, appliance), ...throughputOf(telemetry) };
  return {
    id: applianceId,
    hostId: applianceId,
    friendlyName: name,
    osType: "Linux",
    ...(system === undefined ? {} : { osVersion: system.osVersion }),
    ...common,
    ...own,
    health: worstOf(common.health, own),
    psServiceStatus: isSilent(services, appliance) ? "NotRunning" : "Running",
    psStatsRefreshTime: lastSeenAt,
    mobilityServiceUpdates: [],
    // Ours: what the documentation has no word for.
    ...(system === undefined
      ? {}
      : {
          watari: {
            clockOffsetMs: system.clockOffsetMs ?? null,
            diskBytes: system.diskBytes,
            diskAvailableBytes: system.diskAvailableBytes,
            residentBytes: telemetry?.residentBytes ?? 0,
            ...(telemetry?.lineLimits === undefined ? {} : { lineLimits: telemetry.lineLimits }),
          },
        }),
  };
}

/** The cache of Azure's process server is the spool here. */
export function spaceOf(telemetry: Appliance["telemetry"]): JsonObject {
  if (telemetry === undefined || telemetry.spoolBytesMax === 0) return {};
  const { spoolBytes, spoolBytesMax, system } = telemetry;
  const { totalBytes, freeBytes, freeShare } = cacheSpaceOf({ spoolBytes, spoolBytesMax, diskAvailableBytes: system?.diskAvailableBytes });
  const spaceUsageStatus = levelBelow(freeShare, processServerLimits.freeShare);
  return { totalSpaceInBytes: totalBytes, availableSpaceInBytes: freeBytes, spaceUsageStatus };
}

function throughputOf(telemetry: Appliance["telemetry"]): JsonObject {
  const rate = telemetry?.system?.uploadedBytesPerSecond;
  if (telemetry === undefined || rate === undefined) return {};
  const pending = telemetry.spoolBytes;
  const drainMinutes = pending <= pendingBytesSmall ? 0 : pending / rate / 60;
  return {
    throughputUploadPendingDataInBytes: pending,
    throughputInBytes: Math.round(rate),
    throughputInMBps: Math.round(rate / 2 ** 20),
    throughputStatus: levelAbove(drainMinutes, processServerLimits.drainMinutes),
  };
}

/** Documented: the health of a process server is that of the worst of its measures. */
function worstOf(health: string, shown: JsonObject): string {
  const levels = ["systemLoadStatus", "cpuLoadStatus", "memoryUsageStatus", "spaceUsageStatus", "throughputStatus"].map(
    (key) => shown[key],
  );
  const measured = levels.includes("Critical") ? "Critical" : levels.includes("Warning") ? "Warning" : "Normal";
  return worseLevel(health === "Critical" || health === "Warning" ? health : "Normal", measured);
}

function percent(share: number): string {
  return String(Math.round(100 * share));
}
