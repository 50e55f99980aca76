// Reading images back: by NBD to nowhere and to a file, random reads, and qemu-nbd over a compressed and a plain image.

import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { z } from "zod";
import { runCommand } from "../src/base/run-command.ts";
import { waitForNbd } from "./data-path-peers.ts";
import { measureChildren, runToEnd, stopChild, type Measured } from "./measured.ts";

const copyTimeoutMs = 600_000;
const randomSeconds = 5;
const fioShape = z.object({ jobs: z.array(z.object({ read: z.object({ iops: z.number() }) })) });

export async function copyToNowhere(uri: string): Promise<void> {
  await runCommand("nbdcopy", [uri, "null:"], { timeoutMs: copyTimeoutMs });
}

/** As our export writes raw files. */
export async function copyToFile(uri: string, path: string): Promise<void> {
  await runCommand("qemu-img", ["convert", "-W", "-m", "8", "-f", "raw", "-O", "raw", uri, path], { timeoutMs: copyTimeoutMs });
}

/** Random reads of 4 KiB, 16 at once, in operations a second. */
export async function randomReads(uri: string): Promise<number> {
  const shape = ["--rw=randread", "--bs=4k", "--iodepth=16", "--time_based", `--runtime=${randomSeconds}`];
  const args = ["--name=random", "--ioengine=nbd", `--uri=${uri}`, ...shape, "--output-format=json"];
  const { stdout } = await runCommand("fio", args, { timeoutMs: 60_000 });
  return fioShape.parse(JSON.parse(stdout.slice(stdout.indexOf("{")))).jobs[0]?.read.iops ?? 0;
}

export interface ServedImages extends AsyncDisposable {
  readonly compressedUri: string;
  readonly rawUri: string;
  convert(path: string): Promise<Measured>;
}

/** The image as a qcow2 file with zstd, which is made here, and as it is, each behind qemu-nbd. */
export async function serveCompressed(image: string, folder: string): Promise<ServedImages> {
  const compressed = join(folder, "compressed.qcow2");
  const kind = ["-c", "-W", "-m", "8", "-O", "qcow2", "-o", "compression_type=zstd"];
  await runCommand("qemu-img", ["convert", "-f", "raw", ...kind, image, compressed], { timeoutMs: copyTimeoutMs });
  await using cleanup = new AsyncDisposableStack();
  const serve = async (format: string, path: string): Promise<string> => {
    const socket = join(folder, `${format}.sock`);
    const uri = `nbd+unix:///d?socket=${encodeURIComponent(socket)}`;
    const child: ChildProcess = spawn("qemu-nbd", ["-r", "-t", "-e", "16", "-f", format, "-k", socket, "-x", "d", path], {
      stdio: "ignore",
    });
    cleanup.defer(async () => await stopChild(child));
    await waitForNbd(uri, child);
    return uri;
  };
  const [compressedUri, rawUri] = [await serve("qcow2", compressed), await serve("raw", image)];
  const owned = cleanup.move();
  return {
    compressedUri,
    rawUri,
    convert: async (path) => {
      const args = ["convert", "-W", "-m", "8", "-f", "qcow2", "-O", "raw", compressed, path];
      return await measureChildren(async () => await runToEnd({ command: "qemu-img", args }));
    },
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}
