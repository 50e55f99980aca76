// Waits for a state that the service reaches in its own time, as an operator does who looks again and again.

import { systemClock } from "../../../src/base/clock.ts";

const lookEveryMs = 250;

export async function waitUntil<T>(what: string, secondsMax: number, look: () => Promise<T | undefined>): Promise<T> {
  const endMs = systemClock.monotonicMs() + secondsMax * 1000;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (systemClock.monotonicMs() > endMs) throw new Error(`waited ${secondsMax} s in vain for ${what}`);
    await systemClock.sleep(lookEveryMs);
  }
}

export async function collect<T>(pages: AsyncIterable<T>): Promise<readonly T[]> {
  const items: T[] = [];
  for await (const item of pages) items.push(item);
  return items;
}
