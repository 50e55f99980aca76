// A programmer's fault stops the program: assert says which promise was broken.

/** Throws when `condition` does not hold. Only for faults of the program, never for faults of the world. */
export function assert(condition: unknown, claim: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${claim}`);
}

/** For the end of a switch over a union: the compiler proves that no case is missing. */
export function unreachable(value: never): never {
  throw new Error(`assertion failed: unexpected value ${JSON.stringify(value)}`);
}
