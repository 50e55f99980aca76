// Shows overlays as raw files, without mounting a guest's filesystem: qemu-storage-daemon exports them over FUSE.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";

export interface RawViewOptions {
  /** One block graph per disk, in QEMU's own words; the top node of each is served. */
  readonly graphs: readonly { readonly nodes: readonly object[]; readonly topNode: string }[];
  /** write unless told. */
  readonly access?: "read" | "write";
  /** More that the daemon shall serve, in its own words. */
  readonly moreArgs?: readonly string[];
  /** An own folder; the views appear in it. */
  readonly folder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

export interface RawView extends AsyncDisposable {
  /** One path per graph, in order. */
  readonly paths: readonly string[];
}

const startMsMax = 30_000;
const pollMs = 10;

/** Opens views, writable unless told. Closing flushes them to the overlays. The daemon dies with this process. */
export async function openRawView(options: RawViewOptions): Promise<RawView> {
  const paths = options.graphs.map((_, index) => join(options.folder, `view-${index}.raw`));
  for (const path of paths) await writeFile(path, "", { flag: "w" });
  const args = options.graphs.flatMap(({ nodes, topNode }, index) => [
    ...nodes.flatMap((node) => ["--blockdev", JSON.stringify(node)]),
    "--export",
    JSON.stringify({
      type: "fuse",
      id: `view${index}`,
      "node-name": topNode,
      mountpoint: paths[index],
      writable: options.access !== "read",
    }),
  ]);
  const errorPath = join(options.folder, "storage-daemon.log");
  await using errorFile = await open(errorPath, "w");
  const pidFile = join(options.folder, "storage-daemon.pid");
  const daemonArgs = ["--pdeathsig", "KILL", "qemu-storage-daemon", "--pidfile", pidFile, ...args, ...(options.moreArgs ?? [])];
  const child = spawn("setpriv", daemonArgs, { stdio: ["ignore", errorFile.fd, errorFile.fd] });
  const exited = once(child, "exit").catch(() => undefined); // The words in the log tell why.
  const close = async () => {
    child.kill("SIGTERM");
    await exited;
    await detachUnder(options.folder);
  };
  try {
    await waitUntilServed(paths, child, options);
  } catch (error) {
    await close();
    const output = await readFile(errorPath, "utf8").catch(() => "");
    if (options.signal?.aborted === true) throw error;
    throw new Fault("LandingFailed", "could not open the clone's disks for hydration", {
      causes: ["/dev/fuse is absent or may not be used", "the recovery point cannot be read", "qemu-storage-daemon lacks FUSE"],
      evidence: { output: output.slice(-2000) },
      cause: error,
    });
  }
  return { paths, [Symbol.asyncDispose]: close };
}

/** Detaches every view under a folder that a killed daemon left behind. */
export async function detachUnder(folder: string): Promise<void> {
  for (const path of (await mountPoints()).filter((each) => each.startsWith(`${folder}/`)).toReversed())
    await runCommand("umount", ["-l", path]);
}

async function mountPoints(): Promise<readonly string[]> {
  const mounts = await readFile("/proc/self/mounts", "utf8");
  return mounts.split("\n").map((line) => line.split(" ")[1] ?? "");
}

async function waitUntilServed(paths: readonly string[], child: ReturnType<typeof spawn>, options: RawViewOptions): Promise<void> {
  const { clock, signal } = options;
  const deadlineMs = clock.monotonicMs() + startMsMax;
  const isServed = async () => {
    const mounts = await mountPoints();
    return paths.every((path) => mounts.includes(path));
  };
  while (!(await isServed())) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) throw new Error("qemu-storage-daemon ended");
    if (clock.monotonicMs() > deadlineMs) throw new Error("qemu-storage-daemon did not serve in time");
    await clock.sleep(pollMs, signal);
  }
}
