// A cable between agents and their appliance that can be pulled and plugged in again.

import { connect, createServer, type AddressInfo, type Socket } from "node:net";

export interface Cable extends AsyncDisposable {
  readonly port: number;
  /** Pulled: what is open breaks, and nothing new is let through. */
  isPulled: boolean;
  readonly passedBytes: number;
}

export async function plugCable(toPort: number): Promise<Cable> {
  const ends = new Set<Socket>();
  let isPulled = false;
  let passedBytes = 0;
  const server = createServer((near) => {
    near.on("error", () => undefined); // Its close ends the other side.
    if (isPulled) return void near.destroy();
    const far = connect({ port: toPort, host: "127.0.0.1" });
    far.on("error", () => near.destroy());
    near.on("data", (chunk) => (passedBytes += chunk.length));
    near.pipe(far).pipe(near);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      ends.add(one);
      one.once("close", () => {
        ends.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const end = (): void => {
    for (const socket of ends) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port, // A TCP server has a port.
    get isPulled() {
      return isPulled;
    },
    set isPulled(next) {
      isPulled = next;
      if (next) end();
    },
    get passedBytes() {
      return passedBytes;
    },
    [Symbol.asyncDispose]: async () => {
      end();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}
