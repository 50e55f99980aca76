// The reference job: an ext4 image with real files, about three quarters full, and a list of 1 % random 4 KiB changes.

import { createHash } from "node:crypto";
import { mkdir, open, readdir, rename, rm, stat, symlink, lstat, copyFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../src/base/run-command.ts";

export interface ReferenceImage {
  readonly path: string;
  readonly sizeBytes: number;
}

const granuleBytes = 4096;
const recipeVersion = "2";
/** Trees of any Debian machine, taken in this order until the image is full enough. */
const contentRoots = ["/usr/lib/x86_64-linux-gnu", "/usr/share", "/usr/lib", "/usr/bin"];

/** Builds the image once per size and keeps it in `cacheFolder`. */
export async function referenceImage(cacheFolder: string, sizeMib: number, say: (line: string) => void): Promise<ReferenceImage> {
  const path = join(cacheFolder, `reference-${recipeVersion}-${sizeMib}.raw`);
  const sizeBytes = sizeMib * 2 ** 20;
  if (await exists(path)) return { path, sizeBytes };
  say(`building the reference image of ${sizeMib} MiB in ${cacheFolder} (once)`);
  const staging = `${path}.tree`;
  await rm(staging, { recursive: true, force: true });
  await mkdir(staging, { recursive: true });
  const contentBytes = Math.floor(sizeBytes * 0.7);
  const incompressibleBytes = Math.floor(sizeBytes * 0.06);
  await copyContent(staging, contentBytes - incompressibleBytes);
  await writeIncompressible(join(staging, "media.bin"), incompressibleBytes);
  const fresh = `${path}.new`;
  await runCommand("truncate", ["-s", String(sizeBytes), fresh]);
  await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", "-b", "4096", "-d", staging, fresh], { timeoutMs: 900_000 });
  await rm(staging, { recursive: true });
  await rename(fresh, path);
  return { path, sizeBytes };
}

/** Copies the image with 1 % of its granules overwritten, half of each text, half random; answers the granules, sorted. */
export async function changedImage(image: ReferenceImage): Promise<{ readonly path: string; readonly granules: readonly number[] }> {
  const path = image.path.replace(/\.raw$/, "-changed.raw");
  const total = image.sizeBytes / granuleBytes;
  const random = stream("positions");
  const chosen = new Set<number>();
  while (chosen.size < Math.floor(total / 100)) chosen.add(random.next32() % total);
  const granules = [...chosen].sort((left, right) => left - right);
  if (!(await exists(path))) {
    await runCommand("cp", ["--sparse=always", image.path, `${path}.new`], { timeoutMs: 600_000 });
    await using file = await open(`${path}.new`, "r+");
    const content = stream("content");
    for (const granule of granules) {
      const bytes = Buffer.alloc(granuleBytes, `granule ${granule} was changed by somebody's work at night; `);
      content.fill(bytes.subarray(granuleBytes / 2));
      await file.write(bytes, 0, granuleBytes, granule * granuleBytes);
    }
    await file.sync();
    await rename(`${path}.new`, path);
  }
  return { path, granules };
}

async function copyContent(target: string, bytesMax: number): Promise<void> {
  let left = bytesMax;
  const copyTree = async (source: string, into: string): Promise<void> => {
    await mkdir(into, { recursive: true });
    for (const entry of (await readdir(source, { withFileTypes: true })).sort((one, other) => one.name.localeCompare(other.name))) {
      if (left <= 0) return;
      const from = join(source, entry.name);
      const to = join(into, entry.name);
      if (entry.isDirectory()) await copyTree(from, to);
      else if (entry.isSymbolicLink()) await symlink(await readlink(from), to);
      else if (entry.isFile()) {
        const { size } = await lstat(from);
        if (size > left) continue;
        await copyFile(from, to);
        left -= size + granuleBytes / 2;
      }
    }
  };
  for (const [index, root] of contentRoots.entries()) if (left > 0) await copyTree(root, join(target, `tree-${index}`));
}

async function writeIncompressible(path: string, byteCount: number): Promise<void> {
  await using file = await open(path, "w");
  const random = stream("media");
  const chunk = Buffer.alloc(1 << 20);
  for (let written = 0; written < byteCount; written += chunk.length) {
    random.fill(chunk);
    await file.write(chunk, 0, Math.min(chunk.length, byteCount - written));
  }
}

/** A repeatable stream of bytes: SHA-256 of seed and counter. */
function stream(seed: string): { next32(): number; fill(into: Uint8Array): void } {
  let counter = 0;
  const block = (): Buffer => createHash("sha256").update(`${seed} ${counter++}`).digest();
  return {
    next32: () => block().readUInt32LE(0),
    fill: (into) => {
      for (let offset = 0; offset < into.length; offset += 32) into.set(block().subarray(0, Math.min(32, into.length - offset)), offset);
    },
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
