// Builds the sealed helper machine's kernel and memory disk from Debian packages, once for each version of their recipe.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, copyFile, lstat, mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { runCommand, tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { cpioTypes, writeCpio, type CpioEntry } from "../hydration/cpio.ts";
import { moduleNameOf, parseModuleIndex } from "../hydration/drivers.ts";
import { hostAptSources } from "./apt-sources.ts";
import { helperProgram } from "./helper-program.ts";

export interface HelperImage {
  readonly kernel: string;
  readonly initrd: string;
}

const recipeVersion = 1;
const buildMsMax = 600_000;
const kernelBytesMax = 128 * 2 ** 20;
/** The newest first: its kernel reads what the others write. */
const suites = ["trixie", "bookworm"] as const;
const packages = ["linux-image-cloud-amd64", "busybox-static", "perl-base", "lvm2", "mdadm", "cryptsetup-bin"];
const libraryFolder = "usr/lib/x86_64-linux-gnu";
const programs = ["usr/bin/perl", "usr/bin/busybox", "usr/sbin/lvm", "usr/sbin/mdadm", "usr/sbin/cryptsetup"];
/** Of no use there. */
const withoutLibraries = /^lib(ssl|mvec|apt-|stdc)/;
/** Kernel modules of all that it opens. */
export const helperModules = [
  ...["virtio_blk", "xfs", "btrfs", "vfat", "nls_ascii", "nls_cp437", "nls_iso8859_1", "nls_utf8"],
  ...["dm_mod", "dm_crypt", "dm_mirror", "dm_snapshot", "dm_thin_pool", "dm_raid", "raid0", "raid1", "raid10", "raid456"],
  ...["xts", "cbc", "ecb", "essiv", "aesni_intel", "aes_generic", "sha256_generic", "sha256_ssse3", "sha512_generic", "sha1_generic"],
  ...["algif_skcipher", "algif_hash", "crc32c_generic", "crc32c_intel", "libcrc32c", "xxhash_generic", "blake2b_generic"],
];
const links: Readonly<Record<string, string>> = {
  bin: "usr/bin",
  sbin: "usr/sbin",
  lib: "usr/lib",
  lib64: "usr/lib64",
  "usr/sbin/modprobe": "../bin/busybox",
  "usr/bin/modprobe": "busybox",
};

/** Throws Fault MissingProgram when it is not there and cannot be built here. Two who build at once do no harm. */
export async function ensureHelperImage(cacheFolder: string): Promise<HelperImage> {
  const recipe = JSON.stringify([recipeVersion, packages, helperModules, links, helperProgram]);
  const folder = join(cacheFolder, `helper-${createHash("sha256").update(recipe).digest("hex").slice(0, 12)}`);
  const image = { kernel: join(folder, "vmlinux"), initrd: join(folder, "initrd") };
  if (existsSync(image.initrd)) return image;
  await mkdir(cacheFolder, { recursive: true });
  const work = await mkdtemp(join(cacheFolder, ".helper-"));
  try {
    const [tree, fresh] = [join(work, "tree"), join(work, "fresh")];
    await mkdir(fresh);
    await extractPackages(tree);
    await chmod(work, 0o755);
    await writeFile(join(fresh, "vmlinux"), await plainKernel(tree));
    await writeFile(join(fresh, "initrd"), writeCpio(await archiveOf(tree, join(work, "modules"))));
    await rename(fresh, folder).catch((error: unknown) => {
      if (!existsSync(image.initrd)) throw error; // Else another was quicker.
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return image;
}

/** Unpacks the packages; nothing of them runs. */
async function extractPackages(tree: string): Promise<void> {
  const own = (await hostAptSources("bookworm")).split("\n").filter((line) => line.endsWith(" bookworm main"));
  const said: string[] = [];
  for (const suite of suites) {
    const sources = `${own.join("\n").replaceAll("bookworm", suite)}\n`;
    const choice = ["--quiet", "--variant=extract", "--aptopt=APT::Install-Recommends false", `--include=${packages.join(",")}`];
    const { exitCode, stderr } = await tryCommand("mmdebstrap", [...choice, suite, tree, "-"], { stdin: sources, timeoutMs: buildMsMax });
    if (exitCode === 0) return;
    said.push(stderr.trim().slice(-500));
    await rm(tree, { recursive: true, force: true });
  }
  throw new Fault("MissingProgram", "could not build the helper machine that opens XFS, btrfs, LVM, RAID and encrypted disks", {
    causes: ["the package source of Debian is out of reach", "mmdebstrap is not installed, or this is not root"],
    action: "run `watari setup` where Debian's packages can be had, then call again",
    evidence: { said },
  });
}

/** The kernel as QEMU starts it at once: without the loader that would unpack it on the emulated processor (PVH, ELF note 18). */
async function plainKernel(tree: string): Promise<Buffer> {
  const name = (await readdir(join(tree, "boot"))).find((each) => each.startsWith("vmlinuz-"));
  const packed = await readFile(join(tree, "boot", name ?? "vmlinuz"));
  const at = packed.indexOf(Buffer.from("28b52ffd", "hex"));
  const elf = Buffer.from("7f454c46", "hex");
  if (at > 0) {
    const unpacked = zstdDecompressSync(packed.subarray(at), { maxOutputLength: kernelBytesMax });
    if (unpacked.subarray(0, 4).equals(elf)) return unpacked;
  }
  return packed; // Another packing: slower to start, and as good.
}

async function archiveOf(tree: string, work: string): Promise<readonly CpioEntry[]> {
  const files = new Map<string, CpioEntry>();
  const addFile = async (path: string, from = join(tree, path)): Promise<void> => {
    const { mode } = await lstat(from);
    const isLink = (mode & cpioTypes.mask) === cpioTypes.link;
    const content = isLink ? Buffer.from(await readlink(from)) : await readFile(from);
    files.set(path, { name: path, mode: isLink ? cpioTypes.link | 0o777 : cpioTypes.file | (mode & 0o755), content });
  };
  for (const path of programs) await addFile(path);
  await addFile("usr/lib64/ld-linux-x86-64.so.2");
  for (const name of await readdir(join(tree, libraryFolder)))
    if (name.includes(".so") && !withoutLibraries.test(name)) await addFile(`${libraryFolder}/${name}`);
  for (const path of await filesUnder(join(tree, libraryFolder, "perl-base")))
    if (!path.includes("/unicore/")) await addFile(relative(tree, path));
  const folder = await collectModules(tree, work);
  for (const path of await filesUnder(folder)) await addFile(`usr/lib/${relative(folder, path)}`, path);
  for (const [name, to] of Object.entries(links)) files.set(name, { name, mode: cpioTypes.link | 0o777, content: Buffer.from(to) });
  files.set("init", { name: "init", mode: cpioTypes.file | 0o755, content: Buffer.from(helperProgram) });
  const sorted = [...files.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return [...foldersOf(sorted), ...sorted];
}

function foldersOf(files: readonly CpioEntry[]): readonly CpioEntry[] {
  const names = new Set<string>(["dev", "proc", "sys", "run", "tmp", "m"]);
  for (const { name } of files) for (let folder = dirname(name); folder !== "."; folder = dirname(folder)) names.add(folder);
  return [...names].sort().map((name) => ({ name, mode: cpioTypes.folder | 0o755, content: new Uint8Array(0) }));
}

async function filesUnder(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.flatMap((entry) => (entry.isDirectory() ? [] : [join(entry.parentPath, entry.name)])).sort();
}

/** The wanted modules with all they need, unpacked, with an index of their own; answers the folder that holds "modules/<kernel>". */
async function collectModules(tree: string, work: string): Promise<string> {
  const parent = join(tree, "usr/lib/modules");
  const [release = ""] = await readdir(parent);
  const from = join(parent, release);
  const to = join(work, "lib/modules", release);
  const builtin = await readFile(join(from, "modules.builtin"), "utf8");
  const paths = (await filesUnder(join(from, "kernel"))).filter((path) => /\.ko(\.\w+)?$/.test(path)).map((path) => relative(from, path));
  // The package brings no modules.dep; depmod writes it beside the packed modules.
  await runCommand("depmod", ["-b", join(tree, "usr"), release], { timeoutMs: buildMsMax }).catch(async () => {
    await runCommand("depmod", ["-b", tree, release], { timeoutMs: buildMsMax });
  });
  const index = parseModuleIndex({ dependencies: await readFile(join(from, "modules.dep"), "utf8"), builtin });
  const wanted = new Set<string>();
  for (const name of helperModules) {
    const path = index.pathOf.get(moduleNameOf(name));
    if (path === undefined) continue; // Built in, or of another kernel.
    for (const each of [path, ...(index.needs.get(path) ?? [])]) wanted.add(each);
  }
  for (const path of paths.filter((each) => wanted.has(each))) {
    const target = join(to, path);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(join(from, path), target);
    if (path.endsWith(".xz")) await runCommand("xz", ["-d", target]);
    if (path.endsWith(".zst")) await runCommand("zstd", ["-dq", "--rm", target]);
  }
  for (const name of ["modules.builtin", "modules.order"]) await copyFile(join(from, name), join(to, name));
  await runCommand("depmod", ["-b", work, release], { timeoutMs: buildMsMax });
  return join(work, "lib");
}
