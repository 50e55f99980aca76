// Makes a .deb from a folder of files and a control text with dpkg-deb: the same bytes for the same contents, whoever builds it and when.

import { chmod, lutimes, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { join, relative } from "node:path";
import { runCommand } from "../src/base/run-command.ts";

export interface DebianPackage {
  /** Files as they are to lie under /; gets a folder DEBIAN. Modes count; owners become root. */
  readonly tree: string;
  readonly fields: Readonly<Record<string, string>>;
  /** What follows the first line of the description. */
  readonly description: readonly string[];
  /** postinst, prerm, postrm: texts by name. */
  readonly scripts: Readonly<Record<string, string>>;
  /** Files of the tree that belong to the administrator, as absolute paths. */
  readonly configurationFiles: readonly string[];
  /** Second of every file's time. */
  readonly epochSeconds: number;
  readonly compression: "xz" | "none";
}

const buildMsMax = 10 * 60_000;

/** Writes the package to `path`. */
export async function buildDebianPackage(wish: DebianPackage, path: string): Promise<void> {
  const { tree, epochSeconds } = wish;
  const control = join(tree, "DEBIAN");
  const files = await filesUnder(tree);
  const kibibytes = files.reduce((sum, { sizeBytes }) => sum + Math.ceil(sizeBytes / 1024), 0);
  await mkdir(control, { mode: 0o755 });
  const fields = { ...wish.fields, "Installed-Size": String(kibibytes), Description: wish.description.join("\n ") };
  const put = async (name: string, text: string, mode: number): Promise<void> => {
    await writeFile(join(control, name), text);
    await chmod(join(control, name), mode);
  };
  await put(
    "control",
    Object.entries(fields)
      .map(([name, value]) => `${name}: ${value}\n`)
      .join(""),
    0o644,
  );
  if (wish.configurationFiles.length > 0) await put("conffiles", wish.configurationFiles.map((file) => `${file}\n`).join(""), 0o644);
  await put(
    "md5sums",
    await sumsOf(
      tree,
      files.map(({ file }) => file).filter((file) => !wish.configurationFiles.includes(`/${relative(tree, file)}`)),
    ),
    0o644,
  );
  for (const [name, text] of Object.entries(wish.scripts)) await put(name, text, 0o755);
  await plainFolders(tree, epochSeconds);
  // One thread: how the work is divided must not show in the bytes.
  const args = [
    "--root-owner-group",
    "--threads-max=1",
    ...(wish.compression === "none" ? ["-Znone"] : ["-Zxz", "-z3"]),
    "--build",
    tree,
    path,
  ];
  await runCommand("dpkg-deb", args, { timeoutMs: buildMsMax, env: { ...process.env, SOURCE_DATE_EPOCH: String(epochSeconds) } });
}

interface TreeFile {
  readonly file: string;
  readonly sizeBytes: number;
}

async function filesUnder(folder: string): Promise<readonly TreeFile[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return await Promise.all(files.toSorted().map(async (file) => ({ file, sizeBytes: (await stat(file)).size })));
}

/** MD5 because dpkg --verify reads no other; it proves a copy, not an origin. */
async function sumsOf(tree: string, files: readonly string[]): Promise<string> {
  const lines = [];
  for (const file of files)
    lines.push(
      `${createHash("md5")
        .update(await readFile(file))
        .digest("hex")}  ${relative(tree, file)}\n`,
    );
  return lines.join("");
}

/** Folders' modes and every time, whatever the builder's umask and clock are. */
async function plainFolders(folder: string, epochSeconds: number): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries) if (entry.isDirectory()) await chmod(join(entry.parentPath, entry.name), 0o755);
  await chmod(folder, 0o755);
  for (const entry of entries) await lutimes(join(entry.parentPath, entry.name), epochSeconds, epochSeconds);
  await lutimes(folder, epochSeconds, epochSeconds);
}
