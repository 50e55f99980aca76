// Prints the figures of the demo's report, and whether they keep what is promised of a whole migration.
// Run: node bench/demo.ts --report FILE, or --run to make the demo now; without either it says so and measures nothing.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { formatRows, runToEnd } from "./measured.ts";

const { values } = parseArgs({
  options: { report: { type: "string" }, run: { type: "boolean", default: false }, json: { type: "string" } },
});
const projectRoot = join(import.meta.dirname, "..");
/** A demo that is cached ends within 8 minutes, one on a fresh machine within 15. */
const demoSecondsMax = 15 * 60;

const secondsShape = z.number().nonnegative();
const reportShape = z.object({
  ok: z.boolean(),
  seconds: secondsShape,
  steps: z.array(z.object({ name: z.string(), seconds: secondsShape })),
  recoveryPoints: z.number(),
  replication: z.object({ readBytes: z.number(), sentBytes: z.number(), storedBytes: z.number() }),
  testMigration: z.object({ orderToProbeSeconds: secondsShape, hydrationSeconds: secondsShape, rawBootToProbeSeconds: secondsShape }),
  ledger: z.object({ missing: z.number(), damaged: z.number(), downtimeSeconds: secondsShape }),
  forbiddenPackets: z.number(),
});
type Report = z.infer<typeof reportShape>;

const report = await findReport();
if (report === undefined)
  console.log("demo: not measured; give --report FILE of `./watari demo --json FILE`, or --run to make it now (minutes)");
else print(report);

async function findReport(): Promise<Report | undefined> {
  if (values.report !== undefined) return await read(values.report);
  if (!values.run) return undefined;
  const folder = await mkdtemp(join(tmpdir(), "watari-bench-demo-"));
  try {
    const path = join(folder, "report.json");
    await runToEnd({ command: join(projectRoot, "watari"), args: ["demo", "--json", path] });
    return await read(path);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function read(path: string): Promise<Report> {
  return reportShape.parse(JSON.parse(await readFile(path, "utf8")));
}

function print({ ok, seconds, steps, testMigration, replication, ledger, forbiddenPackets, recoveryPoints }: Report): void {
  const figure = (value: number, unit: string): string => `${value.toFixed(1)} ${unit}`;
  const mb = (bytes: number): string => figure(bytes / 1e6, "MB");
  const bootAllowance = 1.3 * testMigration.rawBootToProbeSeconds + 10;
  const promises = [
    { name: "whole demo", value: figure(seconds, "s"), limit: `${demoSecondsMax} s`, isKept: seconds <= demoSecondsMax },
    {
      name: "test migration, order to probe",
      value: figure(testMigration.orderToProbeSeconds, "s"),
      limit: `1.3 x a raw boot of ${figure(testMigration.rawBootToProbeSeconds, "s")} + 10 s = ${figure(bootAllowance, "s")}`,
      isKept: testMigration.orderToProbeSeconds <= bootAllowance,
    },
    {
      name: "records missing or damaged",
      value: String(ledger.missing + ledger.damaged),
      limit: "0",
      isKept: ledger.missing + ledger.damaged === 0,
    },
    { name: "packets on forbidden ways", value: String(forbiddenPackets), limit: "0", isKept: forbiddenPackets === 0 },
  ];
  console.log(formatRows(steps.map((step) => [step.name, figure(step.seconds, "s")])));
  console.log(
    formatRows([
      ["promise", "measured", "at most", "kept"],
      ...promises.map((each) => [each.name, each.value, each.limit, each.isKept ? "yes" : "NO"]),
    ]),
  );
  const bytes = `read ${mb(replication.readBytes)}, sent ${mb(replication.sentBytes)}, stored ${mb(replication.storedBytes)}`;
  console.log(
    `hydration ${figure(testMigration.hydrationSeconds, "s")}, downtime ${figure(ledger.downtimeSeconds, "s")}, ${recoveryPoints} points, ${bytes}`,
  );
  if (!ok || promises.some((each) => !each.isKept)) process.exitCode = 1;
}
