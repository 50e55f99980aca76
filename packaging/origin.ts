// Which version of this checkout is made, and the time that goes into its files.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { runCommand } from "../src/base/run-command.ts";
import { Fault } from "../src/contract/errors.ts";

const projectRoot = join(import.meta.dirname, "..");

const descriptionShape = z.object({ version: z.string() });

interface Origin {
  readonly version: string;
  readonly epochSeconds: number;
}

/** Version and time are the commit's, so that two builds of one commit are one package. */
export async function readOrigin(checkout: "any" | "committed"): Promise<Origin> {
  const git = async (...args: readonly string[]): Promise<string> => (await runCommand("git", ["-C", projectRoot, ...args])).stdout.trim();
  const changed = await git("status", "--porcelain");
  if (changed !== "" && checkout === "committed")
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
