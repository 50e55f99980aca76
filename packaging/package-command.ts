// `watari dev package`: makes the packages of this checkout's programs.

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { runCommand } from "../src/base/run-command.ts";
import { printAnswer, printFault, say } from "../src/cli/output.ts";
import { asFault, Fault } from "../src/contract/errors.ts";
import { isProgramName, makePackage, programNames } from "./programs.ts";

const projectRoot = join(import.meta.dirname, "..");

const descriptionShape = z.object({ version: z.string() });

interface Origin {
  readonly version: string;
  readonly epochSeconds: number;
}

/** Version and time are the commit's, so that two builds of one commit are one package. */
async function readOrigin(isDirtyAllowed: boolean): Promise<Origin> {
  const git = async (...args: readonly string[]): Promise<string> => (await runCommand("git", ["-C", projectRoot, ...args])).stdout.trim();
  const changed = await git("status", "--porcelain");
  if (changed !== "" && !isDirtyAllowed)
    throw new Fault("InputInvalid", "could not make a package: the checkout has changes that are in no commit", {
      evidence: { changed: changed.split("\n").slice(0, 10) },
      action: "commit or remove them, or call with --dirty for a package that is nobody's release",
    });
  const [seconds = "", commit = ""] = (await git("log", "-1", "--format=%ct %h", "--abbrev=8")).split(" ");
  const { version } = descriptionShape.parse(JSON.parse(await readFile(join(projectRoot, "package.json"), "utf8")));
  const isRelease = changed === "" && (await git("tag", "--points-at", "HEAD")).split("\n").includes(`v${version}`);
  // "~" sorts before the release itself.
  const suffix = isRelease ? "" : `~${seconds}.${commit}${changed === "" ? "" : "+dirty"}`;
  return { version: `${version}${suffix}`, epochSeconds: Number(seconds) };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: "string", default: "dist" },
      dirty: { type: "boolean", default: false },
      version: { type: "string" },
      json: { type: "boolean", default: false },
    },
  });
  const [name = ""] = positionals;
  if (!isProgramName(name))
    throw new Fault("InputInvalid", `could not make a package of ${JSON.stringify(name)}: it is one of ${programNames.join(", ")}`);
  const origin = await readOrigin(values.dirty);
  const version = values.version ?? origin.version;
  const folder = resolve(values.out);
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(tmpdir(), "watari-package-"));
  try {
    say(`package: watari-${name} ${version}`);
    const made = await makePackage(name, { version, epochSeconds: origin.epochSeconds, work, folder, compression: "xz" });
    const { path, sizeBytes, sha256 } = made;
    printAnswer({ asJson: values.json }, { path, sizeBytes, sha256, version }, () => `${path}\n${sizeBytes} bytes, SHA-256 ${sha256}`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  const fault = asFault(error, "make a package");
  printFault(fault, { asJson: process.argv.includes("--json") });
  process.exitCode = fault.exitCode;
}
