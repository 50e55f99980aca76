// Files of a FAT filesystem inside a raw image, read and written without mounting it (mtools).

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assert } from "../../base/assert.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { isPlainPath, type FileChange, type GuestFile, type VolumeFiles } from "./volume-files.ts";

export interface FatFilesOptions {
  /** The raw image or its view. */
  readonly imagePath: string;
  /** First byte of the filesystem. */
  readonly offset: number;
  readonly scratchFolder: string;
  readonly signal?: AbortSignal;
}

const runMsMax = 60_000;

/** Names are compared as FAT does, without regard to case. */
export class FatFiles implements VolumeFiles {
  readonly #options: FatFilesOptions;

  constructor(options: FatFilesOptions) {
    this.#options = options;
  }

  async list(path: string): Promise<readonly GuestFile[] | undefined> {
    const { exitCode, stdout } = await this.#run("mdir", ["-b", `${onDrive(path)}/`]);
    if (exitCode !== 0) return undefined;
    return stdout.split("\n").flatMap((line): readonly GuestFile[] => {
      const name = line.replace(/\/$/, "").replace(/^.*\//, "");
      if (!line.startsWith("::") || name === "" || name === "." || name === "..") return [];
      const shape = line.endsWith("/") ? ({ kind: "folder", mode: 0o755 } as const) : ({ kind: "file", mode: 0o644 } as const);
      return [{ name, ...shape, uid: 0, gid: 0, sizeBytes: 0 }];
    });
  }

  async read(paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
    const found = new Map<string, Buffer>();
    await this.#withFolder(async (folder) => {
      for (const [index, path] of paths.entries()) {
        const hostPath = join(folder, String(index));
        const { exitCode } = await this.#run("mcopy", ["-n", onDrive(path), hostPath]);
        if (exitCode === 0) found.set(path, await readFile(hostPath));
      }
    });
    return found;
  }

  async change(changes: readonly FileChange[]): Promise<void> {
    await this.#withFolder(async (folder) => {
      for (const [index, change] of changes.entries()) {
        const { exitCode, stderr } = await this.#make(change, join(folder, String(index)));
        if (exitCode !== 0) throw cannotWrite("path" in change ? change.path : change.from, stderr);
      }
    });
    const written = changes.filter((change) => change.kind === "write");
    const present = await this.read(written.map(({ path }) => path));
    const lost = written.find(({ path, content }) => !present.get(path)?.equals(content));
    if (lost !== undefined) throw cannotWrite(lost.path, "");
  }

  async #make(change: FileChange, hostPath: string) {
    switch (change.kind) {
      case "write":
        await writeFile(hostPath, change.content);
        return await this.#run("mcopy", ["-o", hostPath, onDrive(change.path)]);
      case "rename":
        return await this.#run("mren", [onDrive(change.from), onDrive(change.to)]);
      case "remove":
        return await this.#run("mdel", [onDrive(change.path)]);
      case "makeFolder":
        return await this.#run("mmd", [onDrive(change.path)]);
      case "removeFolder":
        return await this.#run("mrd", [onDrive(change.path)]);
      case "link":
        return { exitCode: 1, stdout: "", stderr: "FAT knows no links" };
    }
  }

  async #run(program: string, args: readonly string[]) {
    const { imagePath, offset, signal } = this.#options;
    return await tryCommand(program, ["-i", `${imagePath}@@${offset}`, ...args], {
      timeoutMs: runMsMax,
      env: { PATH: "/usr/bin:/bin", MTOOLSRC: "/dev/null", MTOOLS_SKIP_CHECK: "1" },
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #withFolder(task: (folder: string) => Promise<void>): Promise<void> {
    const folder = await mkdtemp(join(this.#options.scratchFolder, "fat-"));
    try {
      await task(folder);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}

function onDrive(path: string): string {
  assert(isPlainPath(path), `the guest path ${JSON.stringify(path.slice(0, 200))} is plain`);
  return `::${path === "/" ? "" : path}`;
}

function cannotWrite(path: string, output: string): Fault {
  return new Fault("HydrationUnsupported", `could not write ${path} into the clone's EFI partition`, {
    causes: ["the partition is full", "its filesystem is damaged"],
    evidence: { output: output.slice(-1000) },
  });
}
