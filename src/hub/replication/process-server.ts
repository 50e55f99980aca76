// An appliance as the process server of its fabric: load, memory, space, throughput and certificate, judged by the documented limits.

import { fromTimestamp } from "../../base/clock.ts";
import type { Appliance } from "../db/appliances.ts";
import type { JsonObject } from "../db/resources.ts";
import { worseLevel } from "../health/present-health.ts";
import type { HubServices } from "../services.ts";
import { isSilent } from "./site-appliances.ts";

type Level = "Healthy" | "Warning" | "Critical";

/** Documented: processors and memory above, free space below, minutes until what waits is uploaded above. */
const limits = {
  loadShare: { warning: 0.8, critical: 0.95 },
  freeShare: { warning: 0.3, critical: 0.25 },
  drainMinutes: { warning: 30, critical: 45 },
};
/** What waits while one pack is on its way says nothing of the line. */
const pendingBytesSmall = 64 << 20;
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
          systemLoadStatus: above(system.loadShare, limits.loadShare),
          cpuLoad: percent(system.cpuShare),
          cpuLoadStatus: above(system.cpuShare, limits.loadShare),
          totalMemoryInBytes: system.memoryBytes,
          availableMemoryInBytes: system.memoryAvailableBytes,
          memoryUsageStatus: above(1 - system.memoryAvailableBytes / Math.max(1, system.memoryBytes), limits.loadShare),
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

/** The cache of Azure's process server is the spool here; its disk may end before its limit does. */
export function spaceOf(telemetry: Appliance["telemetry"]): JsonObject {
  if (telemetry === undefined || telemetry.spoolBytesMax === 0) return {};
  const { spoolBytes, spoolBytesMax, system } = telemetry;
  const ownFree = Math.max(0, spoolBytesMax - spoolBytes);
  const availableSpaceInBytes = Math.min(ownFree, system?.diskAvailableBytes ?? ownFree);
  const totalSpaceInBytes = Math.min(spoolBytesMax, spoolBytes + (system?.diskAvailableBytes ?? ownFree));
  const freeShare = availableSpaceInBytes / Math.max(1, totalSpaceInBytes);
  const spaceUsageStatus: Level =
    freeShare < limits.freeShare.critical ? "Critical" : freeShare < limits.freeShare.warning ? "Warning" : "Healthy";
  return { totalSpaceInBytes, availableSpaceInBytes, spaceUsageStatus };
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
    throughputStatus: above(drainMinutes, limits.drainMinutes),
  };
}

function above(value: number, limit: { readonly warning: number; readonly critical: number }): Level {
  return value > limit.critical ? "Critical" : value > limit.warning ? "Warning" : "Healthy";
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
