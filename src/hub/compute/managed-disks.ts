// The contents of managed disks: one sparse file a disk, written through signed addresses, read when a machine is made of it.

import { createHash } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { flushFolder } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";
import type { Disk, WritableDisk } from "../../disk/disk.ts";
import { openFileDisk } from "../../disk/file-disk.ts";
import { vhdFooterBytes, readVhdSize } from "../../landing/vhd-footer.ts";
import type { ResourceId } from "../api/resource-id.ts";

/** Contents by the id of their disk. What write acknowledges is durable. */
export class ManagedDisks {
  readonly #folder: string;
  /** Open files and the calls that use them: a disk is not taken away under a call. */
  readonly #used = new Map<string, Use>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** All zeros. Called for a disk that has no row yet: a file of its name is what a crash left of another. */
  async create(id: ResourceId, sizeBytes: number): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await this.remove(id);
    await using file = await openFileDisk(this.#pathOf(id), { access: "write", createSizeBytes: sizeBytes });
    await file.flush();
    await flushFolder(this.#folder);
  }

  /** Waits for the calls that use it. May be repeated. */
  async remove(id: ResourceId): Promise<void> {
    await this.settle(id);
    await rm(this.#pathOf(id), { force: true });
  }

  /** Returns when no call that began before uses the disk. Who ends a grant calls it, so that nothing is written after the end. */
  async settle(id: ResourceId): Promise<void> {
    const use = this.#used.get(id.key);
    if (use === undefined) return;
    await new Promise<void>((resolve) => use.onIdle.push(resolve));
  }

  /** Runs a call on the content, the footer too; undefined when this hub has none. The file is shared by calls at one time. */
  async withContent<T>(id: ResourceId, task: (content: WritableDisk) => Promise<T>): Promise<{ readonly value: T } | undefined> {
    const use = this.#used.get(id.key) ?? { opening: openContent(this.#pathOf(id)), count: 0, onIdle: [] };
    this.#used.set(id.key, use);
    use.count += 1;
    try {
      const content = await use.opening;
      return content === undefined ? undefined : { value: await task(content) };
    } finally {
      use.count -= 1;
      if (use.count === 0) {
        this.#used.delete(id.key);
        await (await use.opening.catch(() => undefined))?.[Symbol.asyncDispose](); // The caller was told why it did not open.
        for (const resolve of use.onIdle) resolve();
      }
    }
  }

  /** Whether the content ends with the footer of a fixed VHD of its size. */
  async isWhole(id: ResourceId): Promise<boolean> {
    const read = await this.withContent(id, async (content) => await hasFooter(content));
    return read?.value ?? false;
  }

  /** The disk without its footer, read-only. Throws NotFound when this hub does not have it. */
  async open(id: ResourceId): Promise<Disk> {
    const file = await openContent(this.#pathOf(id));
    if (file === undefined)
      throw new Fault("NotFound", `could not open the disk ${id.name}: this host does not have its content`, {
        evidence: { resourceId: id.text },
      });
    return withoutFooter(file);
  }

  #pathOf({ key }: ResourceId): string {
    return join(this.#folder, `${createHash("sha256").update(key, "utf8").digest("hex")}.vhd`);
  }
}

interface Use {
  readonly opening: Promise<WritableDisk | undefined>;
  readonly onIdle: (() => void)[];
  count: number;
}

async function openContent(path: string): Promise<WritableDisk | undefined> {
  try {
    return await openFileDisk(path, { access: "write" });
  } catch (error) {
    if (error instanceof Fault && error.code === "NotFound") return undefined;
    throw error;
  }
}

async function hasFooter(content: Disk): Promise<boolean> {
  if (content.sizeBytes < vhdFooterBytes) return false;
  const footer = Buffer.alloc(vhdFooterBytes);
  await content.read(content.sizeBytes - vhdFooterBytes, footer);
  return readVhdSize(footer) === content.sizeBytes - vhdFooterBytes;
}

function withoutFooter(file: Disk): Disk {
  return {
    sizeBytes: file.sizeBytes - vhdFooterBytes,
    read: async (offset, into, signal) => await file.read(offset, into, signal),
    extents: async (offset, length, signal) => await file.extents(offset, length, signal),
    [Symbol.asyncDispose]: async () => await file[Symbol.asyncDispose](),
  };
}
