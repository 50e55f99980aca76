// The noun `demo` of the command line: one whole migration in the lab, ended by a report.

import { Option, type Command } from "commander";
import type { UpgradeTarget } from "../src/contract/os-upgrade.ts";
import { ensurePackages } from "../src/cli/setup/packages.ts";
import { packagesFor } from "../src/cli/setup/package-lists.ts";
import { clear, runDemo, type DemoOutcome } from "./demo/demo.ts";
import { type DemoReport, writeReport } from "./demo/report.ts";
import { stageOf } from "./demo/stage.ts";
import { requireRoot } from "./require-root.ts";

interface Flags {
  /** A file, or true for stdout. */
  readonly json?: string | true;
  readonly keep?: boolean;
  readonly stop?: boolean;
  readonly upgrade?: UpgradeTarget;
  readonly prefix: string;
}

const about = `Builds a closed network in namespaces on this machine (see "watari lab --help"), then moves a running Debian machine through it:
found in a vCenter, agent pushed over SSH, replicated through private endpoints, test-booted, cut over, proved equal, cleaned up.
Needs root. The first run installs Debian packages and builds the guest's image, and takes some minutes more.`;

export function registerDemoCommand(program: Command): void {
  program
    .command("demo")
    .description("one whole migration in a closed network on this machine, shown step by step")
    .addHelpText("after", `\n${about}`)
    .option("--json [file]", "write the report as JSON to this file, or to stdout")
    .option("--keep", "leave everything running, and say how to sign in and how to stop it")
    .option("--stop", "end and remove what a demo with --keep left")
    .addOption(
      new Option(
        "--upgrade <release>",
        "also test the migration with an upgrade of the operating system, which takes some ten minutes more",
      ).choices(["debian13"]),
    )
    .option("--prefix <name>", "name of the lab, when several run at once", "wtr")
    .action(async (flags: Flags) => {
      requireRoot("demo");
      const write = (text: string): void => void process.stderr.write(text);
      if (flags.stop === true) {
        const left = await clear(stageOf(flags.prefix));
        write(left.length === 0 ? "demo: nothing is left\n" : `demo: left behind: ${left.join(", ")}\n`);
        return;
      }
      await ensurePackages(packagesFor("demo"), { purpose: "the demo", confirm: "announce" });
      const outcome = await runDemo({
        prefix: flags.prefix,
        keep: flags.keep === true,
        write,
        ...(flags.upgrade === undefined ? {} : { upgrade: flags.upgrade }),
      });
      if (typeof flags.json === "string") await writeReport(flags.json, outcome.report);
      write(`\n${describeReport(outcome.report)}\n`);
      if (flags.keep === true) write(`\n${describeKept(outcome, flags.prefix)}\n`);
      if (flags.json === true) process.stdout.write(`${JSON.stringify(outcome.report, undefined, 2)}\n`);
      if (!outcome.report.ok) process.exitCode = 5;
    });
}

function describeReport(report: DemoReport): string {
  const { ledger, replication, testMigration, agent } = report;
  const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  const rows: (readonly [string, string])[] = [
    ["result", report.ok ? "moved, and nothing was lost" : "NOT proved"],
    ...report.problems.map((problem) => ["problem", problem] as const),
    ["time", `${report.seconds} s in ${report.steps.length} steps`],
    ["set-up", `the appliance was registered ${report.setupSeconds} s after its first start, every hop checked`],
    ...report.disks.map(
      (disk) =>
        [
          "disk",
          `${disk.id}, ${mebibytes(disk.sizeBytes)}, roots ${disk.sourceRoot === disk.targetRoot ? "equal" : "DIFFER"}: ${disk.targetRoot.slice(0, 16)}…`,
        ] as const,
    ),
    ["recovery points", `${report.recoveryPoints}, longest freeze ${agent.longestFreezeMs.toFixed(0)} ms`],
    [
      "replication",
      `read ${mebibytes(replication.readBytes)}, sent ${mebibytes(replication.sentBytes)}, stored ${mebibytes(replication.storedBytes)}; first copy ${replication.initialSeconds} s with the push`,
    ],
    ["agent", `${mebibytes(agent.residentBytes)} resident; ${agent.tracking.join("; ")}`],
    [
      "test migration",
      `${testMigration.orderToProbeSeconds.toFixed(1)} s from order to answer (hydration ${testMigration.hydrationSeconds.toFixed(2)} s); a boot from local raw files: ${testMigration.rawBootToProbeSeconds.toFixed(1)} s (aim: at most ${(1.3 * testMigration.rawBootToProbeSeconds + 10).toFixed(1)} s)`,
    ],
    [
      "ledger",
      `last record on the source ${ledger.lastBefore}, first on the target ${ledger.firstAfter}; ${ledger.missing} missing, ${ledger.damaged} damaged; silent for ${ledger.downtimeSeconds.toFixed(1)} s`,
    ],
    ...(report.upgrade === undefined
      ? []
      : [
          [
            "upgrade",
            `${report.upgrade.text}, after ${report.upgrade.seconds} s in the test machine; the source stayed as it was`,
          ] as const,
        ]),
    ["forbidden packets", String(report.forbiddenPackets)],
    ["left behind", report.leftovers.length === 0 ? "nothing" : report.leftovers.join(", ")],
  ];
  return rows.map(([name, value]) => `${name.padEnd(18)}${value}`).join("\n");
}

function describeKept({ facts, stage }: DemoOutcome, prefix: string): string {
  return [
    "Everything is left running.",
    `operator's desk   ip netns exec ${facts.zones.onprem.namespace} env WATARI_PROFILE=${stage.profile} ./watari machine list --vault vault1`,
    `hub               https://management.${facts.domain} at ${facts.hub.publicAddress}, operator file ${stage.hubState}/operator.json`,
    `appliance         ${facts.applianceAddress}, state ${stage.applianceState}; its commands take --state`,
    `vCenter           ${facts.vcenter.url} as ${facts.vcenter.user}, password in ${facts.vcenter.passwordFile}`,
    `more              ./watari lab status --prefix ${prefix}`,
    `stop it all       ./watari demo --stop --prefix ${prefix}`,
  ].join("\n");
}
