// What the appliance tells of itself: to its hub, and to who asks for metrics.

import type { z } from "zod";
import type { telemetryShape } from "../contract/appliance-protocol.ts";
import type { ShownFigures } from "./flow/metrics.ts";
import { applianceVersion } from "./identity/hub-registration.ts";
import { lookAtSpool, spoolBytesOf } from "./ingest/spool.ts";
import type { Appliance } from "./main.ts";

export async function telemetryOf({ spool, health, meter, limits }: Appliance): Promise<z.infer<typeof telemetryShape>> {
  return {
    applianceVersion,
    spoolBytes: await spoolBytesOf(spool),
    spoolBytesMax: spool.spoolBytesMax,
    residentBytes: process.memoryUsage.rss(),
    healthErrors: health.reports(),
    system: await meter.read(),
    lineLimits: limits.shownState(),
  };
}

export async function measuresOf(appliance: Appliance): Promise<ShownFigures> {
  const { spool, limits, health } = appliance;
  const { spoolBytes, freeShare } = await lookAtSpool(spool);
  return {
    ...{ machines: appliance.flows(), lines: limits.state().lines, spoolBytes, spoolBytesMax: spool.spoolBytesMax },
    ...{ cacheFreeShare: freeShare, isThrottled: limits.throttle !== undefined, healthErrorCount: health.reports().length },
  };
}
