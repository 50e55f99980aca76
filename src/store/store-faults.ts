// The faults that every store throws, in one wording.

import { Fault } from "../contract/errors.ts";
import type { BlobRange, StoreKey } from "./store.ts";

export function takenKeyFault(key: StoreKey): Fault {
  return new Fault("StateConflict", "could not store an object: its key is taken by other content", {
    evidence: { key },
    retry: "never",
    causes: ["two writers share one vault", "an object was damaged in the store"],
    action: "make sure that only one appliance writes this machine, then run a verification of the vault",
  });
}

export function rangeFault(key: StoreKey, range: BlobRange, sizeBytes: number): Fault {
  return new Fault("DataDamaged", "could not read an object: it is shorter than it should be", {
    evidence: { key, offset: range.offset, length: range.length, sizeBytes },
  });
}

export function unavailableFault(doing: string, key: string, cause: unknown): Fault {
  return new Fault("StoreUnavailable", `could not ${doing}: the store does not answer as it should`, { evidence: { key }, cause });
}
