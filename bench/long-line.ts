// A long line between two ports of this machine: what goes in comes out so much later, and at most so many bytes a second.

import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { performance } from "node:perf_hooks";

export interface LongLine extends AsyncDisposable {
  readonly port: number;
  /** Most bytes that were on their way at once, from agent to appliance. */
  readonly inFlightBytesMax: number;
}

/** What may wait before the line; beyond it the sender is not read. */
const waitingBytesMax = 8 << 20;

export async function openLongLine(
  toPort: number,
  way: { readonly roundTripMs: number; readonly bytesPerSecond: number },
): Promise<LongLine> {
  const sockets = new Set<Socket>();
  let inFlightBytesMax = 0;
  const server = createServer((near) => {
    const far = connect({ port: toPort, host: "127.0.0.1" });
    carry(near, far, way, (bytes) => (inFlightBytesMax = Math.max(inFlightBytesMax, bytes)));
    carry(far, near, way, () => undefined);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.setNoDelay(true);
      sockets.add(one);
      one.on("error", () => other.destroy());
      one.once("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port, // A TCP server has a port.
    get inFlightBytesMax() {
      return inFlightBytesMax;
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}

interface Carried {
  readonly chunk: Buffer;
  readonly arrivesMs: number;
}

/** One direction. */
function carry(
  from: Socket,
  to: Socket,
  { roundTripMs, bytesPerSecond }: { readonly roundTripMs: number; readonly bytesPerSecond: number },
  onInFlight: (bytes: number) => void,
): void {
  const carried: Carried[] = [];
  let carriedBytes = 0;
  let freeMs = 0;
  let timer: NodeJS.Timeout | undefined;
  const deliver = (): void => {
    timer = undefined;
    const nowMs = performance.now();
    for (let next = carried[0]; next !== undefined && next.arrivesMs <= nowMs; next = carried[0]) {
      carried.shift();
      carriedBytes -= next.chunk.length;
      to.write(next.chunk);
    }
    if (from.isPaused() && (freeMs - nowMs) * (bytesPerSecond / 1000) < waitingBytesMax / 2) from.resume();
    const [first] = carried;
    if (first !== undefined) timer = setTimeout(deliver, Math.max(1, Math.min(first.arrivesMs - nowMs, 5)));
  };
  from.on("data", (chunk: Buffer) => {
    const nowMs = performance.now();
    const leavesMs = Math.max(nowMs, freeMs) + (chunk.length / bytesPerSecond) * 1000;
    freeMs = leavesMs;
    carried.push({ chunk, arrivesMs: leavesMs + roundTripMs / 2 });
    carriedBytes += chunk.length;
    onInFlight(carriedBytes);
    if ((freeMs - nowMs) * (bytesPerSecond / 1000) > waitingBytesMax) from.pause();
    timer ??= setTimeout(deliver, 1);
  });
  from.once("close", () => clearTimeout(timer));
}
