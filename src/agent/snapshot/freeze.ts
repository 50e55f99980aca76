// Freezes every writable filesystem on the replicated disks and thaws them again; a watchdog stands by for the whole time.

import { constants } from "node:fs";
import { open, readFile, rm, stat, writeFile, type FileHandle } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { deviceOf } from "../disks/machine-facts.ts";
import { freezeOrder, parseMountinfo, type Mount } from "../disks/mounts.ts";
import { disksUnder } from "../disks/sysfs.ts";
import { KernelRefused, type SystemCalls } from "../kernel/system-calls.ts";
import type { Freeze } from "../source.ts";
import { armWatchdog, sysrqTrigger } from "./watchdog.ts";

const freezeRequest = 0xc004_5877;
const thawRequest = 0xc004_5878;
/** In memory (tmpfs): there while filesystems may be frozen; what starts after a crash looks for it. */
const frozenMarker = "/run/watari-agent-frozen";

const writeOutPassesMax = 4;
/** What comes during so short a pass is written out in no time. */
const shortPassMs = 40;

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

export async function freezeFilesystems(options: FreezeOptions): Promise<Freeze> {
  const mounts = await openMounts(options.diskNames);
  const frozen: FileHandle[] = [];
  const paths = mounts.map(({ mount }) => mount.path);
  const watchdog = await armWatchdog(paths);
  await writeFile(frozenMarker, paths.join("\n"));
  writeOut(options, mounts);
  watchdog.begin(options.msMax);
  // From here until the thaw nothing may be written anywhere: each step is a system call on what is open already.
  const startMs = options.clock.monotonicMs();
  let outcome: { readonly isWhole: boolean; readonly frozenMs: number } | undefined;
  const thaw: Freeze["thaw"] = async () => {
    if (outcome !== undefined) return outcome;
    const hadEnded = watchdog.hasEnded();
    const answers = frozen.toReversed().map((mount) => tryThaw(options.calls, mount));
    outcome = { isWhole: !hadEnded && answers.every(Boolean), frozenMs: options.clock.monotonicMs() - startMs };
    watchdog.disarm();
    await rm(frozenMarker, { force: true });
    for (const { file } of mounts) await file.close();
    return outcome;
  };
  try {
    for (const { file, mount } of mounts) if (freezeOne(options.calls, { file, mount })) frozen.push(file);
  } catch (error) {
    await thaw();
    throw error;
  }
  const tookMs = options.clock.monotonicMs() - startMs;
  return { tookMs, thaw, isHeld: () => outcome === undefined && !watchdog.hasEnded() };
}

/**
 * A freeze writes out what is in memory while all writers stand still. So as much as can be is written out just before: each pass leaves
 * what came during it, which is less each time.
 */
function writeOut({ calls, clock }: FreezeOptions, mounts: readonly OpenMount[]): void {
  for (let pass = 0; pass < writeOutPassesMax; pass++) {
    const startMs = clock.monotonicMs();
    for (const { file } of mounts) calls.call("syncfs", file.fd);
    if (clock.monotonicMs() - startMs < shortPassMs) return;
  }
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
