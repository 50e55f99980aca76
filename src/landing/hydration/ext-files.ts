// Files of an ext2/3/4 filesystem inside a raw image, without mounting it: read by this program, written by debugfs of e2fsprogs.

import { open, readFile, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { assert, unreachable } from "../../base/assert.ts";
import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { openExtFiles } from "../files/ext-reader.ts";
import type { GuestFiles, GuestNode } from "../files/guest-files.ts";
import { isPlainPath, type FileChange, type GuestFile, type VolumeFiles } from "./volume-files.ts";

export interface ExtFilesOptions {
  /** The raw image or its view. */
  readonly imagePath: string;
  /** First byte of the filesystem. */
  readonly offset: number;
  /** An own folder of the host for files in transit. */
  readonly scratchFolder: string;
  readonly signal?: AbortSignal;
}

const fileBytesMax = 512 * 2 ** 20;
const heldBlockBytesMax = 4096;
const heldBlocksMax = 4096;

/** Access to one filesystem. Links inside the guest are followed inside the guest only. */
export class ExtFiles implements VolumeFiles {
  readonly #options: ExtFilesOptions;
  #serial = 0;
  /** Read since the last change. */
  #blocks = new Map<number, Buffer>();

  constructor(options: ExtFilesOptions) {
    this.#options = options;
  }

  async list(path: string): Promise<readonly GuestFile[] | undefined> {
    checked(path);
    const found = await this.#withReader(async (files) => ({ entries: await listFolder(files, path) }));
    return found === undefined ? await this.#listByTool(path) : found.entries;
  }

  async read(paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
    for (const path of paths) checked(path);
    return (await this.#withReader(async (files) => await readFiles(files, paths))) ?? (await this.#readByTool(paths));
  }

  /** Undefined: the filesystem has what this program does not know; e2fsprogs may. */
  async #withReader<T>(work: (files: GuestFiles) => Promise<T>): Promise<T | undefined> {
    await using image = await open(this.#options.imagePath, "r");
    const files = await openExtFiles(async (offset, into) => await this.#readAt(image, offset, into)).catch((error: unknown) => {
      if (error instanceof Fault && error.code === "OperationNotSupported") return undefined;
      throw error;
    });
    return files === undefined ? undefined : await work(files);
  }

  async #readAt(image: FileHandle, offset: number, into: Buffer): Promise<void> {
    const held = into.length > heldBlockBytesMax ? undefined : this.#blocks.get(offset);
    if (held?.length === into.length) {
      held.copy(into);
      return;
    }
    this.#options.signal?.throwIfAborted();
    const cannot = "could not read the clone's filesystem";
    const { bytesRead } = await image.read(into, 0, into.length, this.#options.offset + offset).catch((cause: unknown) => {
      throw new Fault("DataDamaged", cannot, { cause });
    });
    if (bytesRead !== into.length) throw new Fault("DataDamaged", cannot, { evidence: { offset, bytesRead } });
    if (into.length <= heldBlockBytesMax && this.#blocks.size < heldBlocksMax) this.#blocks.set(offset, Buffer.from(into));
  }

  async #listByTool(path: string): Promise<readonly GuestFile[] | undefined> {
    const { stdout, stderr } = await this.#run([`ls -p ${checked(path)}`], "read");
    if (stderr.split("\n").some(isAbsence)) return undefined;
    return stdout.split("\n").flatMap((line) => parseListLine(line));
  }

  async #readByTool(paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
    const targets = paths.map((path) => ({ path: checked(path), hostPath: this.#freshPath() }));
    if (targets.length > 0)
      await this.#run(
        targets.map(({ path, hostPath }) => `dump ${path} ${hostPath}`),
        "read",
      );
    const found = new Map<string, Buffer>();
    for (const { path, hostPath } of targets) {
      const content = await readFile(hostPath).catch((error: unknown) => {
        if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
        throw error;
      });
      if (content !== undefined && content.length <= fileBytesMax) found.set(path, content);
    }
    return found;
  }

  async change(changes: readonly FileChange[]): Promise<void> {
    const commands: string[] = [];
    for (const change of changes) commands.push(...(await this.#commandsOf(change)));
    const { stderr } = await this.#run(commands, "write");
    this.#blocks.clear();
    const written = changes.filter((change) => change.kind === "write");
    const present = await this.read(written.map(({ path }) => path));
    const lost = written.find(({ path, content }) => !present.get(path)?.equals(content));
    if (lost !== undefined) {
      throw new Fault("HydrationUnsupported", `could not write ${lost.path} into the clone`, {
        causes: ["the filesystem is full", "the filesystem uses a feature that the host's e2fsprogs does not know"],
        action: "free room in the guest's filesystem, make a new recovery point and call again",
        evidence: { output: stderr.slice(-2000) },
      });
    }
  }

  async #commandsOf(change: FileChange): Promise<readonly string[]> {
    switch (change.kind) {
      case "write": {
        const hostPath = this.#freshPath();
        await writeFile(hostPath, change.content);
        const path = checked(change.path);
        return [`write ${hostPath} ${path}`, `set_inode_field ${path} mode 0${(0o100000 | change.mode).toString(8)}`];
      }
      case "rename": // A second name and the loss of the first; the link count stays right.
        return [`ln ${checked(change.from)} ${checked(change.to)}`, `unlink ${checked(change.from)}`];
      case "remove":
        return [`rm ${checked(change.path)}`];
      case "removeFolder":
        return [`rmdir ${checked(change.path)}`];
      case "makeFolder":
        return [`mkdir ${checked(change.path)}`];
      case "link":
        return [`symlink ${checked(change.path)} ${checked(change.to)}`];
    }
    return unreachable(change);
  }

  async #run(commands: readonly string[], access: "read" | "write"): Promise<{ stdout: string; stderr: string }> {
    const script = this.#freshPath();
    await writeFile(script, `${commands.join("\n")}\n`);
    const args = [...(access === "write" ? ["-w"] : []), "-f", script, this.#image()];
    const result = await tryCommand("debugfs", args, this.#running());
    // debugfs goes on after a failed read and leaves a shorter file; its words are the only sign.
    const complaints = result.stderr.split("\n").filter((line) => line !== "" && !/^debugfs \d/.test(line) && !isAbsence(line));
    if (access === "read" && complaints.length > 0) {
      throw new Fault("DataDamaged", "could not read the clone's filesystem", { evidence: { output: complaints.join("\n").slice(-2000) } });
    }
    return result;
  }

  #image(): string {
    return `${this.#options.imagePath}?offset=${this.#options.offset}`;
  }

  #running() {
    const { signal } = this.#options;
    return { timeoutMs: 300_000, ...(signal === undefined ? {} : { signal }) };
  }

  #freshPath(): string {
    this.#serial += 1;
    return join(this.#options.scratchFolder, `file-${this.#options.offset}-${this.#serial}`);
  }
}

async function listFolder(files: GuestFiles, path: string): Promise<readonly GuestFile[] | undefined> {
  const folder = await findInside(files, path);
  if (folder?.kind !== "folder") return undefined;
  const entries = await Array.fromAsync(files.list(folder));
  return entries.map(({ name, node: { kind, mode, uid, gid, sizeBytes } }) => ({
    name: name.toString("utf8"),
    kind: kind === "file" || kind === "folder" || kind === "link" ? kind : "other",
    ...{ mode: mode & 0o7777, uid, gid, sizeBytes },
  }));
}

async function readFiles(files: GuestFiles, paths: readonly string[]): Promise<ReadonlyMap<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for (const path of paths) {
    const node = await findInside(files, path);
    if (node?.kind === "file" && node.sizeBytes <= fileBytesMax) found.set(path, Buffer.concat(await Array.fromAsync(files.read(node))));
  }
  return found;
}

const linksMax = 40;

/** Links on the way lead inside the guest; one at the end is itself. */
async function findInside(files: GuestFiles, path: string): Promise<GuestNode | undefined> {
  const names = (text: string): readonly string[] => text.split("/").filter((name) => name !== "" && name !== ".");
  const todo = [...names(path)];
  let way: GuestNode[] = [files.root];
  let linksLeft = linksMax;
  for (let name = todo.shift(); name !== undefined; name = todo.shift()) {
    const folder = way.at(-1);
    if (folder?.kind !== "folder") return undefined;
    if (name === "..") {
      if (way.length > 1) way.pop();
      continue;
    }
    const node = await files.find(folder, Buffer.from(name, "latin1"));
    if (node === undefined) return undefined;
    if (node.kind !== "link" || todo.length === 0) {
      way.push(node);
      continue;
    }
    linksLeft -= 1;
    if (linksLeft < 0) return undefined;
    const text = (await files.readLink(node)).toString("latin1");
    if (text.startsWith("/")) way = [files.root];
    todo.unshift(...names(text));
  }
  return way.at(-1);
}

/** What debugfs says of a path that is not there, or not of the asked kind. */
function isAbsence(line: string): boolean {
  return /File not found by ext2_lookup|is not a directory|not a regular file|Ext2 inode is not/.test(line);
}

function checked(path: string): string {
  assert(isPlainPath(path), `the guest path ${JSON.stringify(path.slice(0, 200))} is plain`);
  return path;
}

/** One line of `ls -p`: /inode/mode/uid/gid/name/size/ */
export function parseListLine(line: string): readonly GuestFile[] {
  const match = /^\/\d+\/(\d{6})\/(\d+)\/(\d+)\/(.*)\/(\d*)\/$/.exec(line);
  if (match === null) return [];
  const [, modeText = "", uid = "", gid = "", name = "", size = ""] = match;
  if (name === "." || name === "..") return [];
  const mode = Number.parseInt(modeText, 8);
  const kind = ({ 0o100000: "file", 0o040000: "folder", 0o120000: "link" } as const)[mode & 0o170000] ?? "other";
  return [{ name, kind, mode: mode & 0o7777, uid: Number(uid), gid: Number(gid), sizeBytes: Number(size || 0) }];
}
