// `watari reverse`: where the source's disks are attached while it is off, a rescue system or a helper machine on site: no hub is asked.

import { resolve } from "node:path";
import type { Command } from "commander";
import { openProgress, printAnswer } from "../cli/output.ts";
import { Fault } from "../contract/errors.ts";
import { readAuthorityFile } from "./report-command.ts";
import { applyDelta, type AppliedDelta } from "./reverse/apply-delta.ts";

interface Options {
  readonly ca: string;
  readonly disk: readonly string[];
  readonly undo?: string;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

export function registerReverseCommand(program: Command): void {
  const noun = program.command("reverse").description("going back after a commit, at the source's disks");
  noun
    .command("apply <delta>")
    .description("write a reverse delta into the source's disks while it is off; only into disks that are as the source left them")
    .requiredOption("--ca <file>", "certificate of the hub's authority: a PEM file, or a profile or operator file of that hub")
    .option("--disk <id=path>", "where a disk of the delta is attached; one for each", collect, [])
    .option("--undo <file>", "what is just being overwritten, for a run that is cut; on another disk (default: DELTA.undo)")
    .option("--dry-run", "read and compare only")
    .option("--json", "answer as JSON on stdout")
    .action(async (delta: string, options: Options) => {
      const caPem = await readAuthorityFile(options.ca);
      const isDryRun = options.dryRun === true;
      const progress = openProgress("reverse apply");
      let applied: AppliedDelta;
      try {
        applied = await applyDelta({
          ...{ deltaPath: resolve(delta), caPem, diskPaths: pathsOf(options.disk), isDryRun },
          undoPath: resolve(options.undo ?? `${delta}.undo`),
          onProgress: (step, bytes) => progress.update(0, `${step}: ${Math.floor(bytes / 2 ** 20)} MiB`),
          signal: new AbortController().signal,
        });
      } finally {
        progress.finish();
      }
      printAnswer({ asJson: options.json === true }, { ...applied, isDryRun }, () => describe(applied, isDryRun));
    });
}

function pathsOf(wishes: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    wishes.map((wish) => {
      const [diskId = "", path = ""] = /^([^=]+)=(.+)$/.exec(wish)?.slice(1) ?? [];
      if (path === "") throw new Fault("InputInvalid", `could not read --disk ${wish}: it takes DISKID=PATH`);
      return [diskId, path];
    }),
  );
}

function describe({ machineName, pointId, disks }: AppliedDelta, isDryRun: boolean): string {
  return [
    isDryRun
      ? `${machineName}: the disks are as the source left them; nothing was written`
      : `${machineName}: the disks are the landed machine's at its final point ${pointId}, read from end to end`,
    ...disks.map(({ diskId, path, entryCount, writtenBlocks, root }) =>
      [`disk ${diskId} at ${path}: ${entryCount} blocks differ,`, `${writtenBlocks} written by this run,`, `root ${root}`].join(" "),
    ),
  ].join("\n");
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}
