// What a simulated appliance says of its lines: limits that are kept and not felt, a profile of nobody's writing, ways that hold.

import type { ChurnProfile } from "../../../contract/churn-profile.ts";
import { Fault } from "../../../contract/errors.ts";
import { parseDiskId } from "../../../contract/ids.ts";
import type { LimitPlace, LimitsChange, LimitsState, LineLimit } from "../../../contract/line-limits.ts";
import type { NetworkCheck } from "../../../contract/network-check.ts";
import type { SimSource } from "./sim-source.ts";

export class SimLimits {
  #timeZone = "UTC";
  #limits: readonly LineLimit[] = [];

  change({ timeZone, remove, set }: LimitsChange): LimitsState {
    const placeOf = ({ scope, machineId, window }: LimitPlace): string => JSON.stringify([scope, machineId, window]);
    const gone = new Set([...remove, ...set].map(placeOf));
    this.#limits = [...this.#limits.filter((limit) => !gone.has(placeOf(limit))), ...set];
    this.#timeZone = timeZone ?? this.#timeZone;
    return { timeZone: this.#timeZone, limits: [...this.#limits], lines: [] };
  }
}

export const simChecks: readonly NetworkCheck[] = [
  { id: "rcm1/tcp", role: "appliance", hop: "tcp", to: "rcm1:443", tried: "connect", answer: "connected", latencyMs: 1, verdict: "pass" },
];

export function simProfile(
  sources: readonly SimSource[],
  { machine, seconds }: { readonly machine: string; readonly seconds: number },
): ChurnProfile {
  const source = sources.find(({ discovered }) => discovered.name === machine);
  if (source === undefined) throw new Fault("NotFound", `there is no machine ${machine}`);
  const disks = source.disks.map(({ name, content: { sizeBytes } }) => ({
    ...{ diskId: parseDiskId(name), sizeBytes, rung: "ebpf", reason: "simulated" },
  }));
  return { sampleSeconds: seconds, samples: [4096], windows: [{ seconds, meanBytes: 4096, maxBytes: 4096 }], disks };
}
