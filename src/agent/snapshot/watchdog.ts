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

export const sysrqTrigger = "/proc/sysrq-trigger";

/**
 * Everything that it will need is opened or loaded before it says "ready": while the root is frozen it only waits, then writes one
 * letter to the kernel (SysRq j: thaw all). A kernel without SysRq is asked by fsfreeze, filesystem by filesystem; reading a program
 * from a frozen filesystem is no write. End of its input means that the agent is gone.
 */
const watchdogScript = `
seconds=$1; shift
if [ -w ${sysrqTrigger} ]; then exec 3>${sysrqTrigger}; thaw() { echo j >&3; }
elif fsfreeze --version >/dev/null 2>&1; then thaw() { for path; do fsfreeze --unfreeze "$path" & done; wait; }
else exit 9; fi
exec 4<&0
sleep "$seconds" </dev/null >/dev/null 2>&1 &
timer=$!
trap 'thaw "$@"; kill $timer; exit 1' TERM HUP INT
{ read -r word <&4; [ "$word" = thawed ] || thaw "$@"; kill $timer; } >/dev/null 2>&1 &
echo ready
wait $timer && thaw "$@" >/dev/null 2>&1
`;

/** Started and proven to be waiting on return. `paths` are the mount points that will be frozen. */
export async function armWatchdog(msMax: number, paths: readonly string[]): Promise<Watchdog> {
  const seconds = (msMax / 1000).toFixed(2);
  const child = spawn("/bin/sh", ["-c", watchdogScript, "watari-thaw", seconds, ...paths], {
    stdio: ["pipe", "pipe", "ignore"],
    detached: true,
  });
  let hasEnded = false;
  child.once("exit", () => {
    hasEnded = true;
  });
  child.stdin.on("error", () => undefined); // It has ended; hasEnded tells.
  child.unref();
  const answer: unknown[] = await Promise.race([once(child.stdout, "data"), once(child, "exit").then(() => [])]);
  if (!String(answer[0]).startsWith("ready"))
    throw new Fault("FreezeFailed", "could not freeze: nothing could thaw the filesystems if the agent died", {
      causes: ["the kernel has no SysRq trigger and the machine has no fsfreeze"],
      action: "install util-linux, or use a kernel with CONFIG_MAGIC_SYSRQ",
      retry: "never",
    });
  return { hasEnded: () => hasEnded, disarm: () => void child.stdin.end("thawed\n") };
}
