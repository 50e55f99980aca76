// Freezes every writable filesystem on the replicated disks and thaws them again; a watchdog stands by for the whole time.

import { constants } from "node:fs";
import { open, readFile, rm, stat, writeFile, type FileHandle } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import type { Clock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { deviceOf } from "../disks/machine-facts.ts";
import { freezeOrder, parseMountinfo, type Mount } from "../disks/mounts.ts";
import { disksUnder } from "../disks/sysfs.ts";
import { KernelRefused, type SystemCalls } from "../kernel/system-calls.ts";
import type { ArmedFreeze, Freeze } from "../source.ts";
import { armWatchdog, sysrqTrigger, type Watchdog } from "./watchdog.ts";

const freezeRequest = 0xc004_5877;
const thawRequest = 0xc004_5878;
/** In memory (tmpfs): there while filesystems may be frozen; what starts after a crash looks for it. */
const frozenMarker = "/run/watari-agent-frozen";

export interface FreezeOptions {
  readonly calls: SystemCalls;
  readonly clock: Clock;
  readonly diskNames: ReadonlySet<string>;
  readonly msMax: number;
}

/** Thaws what a killed agent left frozen. */
export async function thawLeftovers(): Promise<void> {
  if ((await stat(frozenMarker).catch(() => undefined)) === undefined) return; // No marker: nothing was left.
  const paths = (await readFile(frozenMarker, "utf8")).split("\n").filter((path) => path !== "");
  if ((await stat(sysrqTrigger).catch(() => undefined)) !== undefined) await writeFile(sysrqTrigger, "j");
  else for (const path of paths) await tryCommand("fsfreeze", ["--unfreeze", path]); // Refused when it is not frozen any more.
  await rm(frozenMarker, { force: true });
}

export async function armFreeze(options: FreezeOptions): Promise<ArmedFreeze> {
  const mounts = await openMounts(options.diskNames);
  const paths = mounts.map(({ mount }) => mount.path);
  const watchdog = await armWatchdog(paths);
  await writeFile(frozenMarker, paths.join("\n"));
  const close = async (): Promise<void> => {
    watchdog.disarm();
    await rm(frozenMarker, { force: true });
    for (const { file } of mounts.splice(0)) await file.close();
  };
  return {
    writeOut: async () => {
      for (const { file } of mounts) {
        options.calls.call("syncfs", file.fd);
        await setImmediate(); // Each call keeps this thread: in between it answers whoever waits.
      }
    },
    freeze: async () => await freezeArmed(options, { mounts, watchdog, close }),
    cancel: close,
  };
}

interface Armed {
  readonly mounts: readonly OpenMount[];
  readonly watchdog: Watchdog;
  readonly close: () => Promise<void>;
}

async function freezeArmed(options: FreezeOptions, { mounts, watchdog, close }: Armed): Promise<Freeze> {
  const { clock } = options;
  const frozen: FileHandle[] = [];
  const filesystems: { readonly path: string; readonly tookMs: number }[] = [];
  watchdog.begin(options.msMax);
  // From here until the thaw nothing may be written anywhere: each step is a system call on what is open already.
  const startMs = clock.monotonicMs();
  let outcome: { readonly isWhole: boolean; readonly frozenMs: number } | undefined;
  const thaw: Freeze["thaw"] = async () => {
    if (outcome !== undefined) return outcome;
    const hadEnded = watchdog.hasEnded();
    const answers = frozen.toReversed().map((mount) => tryThaw(options.calls, mount));
    outcome = { isWhole: !hadEnded && answers.every(Boolean), frozenMs: clock.monotonicMs() - startMs };
    await close();
    return outcome;
  };
  try {
    for (const { file, mount } of mounts) {
      const beginMs = clock.monotonicMs();
      if (freezeOne(options.calls, { file, mount })) frozen.push(file);
      filesystems.push({ path: mount.path, tookMs: clock.monotonicMs() - beginMs });
    }
  } catch (error) {
    await thaw();
    throw error;
  }
  const tookMs = clock.monotonicMs() - startMs;
  return { tookMs, filesystems, thaw, isHeld: () => outcome === undefined && !watchdog.hasEnded() };
}

interface OpenMount {
  readonly file: FileHandle;
  readonly mount: Mount;
}

async function openMounts(diskNames: ReadonlySet<string>): Promise<OpenMount[]> {
  const all = parseMountinfo(await readFile("/proc/self/mountinfo", "utf8")).filter((mount) => mount.isWritable);
  const opened: OpenMount[] = [];
  for (const mount of freezeOrder(all)) {
    const under = await disksUnder(await deviceOf(mount));
    if (!under.values().some((name) => diskNames.has(name))) continue;
    const isDirectory = (await stat(mount.path)).isDirectory();
    opened.push({ file: await open(mount.path, constants.O_RDONLY | (isDirectory ? constants.O_DIRECTORY : 0)), mount });
  }
  return opened;
}

/** false: the filesystem knows no freeze (vfat); it was synced just before, and the reader sees to it that nothing changes. */
function freezeOne(calls: SystemCalls, { file, mount }: OpenMount): boolean {
  try {
    calls.call("ioctl", file.fd, freezeRequest, 0);
    return true;
  } catch (error) {
    if (error instanceof KernelRefused && error.errorName === "EOPNOTSUPP") return false;
    const why = error instanceof KernelRefused ? error.errorName : "an unknown reason";
    throw new Fault("FreezeFailed", `could not freeze the filesystem at ${mount.path}: ${why}`, {
      evidence: { path: mount.path, why },
      cause: error,
    });
  }
}

function tryThaw(calls: SystemCalls, file: FileHandle): boolean {
  try {
    calls.call("ioctl", file.fd, thawRequest, 0);
    return true;
  } catch (error) {
    if (error instanceof KernelRefused) return false; // Not frozen any more: the watchdog or an operator was first.
    throw error;
  }
}
