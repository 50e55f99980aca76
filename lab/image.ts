// The guest image: built once, under a lock, into the cache; afterwards only looked up.

import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../src/base/atomic-file.ts";
import { systemClock } from "../src/base/clock.ts";
import { buildImage } from "./image-build.ts";
import { recipeKey } from "./image-recipe.ts";
import { takeLock } from "./lock.ts";

export interface GuestImage {
  readonly key: string;
  readonly folder: string;
  readonly rootDisk: string;
  readonly ledgerDisk: string;
  readonly kernelFile: string;
  readonly rootUuid: string;
  /** The network card's name in the guest. */
  readonly card: string;
  readonly kernel: string;
  readonly buildSeconds: number;
}

export interface ImageOptions {
  readonly cacheFolder: string;
  readonly progress: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
}

const buildWaitMaxMs = 30 * 60_000;

/** Answers the image of today's recipe, building it when the cache has none. */
export async function guestImage(options: ImageOptions): Promise<GuestImage> {
  const key = await recipeKey();
  const folder = join(options.cacheFolder, "images", key);
  const found = await readImage(folder);
  if (found !== undefined) return found;
  await using _lock = await takeLock({
    name: `image/${folder}`,
    onWait: () => options.progress("image: another process is building it; waiting"),
    waitMaxMs: buildWaitMaxMs,
    signal: options.signal,
  });
  const builtMeanwhile = await readImage(folder);
  if (builtMeanwhile !== undefined) return builtMeanwhile;
  return await buildInto(folder, key, options);
}

async function buildInto(folder: string, key: string, options: ImageOptions): Promise<GuestImage> {
  const startMs = systemClock.monotonicMs();
  const fresh = `${folder}.building`;
  await rm(fresh, { recursive: true, force: true });
  await mkdir(fresh, { recursive: true });
  const built = await buildImage({ ...options, folder: fresh }).catch(async (error: unknown) => {
    await rm(fresh, { recursive: true, force: true });
    throw error;
  });
  const buildSeconds = Math.round((systemClock.monotonicMs() - startMs) / 100) / 10;
  await writeFileAtomic(join(fresh, "image.json"), JSON.stringify({ ...built, key, buildSeconds }, undefined, 2));
  await rm(folder, { recursive: true, force: true });
  await rename(fresh, folder);
  options.progress(`image: ready after ${buildSeconds} s, kept in ${folder}`);
  const image = await readImage(folder);
  if (image === undefined) throw new Error(`the image just built is not readable: ${folder}`);
  return image;
}

async function readImage(folder: string): Promise<GuestImage | undefined> {
  const text = await readFile(join(folder, "image.json"), "utf8").catch(() => undefined); // Absent until built.
  if (text === undefined) return undefined;
  const written = JSON.parse(text) as Omit<GuestImage, "folder" | "rootDisk" | "ledgerDisk" | "kernelFile">;
  const files = { rootDisk: join(folder, "root.raw"), ledgerDisk: join(folder, "ledger.raw"), kernelFile: join(folder, "vmlinuz") };
  return { ...written, folder, ...files };
}
