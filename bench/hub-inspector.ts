// What a hub that was started with its inspector tells by the Chrome DevTools Protocol, as any debugger asks: its heap, and where its time goes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { z } from "zod";

const answerShape = z.object({ id: z.number(), result: z.looseObject({}).optional() });
const heapShape = z.looseObject({ usedSize: z.number() });
const profileShape = z.looseObject({ profile: z.unknown() });

type Ask = (method: string, params?: object) => Promise<unknown>;

async function withInspector<Answer>(address: string | undefined, task: (ask: Ask) => Promise<Answer>): Promise<Answer> {
  assert.ok(address !== undefined, "the hub was started with its inspector");
  const socket = new WebSocket(address);
  let last = 0;
  const ask: Ask = async (method, params = {}) => {
    const id = ++last;
    const answer = Promise.withResolvers<unknown>();
    const listen = ({ data }: MessageEvent): void => {
      const parsed = answerShape.safeParse(JSON.parse(String(data)));
      if (parsed.success && parsed.data.id === id) answer.resolve(parsed.data.result);
    };
    socket.addEventListener("message", listen);
    socket.send(JSON.stringify({ id, method, params }));
    return await answer.promise.finally(() => socket.removeEventListener("message", listen));
  };
  await once(socket, "open");
  try {
    return await task(ask);
  } finally {
    socket.close();
  }
}

/** Bytes of JavaScript that are alive, after a full collection. */
export async function collectedHeap(address: string | undefined): Promise<number> {
  return await withInspector(address, async (ask) => {
    // The second round takes what finalizers of the first let go.
    for (let round = 0; round < 2; round++) await ask("HeapProfiler.collectGarbage");
    return heapShape.parse(await ask("Runtime.getHeapUsage")).usedSize;
  });
}

export interface LoopDelays {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly longestMs: number;
}

const delaysShape = z.looseObject({ result: z.looseObject({ value: z.tuple([z.number(), z.number(), z.number()]) }) });
const watchMs = 2;
const beginWatch = `(() => {
  globalThis.benchDelays = process.getBuiltinModule("node:perf_hooks").monitorEventLoopDelay({ resolution: ${watchMs} });
  benchDelays.enable();
})()`;
const endWatch = `(benchDelays.disable(), [benchDelays.percentile(50), benchDelays.percentile(99), benchDelays.max])`;

/** How late the hub's one thread comes to what waits for it, while the task runs. */
export async function delaysDuring(address: string | undefined, task: () => Promise<void>): Promise<LoopDelays> {
  return await withInspector(address, async (ask) => {
    await ask("Runtime.evaluate", { expression: beginWatch });
    await task();
    const answer = await ask("Runtime.evaluate", { expression: endWatch, returnByValue: true });
    const [p50, p99, longest] = delaysShape.parse(answer).result.value;
    return { p50Ms: p50 / 1e6 - watchMs, p99Ms: p99 / 1e6 - watchMs, longestMs: longest / 1e6 - watchMs };
  });
}

/** A .cpuprofile of the hub while the task runs. */
export async function profileDuring(address: string | undefined, task: () => Promise<void>): Promise<string> {
  return await withInspector(address, async (ask) => {
    await ask("Profiler.enable");
    await ask("Profiler.start");
    await task();
    return JSON.stringify(profileShape.parse(await ask("Profiler.stop")).profile);
  });
}
