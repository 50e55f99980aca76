// QEMU's own incremental copy, as its users run it: a dirty bitmap of 4 KiB grains, an incremental backup job over NBD with TLS to nowhere.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock as clock } from "../src/base/clock.ts";
import { runCommand } from "../src/base/run-command.ts";
import { granuleBytes } from "../src/disk/geometry.ts";
import { openQmp, type Qmp } from "../src/landing/qemu/qmp.ts";
import { copyGranules } from "./data-path-pair.ts";
import { freePort, makeCertificates, waitForNbd } from "./data-path-peers.ts";
import { cpuSecondsOf, stopChild, type Measured } from "./measured.ts";

const pollMs = 5;
const exportId = "writes";

export class BitmapPeer implements AsyncDisposable {
  readonly #daemon: ChildProcess;
  readonly #server: ChildProcess;
  readonly #socket: string;
  #jobs = 0;

  private constructor(daemon: ChildProcess, server: ChildProcess, socket: string) {
    this.#daemon = daemon;
    this.#server = server;
    this.#socket = socket;
  }

  /** A copy of the image in which the granules of `changes` were written after the bitmap was made. The caller removes the folder. */
  static async start(options: {
    readonly image: string;
    readonly sizeBytes: number;
    readonly changes: { readonly path: string; readonly granules: readonly number[] };
    readonly folder: string;
  }): Promise<BitmapPeer> {
    const { image, sizeBytes, changes, folder } = options;
    const source = join(folder, "bitmap.raw");
    await mkdir(folder, { recursive: true });
    await runCommand("cp", ["--sparse=always", image, source], { timeoutMs: 600_000 });
    const certificates = join(folder, "certificates");
    await makeCertificates(certificates);
    const port = await freePort();
    const settings = ["-f", "-i", "127.0.0.1", "-p", String(port), "--tls=require", `--tls-certificates=${certificates}`];
    await using cleanup = new AsyncDisposableStack();
    const server = spawn("nbdkit", [...settings, "null", `size=${sizeBytes}`], { stdio: "ignore" });
    cleanup.defer(async () => await stopChild(server));
    await waitForNbd(`nbds://localhost:${port}/?tls-certificates=${encodeURIComponent(certificates)}`, server);
    const mark = join(folder, "writes.img");
    await writeFile(mark, "");
    const socket = join(folder, "qmp.sock");
    const target = `driver=nbd,node-name=target,server.type=inet,server.host=localhost,server.port=${port},tls-creds=tls`;
    const daemon = spawn(
      "qemu-storage-daemon",
      [
        ...["--object", `tls-creds-x509,id=tls,endpoint=client,dir=${certificates}`],
        ...["--blockdev", `driver=file,node-name=file,filename=${source},cache.direct=off,discard=unmap`],
        ...["--blockdev", "driver=raw,node-name=source,file=file"],
        ...["--blockdev", target],
        ...["--chardev", `socket,id=qmp,path=${socket},server=on,wait=off`, "--monitor", "chardev=qmp"],
        ...["--export", `type=fuse,id=${exportId},node-name=source,mountpoint=${mark},writable=on`],
      ],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    cleanup.defer(async () => await stopChild(daemon));
    await using qmp = await openMonitor(socket, daemon);
    await qmp.execute("block-dirty-bitmap-add", { node: "source", name: "changes", granularity: granuleBytes });
    await copyGranules(changes.path, mark, changes.granules);
    await qmp.execute("block-export-del", { id: exportId });
    cleanup.move();
    return new BitmapPeer(daemon, server, socket);
  }

  /** Copies what the bitmap names, and keeps the bitmap. */
  async copy(): Promise<Measured> {
    const [daemon, server] = [this.#daemon.pid ?? 0, this.#server.pid ?? 0];
    const job = `copy-${(this.#jobs += 1)}`;
    const cpuBefore = (await cpuSecondsOf(daemon)) + (await cpuSecondsOf(server));
    const startedMs = clock.monotonicMs();
    const bitmap = { sync: "bitmap", bitmap: "changes", "bitmap-mode": "never" };
    const perf = { "x-perf": { "max-workers": 64 } };
    await using qmp = await openMonitor(this.#socket, this.#daemon); // A monitor that is silent for long is given up.
    await qmp.execute("blockdev-backup", {
      "job-id": job,
      device: "source",
      target: "target",
      ...bitmap,
      ...perf,
      "auto-dismiss": false,
      "auto-finalize": true,
    });
    while ((await statusOf(qmp, job)) !== "concluded") await clock.sleep(pollMs);
    const wallSeconds = (clock.monotonicMs() - startedMs) / 1000;
    const cpuSeconds = (await cpuSecondsOf(daemon)) + (await cpuSecondsOf(server)) - cpuBefore;
    await qmp.execute("job-dismiss", { id: job });
    return { wallSeconds, cpuSeconds };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await stopChild(this.#daemon);
    await stopChild(this.#server);
  }
}

async function openMonitor(socket: string, daemon: ChildProcess): Promise<Qmp> {
  for (;;) {
    const qmp = await openQmp(socket);
    if (qmp !== undefined) return qmp;
    if (daemon.exitCode !== null) throw new Error(`qemu-storage-daemon ended with ${daemon.exitCode}`);
    await clock.sleep(20);
  }
}

async function statusOf(qmp: Qmp, job: string): Promise<string> {
  const jobs = (await qmp.execute("query-jobs")) as readonly { id: string; status: string; error?: string }[]; // QEMU's schema.
  const found = jobs.find(({ id }) => id === job);
  if (found === undefined || found.error !== undefined) throw new Error(`the copy by bitmap failed: ${found?.error ?? "no such job"}`);
  return found.status;
}
