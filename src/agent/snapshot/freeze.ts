// Freezes every writable filesystem on the replicated disks, all at once, and thaws them again; a watchdog stands by for the whole time.

import { constants } from "node:fs";
import { open, readFile, rm, stat, writeFile, type FileHandle } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { deviceOf } from "../disks/machine-facts.ts";
import { freezeOrder, parseMountinfo, type Mount } from "../disks/mounts.ts";
import { disksUnder } from "../disks/sysfs.ts";
import type { Call, CallThreads } from "../kernel/call-threads.ts";
import type { KernelRefused } from "../kernel/system-calls.ts";
import type { ArmedFreeze, Freeze } from "../source.ts";
import { endShortWaitsLeft, prepareShortWaits, type ShortWaits } from "./short-waits.ts";
import { armWatchdog, sysrqTrigger, type Watchdog } from "./watchdog.ts";

const freezeRequest = 0xc004_5877;
const thawRequest = 0xc004_5878;
/** In memory (tmpfs): there while filesystems may be frozen; what starts after a crash looks for it. */
const frozenMarker = "/run/watari-agent-frozen";

export interface FreezeOptions {
  readonly threads: CallThreads;
  readonly clock: Clock;
  readonly diskNames: ReadonlySet<string>;
  readonly msMax: number;
}

/** Thaws what a killed agent left frozen. */
export async function thawLeftovers(): Promise<void> {
  await endShortWaitsLeft();
  if ((await stat(frozenMarker).catch(() => undefined)) === undefined) return; // No marker: nothing was left.
  const paths = (await readFile(frozenMarker, "utf8")).split("\n").filter((path) => path !== "");
  if ((await stat(sysrqTrigger).catch(() => undefined)) !== undefined) await writeFile(sysrqTrigger, "j");
  else for (const path of paths) await tryCommand("fsfreeze", ["--unfreeze", path]); // Refused when it is not frozen any more.
  await rm(frozenMarker, { force: true });
}

export async function armFreeze(options: FreezeOptions): Promise<ArmedFreeze> {
  const mounts = await openMounts(options.diskNames);
  const paths = mounts.map(({ mount }) => mount.path);
  const waits = await prepareShortWaits();
  const closeFiles = async (): Promise<void> => {
    await waits.close();
    for (const { file } of mounts.splice(0)) await file.close();
  };
  const watchdog = await armWatchdog(paths, { shortWaits: waits.turnsKernel ? "on" : "none" }).catch(async (error: unknown) => {
    await closeFiles();
    throw error;
  });
  await writeFile(frozenMarker, paths.join("\n"));
  const close = async (): Promise<void> => {
    await closeFiles();
    watchdog.disarm();
    await rm(frozenMarker, { force: true });
  };
  return {
    writeOut: async () => {
      for (const { refused } of await options.threads.callTogether(mounts.map(({ file }) => ({ name: "syncfs", values: [file.fd] }))))
        if (refused !== undefined) throw refused;
    },
    freeze: async () => await freezeArmed(options, { mounts, watchdog, waits, close }),
    cancel: close,
  };
}

interface Armed {
  readonly mounts: readonly OpenMount[];
  readonly watchdog: Watchdog;
  readonly waits: ShortWaits;
  readonly close: () => Promise<void>;
}

async function freezeArmed(options: FreezeOptions, { mounts, watchdog, waits, close }: Armed): Promise<Freeze> {
  const { clock, threads } = options;
  const frozen: FileHandle[] = [];
  watchdog.begin(options.msMax);
  // From here until the thaw nothing may be written anywhere: each step is a system call on what is open already.
  const startMs = clock.monotonicMs();
  let thawed: ReturnType<Freeze["thaw"]> | undefined;
  const thawAll: Freeze["thaw"] = async () => {
    const hadEnded = watchdog.hasEnded();
    // Refused: not frozen any more, for the watchdog or an operator was first.
    const answers = await threads.callTogether(frozen.map((file) => callOf(file, thawRequest)));
    const frozenMs = clock.monotonicMs() - startMs;
    await close();
    return { isWhole: !hadEnded && answers.every(({ refused }) => refused === undefined), frozenMs };
  };
  const thaw: Freeze["thaw"] = async () => await (thawed ??= thawAll());
  await waits.begin();
  const answers = await threads.callTogether(mounts.map(({ file }) => callOf(file, freezeRequest)));
  const tookMs = clock.monotonicMs() - startMs;
  const filesystems = mounts.map(({ mount }, index) => ({ path: mount.path, tookMs: answers[index]?.tookMs ?? 0 }));
  let fault: Fault | undefined;
  for (const [index, { file, mount }] of mounts.entries()) {
    const refused = answers[index]?.refused;
    if (refused === undefined) frozen.push(file);
    // It knows no freeze (vfat): it was synced just before, and the reader sees to it that nothing changes.
    else if (refused.errorName !== "EOPNOTSUPP") fault ??= freezeFailed(mount, refused);
  }
  if (fault === undefined) return { tookMs, filesystems, thaw, isHeld: () => thawed === undefined && !watchdog.hasEnded() };
  await thaw();
  throw fault;
}

function callOf(file: FileHandle, request: number): Call {
  return { name: "ioctl", values: [file.fd, request, 0] };
}

function freezeFailed(mount: Mount, refused: KernelRefused): Fault {
  const why = refused.errorName;
  return new Fault("FreezeFailed", `could not freeze the filesystem at ${mount.path}: ${why}`, {
    evidence: { path: mount.path, why },
    cause: refused,
  });
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
