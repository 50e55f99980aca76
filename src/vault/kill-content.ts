// Content of a disk from a number, for the test that kills a writer: blocks that recur among numbers, and some of its own.

import { createHash } from "node:crypto";
import { blockBytes } from "../disk/geometry.ts";

export function contentOfSeed(seed: number): Buffer {
  return Buffer.concat(
    Array.from({ length: 6 }, (_, block) => {
      const noise = createHash("shake256", { outputLength: 4000 })
        .update(block < 2 ? `own ${seed} ${block}` : `common ${(seed >> block) % 5}`)
        .digest();
      return Buffer.concat([noise, Buffer.alloc(blockBytes - noise.length, block)]);
    }),
  );
}
