// Holds every rung of change tracking, on several kernels, against the truth: each granule of the disks before and after heavy mixed writes and trims.
// Run: npm run proof -- tracking [--quick] [--suites bookworm,trixie] [--json]

import { parseArgs } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { guestSuites, whyNoGuest, type GuestSuite } from "../system/agent-guest-image.ts";
import { startGuest } from "../system/agent-guest.ts";
import { leftovers, prepareTrials, runTrial, secondsSince, type TrialRow } from "../system/tracking-trial.ts";

/** What the agent may take of the guest's memory. */
const residentBytesMax = 120e6;

interface Row extends TrialRow {
  readonly suite: GuestSuite;
  readonly kernel: string;
  readonly residentBytes: number;
  readonly scanMs: number;
  readonly isRight: boolean;
}

const { values } = parseArgs({
  options: { quick: { type: "boolean" }, json: { type: "boolean" }, suites: { type: "string" }, rungs: { type: "string" } },
});
const suites = guestSuites.filter((suite) =>
  (values.suites ?? (values.quick === true ? "bookworm" : guestSuites.join(","))).split(",").includes(suite),
);
const rungs = (values.rungs ?? "ebpf,tracefs,checksum").split(",");
const say = (line: string): void => void process.stderr.write(`${line}\n`);

async function proveSuite(suite: GuestSuite): Promise<Row[]> {
  await using guest = await startGuest({ suite });
  const kernel = (await guest.run("uname -r")).trim();
  say(`${suite}: kernel ${kernel}`);
  await prepareTrials(guest);
  const rows: Row[] = [];
  for (const rung of rungs) {
    const { rows: found, residentBytes, scanMs } = await runTrial(guest, { rung, seconds: values.quick === true ? 5 : 15 });
    const left = await leftovers(guest);
    for (const row of found) {
      const isRung = row.rung === rung || (rung === "checksum" && row.rung === "full");
      const isRight = isRung && row.missed === 0 && row.changed > 0 && left === "" && residentBytes <= residentBytesMax;
      rows.push({ ...row, suite, kernel, residentBytes, scanMs, isRight });
      say(
        `${row.rung.padEnd(8)} ${row.disk}: ${row.compared} granules compared, ${row.changed} changed, ${row.marked} marked, ${row.missed} missed, ` +
          `${(row.falselyDirtyShare * 100).toFixed(1)} % of the marked were equal; scan ${Math.round(scanMs)} ms, ${Math.round(residentBytes / 1e6)} MB resident` +
          `${isRight ? "" : `  WRONG${left === "" ? "" : `, left behind: ${left}`}${isRung ? "" : `, wanted ${rung}`}`}  (${row.reason})`,
      );
    }
  }
  return rows;
}

const whyNot = await whyNoGuest();
if (whyNot !== undefined) {
  say(`cannot run here: ${whyNot}`);
  process.exit(2);
}
const startedMs = systemClock.monotonicMs();
const rows: Row[] = [];
for (const suite of suites) rows.push(...(await proveSuite(suite)));
const wrong = rows.filter((row) => !row.isRight);
const changed = rows.reduce((sum, row) => sum + row.changed, 0);
const missed = rows.reduce((sum, row) => sum + row.missed, 0);
say(
  `${rows.length} disks on ${suites.length} kernels: ${changed} changed granules, ${missed} missed, ${wrong.length} rows wrong, ${secondsSince(startedMs)} s`,
);
if (values.json === true) process.stdout.write(`${JSON.stringify({ rows, changed, missed, wrong: wrong.length }, undefined, 1)}\n`);
if (wrong.length > 0 || rows.length === 0) process.exitCode = 1;
