// What a hub that was started with its inspector tells by the Chrome DevTools Protocol, as any debugger asks: its heap, and where its time goes.

import assert from "node:assert/strict";
import { once } from "node:events";
import { z } from "zod";

const answerShape = z.object({ id: z.number(), result: z.looseObject({}).optional() });
const heapShape = z.looseObject({ usedSize: z.number() });
const profileShape = z.looseObject({ profile: z.unknown() });

type Ask = (method: string) => Promise<unknown>;

async function withInspector<Answer>(address: string | undefined, task: (ask: Ask) => Promise<Answer>): Promise<Answer> {
  assert.ok(address !== undefined, "the hub was started with its inspector");
  const socket = new WebSocket(address);
  let last = 0;
  const ask: Ask = async (method) => {
    const id = ++last;
    const answer = Promise.withResolvers<unknown>();
    const listen = ({ data }: MessageEvent): void => {
      const parsed = answerShape.safeParse(JSON.parse(String(data)));
      if (parsed.success && parsed.data.id === id) answer.resolve(parsed.data.result);
    };
    socket.addEventListener("message", listen);
    socket.send(JSON.stringify({ id, method }));
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

/** A .cpuprofile of the hub while the task runs. */
export async function profileDuring(address: string | undefined, task: () => Promise<void>): Promise<string> {
  return await withInspector(address, async (ask) => {
    await ask("Profiler.enable");
    await ask("Profiler.start");
    await task();
    return JSON.stringify(profileShape.parse(await ask("Profiler.stop")).profile);
  });
}
