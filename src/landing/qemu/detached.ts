// Starts programs that outlive this one, and waits until they serve.

import { spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";

export interface DetachedOptions {
  readonly command: readonly [string, ...string[]];
  /** Gets what the program says. */
  readonly logPath: string;
  /** Whether it serves; asked again and again. */
  readonly isReady: () => Promise<boolean>;
  readonly readyMsMax: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

export type DetachedOutcome = { readonly kind: "ready" } | { readonly kind: "ended"; readonly output: string };

const pollMs = 10;
/** What this program was told in its environment is not for programs that run a guest. */
const plainEnvironment = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" };
const outputBytesMax = 2_000;

/** On abort the program is killed. */
export async function startDetached(options: DetachedOptions): Promise<DetachedOutcome> {
  const { clock, signal, logPath } = options;
  await using log = await open(logPath, "w");
  const [program, ...args] = options.command;
  const child = spawn(program, args, { detached: true, stdio: ["ignore", log.fd, log.fd], cwd: "/", env: plainEnvironment });
  let isOver = false;
  const end = () => (isOver = true);
  child.once("error", end);
  child.once("exit", end);
  child.unref();
  const deadlineMs = clock.monotonicMs() + options.readyMsMax;
  try {
    while (!(await options.isReady())) {
      if (isOver || clock.monotonicMs() > deadlineMs) {
        child.kill("SIGKILL");
        return { kind: "ended", output: (await readFile(logPath, "utf8")).slice(-outputBytesMax) };
      }
      await clock.sleep(pollMs, signal);
    }
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
  return { kind: "ready" };
}
