// Builds the disk that upgrades machines without a network: one ext4 filesystem in a file, with a description beside it.
// apt itself works out, from a machine's own package state, what the release after its own asks for, and fetches it with its signatures checked.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { runCommand, tryCommand, type CommandResult } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { releases, upgradeLabel, type Release, type UpgradeDisk, type UpgradeTarget } from "../../contract/os-upgrade.ts";
import { upgradeScript } from "./upgrade-script.ts";

export interface BuildUpgradeDisk {
  /** Contents of /var/lib/dpkg/status of the machines that it is for. */
  readonly statuses: readonly { readonly name: string; readonly text: string }[];
  readonly to: UpgradeTarget;
  /** Lines for apt that name the target's release. */
  readonly sources: string;
  /** The disk's file; `<file>.json` describes it. */
  readonly file: string;
  readonly onProgress: (text: string) => void;
  readonly signal?: AbortSignal;
}

const minuteMs = 60_000;
const mebibyte = 1 << 20;
const statusBytesMax = 64 * mebibyte;

/** Leaves nothing but the two files, and on a failure not even these. */
export async function buildUpgradeDisk(build: BuildUpgradeDisk): Promise<UpgradeDisk> {
  const { to, file, onProgress } = build;
  const { from } = releases[to];
  await mkdir(dirname(file), { recursive: true });
  const work = await mkdtemp(join(dirname(file), ".upgrade-disk-"));
  try {
    const content = join(work, "content");
    const archive = join(content, "archive");
    await mkdir(archive, { recursive: true });
    const removals = new Set<string>();
    for (const [index, { name, text }] of build.statuses.entries()) {
      checkStatus(name, text, from);
      const apt = await openApt(join(work, `apt-${index}`), text, build);
      onProgress(`${name}: asking apt what ${releases[to].title} needs`);
      for (const removed of await apt.simulate()) removals.add(removed);
      onProgress(`${name}: fetching packages`);
      for (const path of await apt.fetch()) await rename(path, join(archive, basename(path)));
    }
    onProgress("making the disk");
    const packages = await indexArchive(archive);
    await writeFile(join(content, "plan"), `from=${releases[from].codename}\nto=${releases[to].codename}\n`);
    await writeFile(
      join(content, "removals"),
      [...removals]
        .toSorted()
        .map((name) => `${name}\n`)
        .join(""),
    );
    await writeFile(join(content, "upgrade.sh"), upgradeScript, { mode: 0o755 });
    const image = join(work, "disk.raw");
    await makeImage(image, content);
    const described: UpgradeDisk = { version: 1, from, to, sizeBytes: (await stat(image)).size, sha256: await digestOf(image), packages };
    await rename(image, file);
    await writeFileAtomic(`${file}.json`, `${JSON.stringify(described, undefined, 1)}\n`, { mode: 0o644 });
    return described;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function checkStatus(name: string, text: string, from: Release): void {
  const version = /^Package: base-files\n(?:[^\n]+\n)*?Version: (\d+)/m.exec(text)?.[1];
  if (Buffer.byteLength(text) <= statusBytesMax && version !== undefined && `debian${version}` === from) return;
  throw new Fault("InputInvalid", `could not make an upgrade disk for ${name}: it is not ${releases[from].title}`, {
    evidence: {
      machine: name,
      found: version === undefined ? "no package base-files" : `base-files ${version}`,
      needed: releases[from].title,
    },
    action: "give /var/lib/dpkg/status of a machine of that release; a system is upgraded one release at a time",
  });
}

interface Apt {
  /** Packages that would be removed. */
  simulate(): Promise<readonly string[]>;
  /** Paths of the packages' files. */
  fetch(): Promise<readonly string[]>;
}

/** apt with folders of its own, which sees the machine's packages in place of this one's. It needs no rights and changes nothing here. */
async function openApt(folder: string, status: string, { sources, signal }: BuildUpgradeDisk): Promise<Apt> {
  for (const each of ["state/lists/partial", "cache/archives/partial", "etc"]) await mkdir(join(folder, each), { recursive: true });
  const [statusFile, sourceFile] = [join(folder, "status"), join(folder, "etc/sources.list")];
  await writeFile(statusFile, status);
  await writeFile(sourceFile, sources);
  const settings = [
    `Dir::State=${join(folder, "state")}`,
    `Dir::State::status=${statusFile}`,
    `Dir::State::extended_states=${join(folder, "state/extended_states")}`,
    `Dir::Cache=${join(folder, "cache")}`,
    `Dir::Etc::sourcelist=${sourceFile}`,
    ...["sourceparts", "preferences", "preferencesparts"].map((each) => `Dir::Etc::${each}=/dev/null`),
    "APT::Install-Recommends=true", // As the script on the disk: releases move parts of a package into recommended ones.
    "APT::Sandbox::User=root", // The folders are this user's own.
  ].flatMap((each) => ["-o", each]);
  const run = async (...args: string[]): Promise<CommandResult> => {
    const result = await tryCommand("env", ["LC_ALL=C", "apt-get", ...settings, ...args], {
      timeoutMs: 30 * minuteMs,
      ...(signal === undefined ? {} : { signal }),
    });
    if (result.exitCode === 0 && !/^(Err|E|W: Failed)/m.test(result.stderr)) return result;
    throw new Fault("MissingProgram", "could not get the packages of the release to upgrade to", {
      causes: ["no source of that release can be reached from here", "the machine's packages cannot be upgraded together"],
      action: "run it where Debian's archive or a mirror of it can be reached, or name one with --source",
      evidence: { command: `apt-get ${args.join(" ")}`, lastLines: result.stderr.trim().split("\n").slice(-8) },
    });
  };
  await run("update");
  return {
    simulate: async () => {
      const { stdout } = await run("-s", "full-upgrade");
      return [...stdout.matchAll(/^Remv (\S+)/gm)].map(([, name = ""]) => name);
    },
    fetch: async () => {
      await run("-y", "--download-only", "full-upgrade");
      const archives = join(folder, "cache/archives");
      return (await readdir(archives)).filter((name) => name.endsWith(".deb")).map((name) => join(archives, name));
    },
  };
}

/** Writes the index of a flat repository; answers package to version. */
async function indexArchive(archive: string): Promise<Record<string, string>> {
  const { stdout } = await runCommand("apt-ftparchive", ["packages", "."], {
    cwd: archive,
    timeoutMs: 10 * minuteMs,
    outputBytesMax: 256 * mebibyte,
  });
  await writeFile(join(archive, "Packages"), stdout);
  const packages: Record<string, string> = {};
  for (const paragraph of stdout.split("\n\n")) {
    const name = /^Package: (\S+)$/m.exec(paragraph)?.[1];
    if (name !== undefined) packages[name] = /^Version: (\S+)$/m.exec(paragraph)?.[1] ?? "";
  }
  if (Object.keys(packages).length > 0) return packages;
  throw new Fault("InputInvalid", "could not make an upgrade disk: apt found nothing to upgrade", {
    action: "look at the sources that were given",
  });
}

/** A whole number of MiB, no journal: it is only ever read. */
async function makeImage(image: string, content: string): Promise<void> {
  const { stdout } = await runCommand("du", ["-s", "--apparent-size", "-B1", content]);
  const bytes = Number(/^\d+/.exec(stdout)?.[0] ?? 0);
  await writeFile(image, "");
  await truncate(image, Math.ceil((bytes * 1.06) / mebibyte + 16) * mebibyte);
  await runCommand("mke2fs", ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", upgradeLabel, "-d", content, image], {
    timeoutMs: 10 * minuteMs,
  });
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}
