// A filesystem that holds a guest's whole tree, made by this host's tools without a mount: an emulated builder would unpack it for minutes.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readlink, rename, rm, lstat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../../../src/base/run-command.ts";
import { guestTree, treeName, type Release, type TreeKind } from "./guest-tree.ts";

export type RootKind = "ext4" | "xfs" | "btrfs";

export const rootImageBytes = 1000 * 2 ** 20;
const makeMsMax = 600_000;

export interface RootWish {
  readonly release: Release;
  readonly tree: TreeKind;
  readonly kind: RootKind;
}

export async function rootImage(cacheFolder: string, { release, tree: treeKind, kind }: RootWish): Promise<string> {
  const tar = await guestTree(cacheFolder, release, treeKind);
  const path = join(tar, "..", `${treeName(release, treeKind)}.${kind}`);
  if (existsSync(path)) return path;
  const work = await mkdtemp(join(tar, "..", ".root-"));
  try {
    const [tree, made] = [join(work, "tree"), join(work, "made")];
    await mkdir(tree);
    await runCommand("tar", ["-x", "-p", "--numeric-owner", "-C", tree, "-f", tar, "--exclude=./dev/*"], { timeoutMs: makeMsMax });
    await writeFile(made, "");
    await truncate(made, rootImageBytes);
    if (kind === "ext4")
      await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=0", "-d", tree, made], { timeoutMs: makeMsMax });
    if (kind === "btrfs") await runCommand("mkfs.btrfs", ["-q", "--rootdir", tree, made], { timeoutMs: makeMsMax });
    if (kind === "xfs") {
      const prototype = join(work, "prototype");
      await writeFile(prototype, `/none\n0 0\n${await prototypeOf(tree)}`);
      await runCommand("mkfs.xfs", ["-q", "-p", prototype, made], { timeoutMs: makeMsMax });
    }
    await rename(made, path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return path;
}

/** The tree in the words of mkfs.xfs; names with blanks, which it cannot take, are left out. */
async function prototypeOf(folder: string): Promise<string> {
  const { mode, uid, gid } = await lstat(folder);
  const lines = [`d${bits(mode)} ${uid} ${gid}`];
  for (const name of (await readdir(folder)).sort()) {
    const path = join(folder, name);
    if (/\s/.test(name)) continue;
    const node = await lstat(path);
    if (node.isDirectory()) lines.push(`${name} ${await prototypeOf(path)}`);
    else if (node.isSymbolicLink()) lines.push(`${name} l${bits(node.mode)} ${node.uid} ${node.gid} ${await readlink(path)}`);
    else if (node.isFile()) lines.push(`${name} -${bits(node.mode)} ${node.uid} ${node.gid} ${path}`);
  }
  return [...lines, "$", ""].join("\n");
}

function bits(mode: number): string {
  return `${(mode & 0o4000) === 0 ? "-" : "u"}${(mode & 0o2000) === 0 ? "-" : "g"}${(mode & 0o777).toString(8).padStart(3, "0")}`;
}
