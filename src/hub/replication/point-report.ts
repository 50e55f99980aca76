// Waits until the hub's catalogue has a point that an order has made.

import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import { Fault } from "../../contract/errors.ts";
import type { PointId } from "../../contract/ids.ts";
import type { StepContext } from "../jobs/job.ts";
import type { Replication } from "./world.ts";

export async function waitForReport(
  { services, limits }: Pick<Replication, "services" | "limits">,
  context: Pick<StepContext<object, object>, "signal">,
  { vaultKey, pointId }: { readonly vaultKey: string; readonly pointId: PointId },
): Promise<SealedPointReport> {
  const { clock, points } = services;
  const endsAtMs = clock.monotonicMs() + limits.shortOrderSeconds * 1000;
  for (;;) {
    const report = await points.find(vaultKey, pointId);
    if (report !== undefined) return report;
    if (clock.monotonicMs() > endsAtMs)
      throw new Fault("ApplianceSilent", "the appliance made a recovery point and did not report it", { evidence: { pointId } });
    await clock.sleep(Math.min(200, limits.pollMs), context.signal);
  }
}
