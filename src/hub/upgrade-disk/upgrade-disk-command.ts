// `watari upgrade-disk build`: the disk that upgrades landed machines in place, made where Debian's archive can be reached.

import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { Option, type Command } from "commander";
import { Fault } from "../../contract/errors.ts";
import { releases, upgradeTargets, type UpgradeTarget } from "../../contract/os-upgrade.ts";
import { formatBytes, printAnswer, say } from "../../cli/output.ts";
import { hostAptSources } from "../../landing/helper/apt-sources.ts";
import { buildUpgradeDisk } from "./build-upgrade-disk.ts";

/** Debian packages by the programs that are needed of them. */
const needed = { "apt-get": "apt", "apt-ftparchive": "apt-utils", mke2fs: "e2fsprogs" };

const about = `A landed copy has no network, so all that its upgrade needs lies on a disk beside it. apt works out what that is from the list of
packages of each machine; a disk serves any machine whose packages are among those of the machines that it was made for.

  watari machine fetch web01 /var/lib/dpkg/status --plain --out web01.status --vault vault1
  watari upgrade-disk build --to debian13 --status web01.status --out debian13.raw
  (put debian13.raw and debian13.raw.json into the hub's folder "upgrades")
  watari machine test web01 --upgrade debian13 --vault vault1`;

interface BuildOptions {
  readonly to: UpgradeTarget;
  readonly status: readonly string[];
  readonly source?: string;
  readonly out: string;
  readonly json?: boolean;
}

export function registerUpgradeDiskCommand(program: Command): void {
  const noun = program.command("upgrade-disk").description("disks that upgrade the operating system of landed machines without a network");
  noun
    .command("build")
    .description("make one where Debian's archive, or a mirror of it, can be reached")
    .addHelpText("after", `\n${about}`)
    .addOption(new Option("--to <release>", "what it upgrades to, from the release before").choices(upgradeTargets).makeOptionMandatory())
    .requiredOption("--status <file...>", "/var/lib/dpkg/status of each machine that it is for")
    .option("--source <file>", "lines for apt that name the release (default: this machine's own sources, for that release)")
    .requiredOption("--out <file>", "the disk; FILE.json beside it describes it")
    .option("--json", "the description as JSON on stdout")
    .action(async (options: BuildOptions) => {
      requirePrograms();
      const statuses = await Promise.all(
        options.status.map(async (file) => ({ name: basename(file), text: await readFile(file, "utf8") })),
      );
      const { to } = options;
      const sources = options.source === undefined ? await debianSources(to) : await readFile(options.source, "utf8");
      const file = resolve(options.out);
      const disk = await buildUpgradeDisk({ statuses, to, sources, file, onProgress: say });
      printAnswer({ asJson: options.json === true }, { file, ...disk }, () =>
        [
          `${file}: ${formatBytes(disk.sizeBytes)}, ${Object.keys(disk.packages).length} packages, ${releases[disk.from].title} to ${releases[to].title}`,
          `put it and ${basename(file)}.json into the hub's folder "upgrades" (landing.upgradeFolder of its configuration)`,
        ].join("\n"),
      );
    });
}

function requirePrograms(): void {
  const missing = Object.entries(needed).filter(([program]) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0);
  if (missing.length === 0) return;
  const names = missing.map(([, name]) => name);
  throw new Fault("MissingProgram", "could not build an upgrade disk: programs are missing", {
    evidence: { programs: missing.map(([program]) => program), packages: names },
    action: `apt-get install ${names.join(" ")}`,
  });
}

/** Other releases come from where this machine's own comes from. */
export async function debianSources(to: UpgradeTarget): Promise<string> {
  const own = /^VERSION_CODENAME=(\w+)$/m.exec(await readFile("/etc/os-release", "utf8"))?.[1] ?? releases.debian12.codename;
  return (await hostAptSources(own)).replaceAll(new RegExp(`\\b${own}\\b`, "g"), releases[to].codename);
}
