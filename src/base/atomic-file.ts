// Makes files that are whole or absent: temporary name, flush, rename, flush the folder.

import { mkdir, open, rename, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

export interface AtomicFileOptions {
  /** Permission bits of the new file; 0o600 unless told. */
  readonly mode?: number;
}

let serial = 0;

/** Writes `content` to `path` so that a crash leaves the old file or the new one. Durable on return. */
export async function writeFileAtomic(path: string, content: Uint8Array | string, options: AtomicFileOptions = {}): Promise<void> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true });
  serial += 1;
  const temporary = join(folder, `.${basename(path)}.${process.pid}.${serial}.tmp`);
  try {
    await using file = await open(temporary, "wx", options.mode ?? 0o600);
    await file.writeFile(content);
    await file.sync();
  } catch (error) {
    await unlink(temporary).catch(() => undefined); // The write's own error is the one to tell.
    throw error;
  }
  await rename(temporary, path);
  await flushFolder(folder);
}

/** Makes a rename, creation or removal in `folder` durable. */
export async function flushFolder(folder: string): Promise<void> {
  await using handle = await open(folder, "r");
  await handle.sync();
}
