// The helper machine as it stands after its start, in a file: the next one begins there. It has seen no disk by then.

import { createHash } from "node:crypto";
import { constants, createWriteStream } from "node:fs";
import { access, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { flushFolder } from "../../base/atomic-file.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import type { Qmp } from "../qemu/qmp.ts";
import type { HelperImage } from "./helper-image.ts";

const formatVersion = 1;
const pollMs = 5;
const moveMsMax = 60_000;
const bandwidthBytesMax = 16 * 2 ** 30;
/** Two versions of QEMU may share a cache for a while. */
const filesMax = 4;

/** Its name tells all that it fits to: the image's folder, QEMU's version, the machine's words and the processor that KVM shows. */
export async function warmStatePath(image: HelperImage, words: readonly string[]): Promise<string> {
  const { stdout } = await tryCommand("qemu-system-x86_64", ["--version"]);
  const processor = (await readFile("/proc/cpuinfo", "utf8")).split("\n").filter((line) => /^(model name|microcode|flags)\b/.test(line));
  const key = JSON.stringify([formatVersion, stdout, words, words.includes("kvm") ? processor.slice(0, 3) : []]);
  return join(dirname(image.initrd), `warm-${createHash("sha256").update(key).digest("hex").slice(0, 16)}.state`);
}

export async function isThere(path: string): Promise<boolean> {
  return await access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
}

/** Writes the machine's state to the path and lets it go on. Throws when it could not; the machine goes on then, too. */
export async function saveWarmState(qmp: Qmp, path: string, clock: Clock): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "wh-")); // Short: a unix socket's path has at most 107 bytes.
  const temporary = `${path}.${basename(folder)}.part`;
  try {
    await qmp.execute("stop");
    await using server = await receiveInto(join(folder, "s"), temporary);
    await qmp.execute("migrate-set-parameters", { "max-bandwidth": bandwidthBytesMax });
    await qmp.execute("migrate", { uri: `unix:${join(folder, "s")}` });
    await waitUntil("query-migrate", "completed", { qmp, clock });
    await server.received;
    await removeOld(dirname(path));
    await rename(temporary, path);
    await flushFolder(dirname(path));
  } finally {
    await rm(temporary, { force: true });
    await rm(folder, { recursive: true, force: true });
    await qmp.execute("cont");
  }
}

/** To be called once the machine that was started with the state has a monitor. Its processor runs on return. */
export async function goOnFromState(qmp: Qmp, clock: Clock): Promise<void> {
  await waitUntil("query-status", "paused", { qmp, clock });
  await qmp.execute("cont");
}

const statusShape = z.object({ status: z.string().optional() });

async function waitUntil(
  command: "query-migrate" | "query-status",
  wanted: string,
  { qmp, clock }: { readonly qmp: Qmp; readonly clock: Clock },
): Promise<void> {
  const endMs = clock.monotonicMs() + moveMsMax;
  for (;;) {
    const { status } = statusShape.parse(await qmp.execute(command));
    if (status === wanted) return;
    if (status === "failed" || clock.monotonicMs() > endMs)
      throw new Fault("LandingFailed", "could not move the helper machine's state", { evidence: { command, status: status ?? "" } });
    await clock.sleep(pollMs);
  }
}

async function receiveInto(socketPath: string, path: string): Promise<AsyncDisposable & { readonly received: Promise<void> }> {
  const { promise: received, resolve, reject } = Promise.withResolvers<void>();
  received.catch(() => undefined); // Who waits for it hears it; when the machine ends first, nobody does.
  const server = createServer((socket) => {
    server.close();
    pipeline(socket, createWriteStream(path, { flags: "wx", mode: 0o600, flush: true })).then(resolve, reject);
  });
  await new Promise<void>((open) => void server.listen(socketPath, open));
  return {
    received,
    [Symbol.asyncDispose]: async () => {
      server.close();
      reject(new Error("the helper machine's state did not come"));
    },
  };
}

async function removeOld(folder: string): Promise<void> {
  const states = (await readdir(folder)).filter((name) => /^warm-.*\.state$/.test(name)).sort();
  for (const name of states.slice(filesMax - 1)) await rm(join(folder, name), { force: true });
}
