// Randomness as an argument: the only place that asks the system for random bytes.

import { randomBytes, randomUUID } from "node:crypto";

/** Source of randomness. Tests give a seeded one. */
export interface Random {
  bytes(byteCount: number): Uint8Array;
  uuid(): string;
}

export const systemRandom: Random = {
  bytes: (byteCount) => randomBytes(byteCount),
  uuid: () => randomUUID(),
};
