// A process outside Node that thaws every filesystem when its time is over or when the agent is gone, whatever state Node is in.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { Writable } from "node:stream";
import { assert } from "../../base/assert.ts";
import { Fault } from "../../contract/errors.ts";
import { expediteSwitch } from "./short-waits.ts";

export interface Watchdog {
  /** Its time runs from here: to be called right before the first freeze, once. */
  begin(msMax: number): void;
  /** Whether it has ended by itself: then everything is thawed. */
  hasEnded(): boolean;
  /** To be called when everything is thawed. */
  disarm(): void;
}

export const sysrqTrigger = "/proc/sysrq-trigger";

/**
 * Everything that it will need is opened or loaded before it says "ready": while the root is frozen it only waits, then writes one
 * letter to the kernel (SysRq j: thaw all). A kernel without SysRq is asked by fsfreeze, filesystem by filesystem; reading a program
 * from a frozen filesystem is no write. End of its input means that the agent is gone. Its first argument: whether the kernel's waits may be short.
 */
const watchdogScript = `
waits=$1; shift
[ "$waits" = none ] || exec 7>${expediteSwitch}
restore() { [ "$waits" = none ] || echo 0 >&7; }
if [ -w ${sysrqTrigger} ]; then exec 6>${sysrqTrigger}; thaw() { echo j >&6; restore; }
elif fsfreeze --version >/dev/null 2>&1; then thaw() { for path; do fsfreeze --unfreeze "$path" & done; wait; restore; }
else exit 9; fi
exec 4<&0 5<&3
{ read -r seconds <&5 && exec sleep "$seconds"; exit 1; } </dev/null >/dev/null 2>&1 &
timer=$!
trap 'thaw "$@"; kill $timer; exit 1' TERM HUP INT
{ read -r word <&4; [ "$word" = thawed ] || thaw "$@"; kill $timer; } >/dev/null 2>&1 &
echo ready
wait $timer && thaw "$@" >/dev/null 2>&1
`;

/** Started and proven to be waiting on return: until it is begun it only thaws when the agent ends. `paths` are the mount points that will be frozen. */
export async function armWatchdog(paths: readonly string[], also: { readonly shortWaits: "none" | "on" }): Promise<Watchdog> {
  const child = spawn("/bin/sh", ["-c", watchdogScript, "watari-thaw", also.shortWaits, ...paths], {
    stdio: ["pipe", "pipe", "ignore", "pipe"],
    detached: true,
  });
  let hasEnded = false;
  child.once("exit", () => {
    hasEnded = true;
  });
  const [stdin, stdout, , timer] = child.stdio;
  assert(stdin !== null && stdout !== null && timer instanceof Writable, "the watchdog has its pipes");
  for (const pipe of [stdin, timer]) pipe.on("error", () => undefined); // It has ended; hasEnded tells.
  child.unref();
  const answer: unknown[] = await Promise.race([once(stdout, "data"), once(child, "exit").then(() => [])]);
  if (!String(answer[0]).startsWith("ready"))
    throw new Fault("FreezeFailed", "could not freeze: nothing could thaw the filesystems if the agent died", {
      causes: ["the kernel has no SysRq trigger and the machine has no fsfreeze"],
      action: "install util-linux, or use a kernel with CONFIG_MAGIC_SYSRQ",
      retry: "never",
    });
  return {
    begin: (msMax) => void timer.end(`${(msMax / 1000).toFixed(2)}\n`),
    hasEnded: () => hasEnded,
    disarm: () => void stdin.end("thawed\n"),
  };
}
