// Writes the disks of a recovery point as image files: every byte checked on its way, drivers put in when wanted, whole or absent.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, rename, rm, rmdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { flushFolder } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { ensureHelperImage } from "../helper/helper-image.ts";
import { openDriverPlans } from "../hydration/driver-plans.ts";
import { hydrate, type TargetHardware } from "../hydration/hydrate.ts";
import { openRawView } from "../hydration/raw-view.ts";
import type { ExportDisk, LandingDisk, LandingNic } from "../target.ts";
import { virtioHardware } from "./machine.ts";
import { appendVhdFooter } from "../vhd-footer.ts";

/** vhd: fixed, a whole number of MiB, as Azure takes it. vmdk: one sparse file. */
export const imageFormats = ["raw", "qcow2", "vhd", "vmdk"] as const;
export type ImageFormat = (typeof imageFormats)[number];
/** QEMU's name of the format while it is written: a VHD gets its footer at the end. */
const driverOf: Readonly<Record<ImageFormat, string>> = { raw: "raw", qcow2: "qcow2", vhd: "raw", vmdk: "vmdk" };

export interface ImagesWish {
  /** Gets the files; made when it is not there. Files of an earlier call with the same names are replaced. */
  readonly folder: string;
  readonly format: ImageFormat;
  /** Makes the guest ready for other hardware. */
  readonly isHydrated: boolean;
  /** virtio, as of a landed machine, unless told. */
  readonly hardware?: TargetHardware;
  readonly disks: readonly LandingDisk[];
  readonly nics: readonly LandingNic[];
  readonly hasSerialConsole?: boolean;
  readonly unlockKeys?: readonly Uint8Array[];
  readonly onProgress: (percent: number) => void;
}

export interface WrittenImages {
  readonly files: readonly { readonly path: string; readonly sizeBytes: number }[];
  /** What hydration changed. */
  readonly changes: readonly string[];
}

export interface ImagesSurroundings {
  readonly exportDisk: ExportDisk;
  /** An own folder with a short path: sockets lie in it. */
  readonly scratchFolder: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Where the helper machine's files are, or are made when a guest first needs them. */
  readonly cacheFolder: string;
}

const fresh = ".part";
const outputBytesMax = 4_000;

/** Durable on return. On failure or abort no file is left. */
export async function writeImages(wish: ImagesWish, around: ImagesSurroundings, signal?: AbortSignal): Promise<WrittenImages> {
  const { folder, format, disks } = wish;
  const paths = disks.map((_, index) => join(folder, `disk${index}.${format}`));
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await rm(around.scratchFolder, { recursive: true, force: true });
  await mkdir(around.scratchFolder, { recursive: true, mode: 0o700 });
  try {
    for (const [index, disk] of disks.entries()) {
      const onProgress = (percent: number): void => wish.onProgress((100 * index + percent) / disks.length);
      const to = { path: `${paths[index] ?? ""}${fresh}`, format: driverOf[format], index };
      await convert(disk, to, { ...around, onProgress }, signal);
    }
    const changes = wish.isHydrated ? await hydrateFiles(wish, paths, around, signal) : [];
    for (const path of paths) {
      if (format === "vhd") await appendVhdFooter(`${path}${fresh}`, around);
      await flushFile(`${path}${fresh}`);
      await rename(`${path}${fresh}`, path);
    }
    await flushFolder(folder);
    const sizes = await Promise.all(paths.map(async (path) => (await stat(path)).size));
    return { files: paths.map((path, index) => ({ path, sizeBytes: sizes[index] ?? 0 })), changes };
  } catch (error) {
    for (const path of paths) await rm(`${path}${fresh}`, { force: true });
    throw error;
  } finally {
    await rm(around.scratchFolder, { recursive: true, force: true });
  }
}

/** Removes what writeImages wrote, and its folder when nothing else is in it. */
export async function removeImages(folder: string, names: { readonly format: string; readonly count: number }): Promise<void> {
  for (let index = 0; index < names.count; index++) {
    for (const ending of ["", fresh]) await rm(join(folder, `disk${index}.${names.format}${ending}`), { force: true });
  }
  // The folder goes with its last file; one that holds other files stays.
  await rmdir(folder).catch((error: unknown) => {
    if (!(error instanceof Error && "code" in error && (error.code === "ENOTEMPTY" || error.code === "ENOENT"))) throw error;
  });
}

async function convert(
  disk: LandingDisk,
  to: { readonly path: string; readonly format: string; readonly index: number },
  around: ImagesSurroundings & { readonly onProgress: (percent: number) => void },
  signal?: AbortSignal,
): Promise<void> {
  const socketPath = join(around.scratchFolder, `${to.index}.sock`);
  await using _served = await around.exportDisk(disk.content, { socketPath, exportName: "disk" });
  const source = `driver=nbd,server.type=unix,server.path=${socketPath.replaceAll(",", ",,")},export=disk`;
  // Out of order, many at once: the vault's reads overlap.
  const args = ["convert", "-p", "-W", "-m", "8", "--image-opts", source, "-O", to.format, to.path];
  const child = spawn("qemu-img", args, { stdio: ["ignore", "pipe", "pipe"], ...(signal === undefined ? {} : { signal }) });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => (said = `${said}${chunk.toString("utf8")}`.slice(-outputBytesMax)));
  child.stdout.on("data", (chunk: Buffer) => {
    const percent = /\((\d+(?:\.\d+)?)\/100%\)[^(]*$/.exec(chunk.toString("utf8"))?.[1];
    if (percent !== undefined) around.onProgress(Number(percent));
  });
  const ended = once(child, "close");
  const [exitCode]: readonly unknown[] = await ended;
  if (exitCode === 0) return;
  throw new Fault("LandingFailed", `could not write the disk file ${to.path}`, {
    causes: ["the disk of this machine is full", "the vault could not give a block"],
    action: "make room, then call again",
    evidence: { path: to.path, said: said.trim().slice(-1000) },
  });
}

async function hydrateFiles(
  wish: ImagesWish,
  paths: readonly string[],
  around: ImagesSurroundings,
  signal?: AbortSignal,
): Promise<readonly string[]> {
  const { clock, scratchFolder, cacheFolder } = around;
  const helperImage = async () => await ensureHelperImage(cacheFolder);
  const common = { clock, ...(signal === undefined ? {} : { signal }) };
  const graphs = paths.map((path, index) => {
    const file = { driver: "file", filename: `${path}${fresh}`, "node-name": `file${index}`, discard: "unmap" };
    return {
      nodes: [file, { driver: driverOf[wish.format], file: `file${index}`, "node-name": `disk${index}`, discard: "unmap" }],
      topNode: `disk${index}`,
    };
  });
  await using view = await openRawView({ graphs, folder: scratchFolder, ...common });
  const bootDiskIndex = wish.disks.findIndex(({ isBoot }) => isBoot);
  const { nics, hasSerialConsole = false, unlockKeys = [] } = wish;
  const { changes } = await hydrate({
    imagePaths: view.paths,
    bootDiskIndex,
    ...{ nics, hasSerialConsole, unlockKeys },
    hardware: wish.hardware ?? virtioHardware,
    scratchFolder,
    helperImage,
    plans: openDriverPlans(join(cacheFolder, "driver-plans"), clock),
    ...common,
  });
  return changes;
}

async function flushFile(path: string): Promise<void> {
  await using file = await open(path, "r+");
  await file.sync();
}
