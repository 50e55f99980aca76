// A process outside Node that thaws every filesystem when its time is over or when the agent is gone, whatever state Node is in.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { Fault } from "../../contract/errors.ts";

export interface Watchdog {
  /** Whether it has ended by itself: then everything is thawed. */
  hasEnded(): boolean;
  /** To be called when everything is thawed. */
  disarm(): void;
}

/**
 * Everything that it will need is opened before it says "ready": while the root is frozen it only waits, and writes
 * one letter to the kernel (SysRq j: thaw all). End of its input means that the agent is gone.
 */
const watchdogScript = `
exec 3>/proc/sysrq-trigger 4<&0 || exit 9
sleep "$1" </dev/null >/dev/null 2>&1 &
timer=$!
trap 'echo j >&3; kill $timer; exit 1' TERM HUP INT
{ read -r word <&4; [ "$word" = thawed ] || echo j >&3; kill $timer; } >/dev/null 2>&1 &
echo ready
wait $timer && echo j >&3
`;

/** Started and proven to be waiting on return. */
export async function armWatchdog(msMax: number): Promise<Watchdog> {
  const seconds = (msMax / 1000).toFixed(2);
  const child = spawn("/bin/sh", ["-c", watchdogScript, "watari-thaw", seconds], { stdio: ["pipe", "pipe", "ignore"], detached: true });
  let hasEnded = false;
  child.once("exit", () => {
    hasEnded = true;
  });
  child.stdin.on("error", () => undefined); // It has ended; hasEnded tells.
  child.unref();
  const answer: unknown[] = await Promise.race([once(child.stdout, "data"), once(child, "exit").then(() => [])]);
  if (!String(answer[0]).startsWith("ready"))
    throw new Fault("FreezeFailed", "could not freeze: nothing could thaw the filesystems if the agent died", {
      causes: ["the kernel has no SysRq trigger"],
      action: "use a kernel with CONFIG_MAGIC_SYSRQ",
      retry: "never",
    });
  return { hasEnded: () => hasEnded, disarm: () => void child.stdin.end("thawed\n") };
}
