// The file of a backup: a tar whose first member says what it is and the digest of each other member.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, open, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { z } from "zod";
import { flushFolder } from "../../base/atomic-file.ts";
import { runCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";

const filesMax = 1_000_000;
const memberNameShape = z
  .string()
  .max(1000)
  .regex(/^(database\.dump|master-key\.sealed|blob\/[^\0]+)$/)
  .refine((name) => !name.split("/").includes(".."));

const manifestShape = z.strictObject({
  format: z.literal("watari-hub-backup-1"),
  createdAt: z.string().max(40),
  /** Number of the newest migration in the database. */
  schema: z.number().int().min(1),
  domain: z.string().max(200),
  masterKey: z.enum(["sealed", "absent"]),
  blobs: z.enum(["included", "absent"]),
  files: z
    .array(z.strictObject({ name: memberNameShape, sizeBytes: z.number().int().min(0), sha256: z.string().length(64) }))
    .max(filesMax),
});
export type Manifest = z.infer<typeof manifestShape>;

const manifestName = "manifest.json";
const tarMsMax = 12 * 3600_000;

/** Packs the members that lie in `folder` and, as blob/…, what lies in `blobFolder`. The archive is whole or absent, mode 0600. */
export async function writeArchive(
  path: string,
  from: { readonly folder: string; readonly names: readonly string[]; readonly blobFolder?: string },
  about: Omit<Manifest, "format" | "files">,
): Promise<Manifest> {
  const { folder, names, blobFolder } = from;
  const members = names.map((name) => ({ name, path: join(folder, name) }));
  if (blobFolder !== undefined)
    for (const file of await filesUnder(blobFolder)) members.push({ name: `blob/${relative(blobFolder, file)}`, path: file });
  const files: Manifest["files"] = [];
  for (const { name, path: file } of members) files.push({ name, ...(await digestFile(file)) });
  const manifest = manifestShape.parse({ format: "watari-hub-backup-1", ...about, files });
  await writeFile(join(folder, manifestName), `${JSON.stringify(manifest, undefined, 1)}\n`, { mode: 0o600 });
  const lists = { own: join(folder, "own.list"), blob: join(folder, "blob.list") };
  await writeFile(lists.own, [manifestName, ...names].map((name) => `${name}\0`).join(""));
  const blobs = members.slice(names.length).map(({ name }) => `${name.slice("blob/".length)}\0`);
  await writeFile(lists.blob, blobs.join(""));
  const temporary = `${path}.${process.pid}.tmp`;
  const tar = async (...args: string[]): Promise<void> => void (await runCommand("tar", args, { timeoutMs: tarMsMax }));
  await tar("--create", "--file", temporary, "--directory", folder, "--null", "--verbatim-files-from", "--files-from", lists.own);
  await chmod(temporary, 0o600);
  if (blobFolder !== undefined)
    await tar(
      ...["--append", "--file", temporary, "--directory", blobFolder, "--transform", "s,^,blob/,"],
      ...["--null", "--verbatim-files-from", "--files-from", lists.blob],
    );
  {
    await using file = await open(temporary, "r");
    await file.sync();
  }
  await rename(temporary, path);
  await flushFolder(dirname(path));
  return manifest;
}

/** Unpacks into `folder` and proves every member against the first. Nothing that the manifest does not name is accepted. */
export async function readArchive(path: string, folder: string): Promise<Manifest> {
  const damaged = (message: string, cause?: unknown): Fault =>
    new Fault("DataDamaged", `could not read the backup: ${message}`, {
      cause,
      evidence: { path },
      causes: ["the file is no backup of a hub", "it was cut or changed"],
    });
  const unpacked = await runCommand("tar", ["--extract", "--file", path, "--directory", folder, "--no-same-owner"], {
    timeoutMs: tarMsMax,
  }).catch((error: unknown) => error);
  if (unpacked instanceof Error) throw damaged("it cannot be unpacked", unpacked);
  const text = await readFile(join(folder, manifestName), "utf8").catch((error: unknown) => {
    throw damaged("it does not say what it is", error);
  });
  const parsed = manifestShape.safeParse(parseJson(text));
  if (!parsed.success) throw damaged("it is of a kind that this version does not know", parsed.error);
  const expected = new Set([manifestName, ...parsed.data.files.map((file) => file.name)]);
  for (const file of await filesUnder(folder))
    if (!expected.has(relative(folder, file))) throw damaged("it holds a file that it does not name");
  for (const { name, sizeBytes, sha256 } of parsed.data.files) {
    const found = await digestFile(join(folder, name)).catch(() => undefined); // A member that is missing is damage too.
    if (found?.sizeBytes !== sizeBytes || found.sha256 !== sha256) throw damaged(`${name} is not what was written`);
  }
  return parsed.data;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // The schema refuses it.
  }
}

async function digestFile(path: string): Promise<{ readonly sizeBytes: number; readonly sha256: string }> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path)) {
    hash.update(chunk as Buffer); // A stream without an encoding gives buffers.
    sizeBytes += (chunk as Buffer).length;
  }
  return { sizeBytes, sha256: hash.digest("hex") };
}

async function filesUnder(folder: string): Promise<readonly string[]> {
  const found = await stat(folder).catch(() => undefined); // No folder, no files.
  if (found === undefined) return [];
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const other = entries.find((entry) => !entry.isFile() && !entry.isDirectory());
  if (other !== undefined || files.length > filesMax)
    throw new Fault("InputInvalid", "could not pack the folder: it holds what no backup can", {
      evidence: { folder, files: files.length, filesMax, other: other?.name ?? "none" },
    });
  return files.sort();
}
