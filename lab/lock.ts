// A lock between processes that a crash cannot leave behind: an abstract socket, freed by the kernel with its owner.

import { createServer } from "node:net";
import { systemClock } from "../src/base/clock.ts";
import { Fault } from "../src/contract/errors.ts";

export interface LockOptions {
  readonly name: string;
  /** Said once when another process holds the lock. */
  readonly onWait?: () => void;
  readonly waitMaxMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Waits for the lock named `name`; disposing gives it back. */
export async function takeLock(options: LockOptions): Promise<AsyncDisposable> {
  const deadline = systemClock.monotonicMs() + options.waitMaxMs;
  for (let attempt = 0; ; attempt++) {
    const held = await tryListen(`\0watari-lab/${options.name}`);
    if (held !== undefined) return held;
    if (attempt === 0) options.onWait?.();
    if (systemClock.monotonicMs() > deadline) {
      throw new Fault(
        "StateConflict",
        `could not take the lock ${options.name} within ${options.waitMaxMs} ms: another lab command holds it`,
      );
    }
    await systemClock.sleep(200, options.signal);
  }
}

async function tryListen(address: string): Promise<AsyncDisposable | undefined> {
  const server = createServer((connection) => connection.destroy());
  return await new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => (error.code === "EADDRINUSE" ? resolve(undefined) : reject(error)));
    server.listen(address, () => {
      server.unref();
      resolve({
        [Symbol.asyncDispose]: async () => {
          await new Promise<void>((closed) => server.close(() => closed()));
        },
      });
    });
  });
}
