// The ladder of tracking: the best rung that the machine allows, with the reason why no better one is used.

import { Fault } from "../../contract/errors.ts";
import { describeRefusal, openEbpfTracker, type EbpfTracker, type EbpfTrackerOptions } from "./ebpf-tracker.ts";

/**
 * eBPF is the one rung that sees changes. Without it a running machine has no consistent points, and that is said
 * rather than glossed over.
 */
export async function openBestTracker(options: EbpfTrackerOptions): Promise<EbpfTracker> {
  try {
    return await openEbpfTracker(options);
  } catch (error) {
    const reason = describeRefusal(error);
    throw new Fault("TrackingRefused", `could not track the changes of the disk ${options.diskId}: ${reason}`, {
      evidence: { diskId: options.diskId, reason },
      retry: "never",
      cause: error,
    });
  }
}
