// A generation of a vault's key as clients see it: what became of it and how much it still seals, never the key.

import type { JsonObject } from "../db/resources.ts";
import type { KeyGeneration } from "../db/vault-keys.ts";
import { keyGenerationType } from "./names.ts";

const shownStates = { prepared: "Prepared", current: "Current", former: "Former", ending: "Ending", destroyed: "Destroyed" } as const;

export function presentGeneration(vaultId: string, found: KeyGeneration): JsonObject {
  const { generation, state, madeAt, usedFrom, usedUntil, destroysItself, counted } = found;
  const name = String(generation);
  return {
    id: `${vaultId}/watariKeyGenerations/${name}`,
    name,
    type: keyGenerationType,
    properties: {
      generation,
      state: shownStates[state],
      destroyWhenUnused: destroysItself,
      ...(madeAt === undefined ? {} : { madeAt }),
      ...(usedFrom === undefined ? {} : { usedFrom }),
      ...(usedUntil === undefined ? {} : { usedUntil }),
      ...(counted === undefined
        ? {}
        : {
            sealed: {
              countedAt: counted.at,
              packCount: counted.packCount,
              packBytes: counted.packBytes,
              recoveryPointCount: counted.pointCount,
            },
          }),
    },
  };
}
