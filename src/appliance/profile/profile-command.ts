// `watari replication profile`: measures what a machine writes, without replicating it, and says what that asks of a line.

import type { Command } from "commander";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import { formatBytes, formatSeconds, formatTable, openProgress, printAnswer, rateText } from "../../cli/output.ts";
import { predictLine, type ChurnProfile, type LinePrediction } from "../../contract/churn-profile.ts";
import { Fault } from "../../contract/errors.ts";
import { parseRate } from "../../contract/limit-text.ts";
import { callAppliance } from "../admin/admin-client.ts";
import { defaultStateFolder } from "../config/config.ts";
import { findMachine } from "../limits/find-machine.ts";
import { churnLine, churnSvg } from "./churn-plot.ts";

interface ProfileOptions {
  readonly state: string;
  readonly json: boolean;
  readonly seconds: number;
  readonly line: readonly string[];
  readonly interval: number;
  readonly wireShare: number;
  readonly svg?: string;
}

/** Beyond the measured time, for the way of the order and its result. */
const graceSeconds = 120;
const pollMs = 1000;

export function registerReplicationCommand(program: Command): void {
  program
    .command("replication")
    .description("before a machine is replicated")
    .command("profile")
    .description("count for a while what a machine writes, and predict line use and recovery-point objective; nothing is sent")
    .argument("<machine>", "host name or id of a machine whose agent is registered at this appliance")
    .option("--state <dir>", "the appliance's state folder", defaultStateFolder)
    .option("--seconds <seconds>", "for how long; a working day tells most", Number, 3600)
    .option("--line <rate...>", "line speeds to predict for", ["100mbit", "1gbit"])
    .option("--interval <seconds>", "wanted time between recovery points", Number, 300)
    .option("--wire-share <share>", "bytes on the wire for each byte that changed; 1: nothing compresses", Number, 1)
    .option("--svg <file>", "draw what was written over time into this file")
    .option("--json", "print JSON", false)
    .addHelpText(
      "after",
      `
The agent watches the disks for as long; it reads nothing and sends nothing, and watches no more afterwards. "never" means that changes come
faster than the line carries them. The objective is the age of the newest point just before the next one is sealed.

Example: watari replication profile ledger1 --seconds 28800 --line 50mbit 200mbit --interval 60 --svg ledger1.svg`,
    )
    .action(profile);
}

async function profile(name: string, options: ProfileOptions): Promise<void> {
  const { state, json, seconds, interval, wireShare, svg } = options;
  const lines = options.line.map((text) => {
    const rate = parseRate("--line", text);
    if (rate !== "unlimited") return rate;
    throw new Fault("InputInvalid", "could not predict for an unlimited line", { action: "give --line a speed, for example 200mbit" });
  });
  for (const [option, value] of Object.entries({ "--interval": interval, "--wire-share": wireShare }))
    if (!(value > 0)) throw new Fault("InputInvalid", `could not read ${option}`, { action: `give ${option} a number above 0` });
  const { machineId, hostname } = await findMachine(state, name);
  const { orderId } = await callAppliance(state, "startProfile", { machineId, seconds });
  const measured = await waitResult({ state, orderId, seconds, hostname });
  const predictions = lines.map((line) => predictLine(measured, { lineBytesPerSecond: line, intervalSeconds: interval, wireShare }));
  if (svg !== undefined) await writeFileAtomic(svg, churnSvg(measured, `${hostname}: bytes written, over ${seconds} s`));
  printAnswer({ asJson: json }, { machineId, hostname, profile: measured, predictions }, () => textOf(hostname, measured, predictions));
}

async function waitResult(of: {
  readonly state: string;
  readonly orderId: string;
  readonly seconds: number;
  readonly hostname: string;
}): Promise<ChurnProfile> {
  const progress = openProgress(`profile of ${of.hostname}`);
  const startMs = systemClock.monotonicMs();
  for (;;) {
    const { profile: found } = await callAppliance(of.state, "profileResult", { orderId: of.orderId });
    if (found !== undefined) {
      progress.finish();
      return found;
    }
    const passedSeconds = (systemClock.monotonicMs() - startMs) / 1000;
    if (passedSeconds > of.seconds + graceSeconds)
      throw new Fault("AgentSilent", `the agent of ${of.hostname} did not tell its profile in time`, { evidence: { orderId: of.orderId } });
    progress.update(Math.min(100, (100 * passedSeconds) / of.seconds), "counting what is written");
    await systemClock.sleep(pollMs);
  }
}

function textOf(hostname: string, measured: ChurnProfile, predictions: readonly LinePrediction[]): string {
  const { samples, sampleSeconds, windows, disks } = measured;
  const meanRate = samples.reduce((sum, each) => sum + each, 0) / (samples.length * sampleSeconds);
  const seconds = (value: number | undefined): string => (value === undefined ? "never" : formatSeconds(value));
  return [
    `${hostname}: ${rateText(meanRate)} on average`,
    churnLine(measured),
    ...disks.map((disk) => `disk ${disk.diskId}, ${formatBytes(disk.sizeBytes)}: ${disk.rung}, ${disk.reason}`),
    "",
    formatTable(
      ["within", "changes, mean", "changes, most"],
      windows.map((window) => [formatSeconds(window.seconds), formatBytes(Math.round(window.meanBytes)), formatBytes(window.maxBytes)]),
    ),
    "",
    formatTable(
      ["line", "point each", "line used", "objective", "at worst", "shortest interval", "initial copy"],
      predictions.map((each) => [
        rateText(each.lineBytesPerSecond),
        formatSeconds(each.intervalSeconds),
        `${(100 * each.lineShare).toFixed(1)} %`,
        seconds(each.typicalObjectiveSeconds),
        seconds(each.worstObjectiveSeconds),
        seconds(each.shortestIntervalSeconds),
        formatSeconds(each.initialCopySeconds),
      ]),
    ),
  ].join("\n");
}
