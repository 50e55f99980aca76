// The demo's report: what was measured, and the one rule that turns it into "ok".

import { writeFileAtomic } from "../../src/base/atomic-file.ts";

export interface DemoStep {
  readonly name: string;
  readonly seconds: number;
}

export interface DemoDisk {
  readonly id: string;
  readonly sizeBytes: number;
  /** Merkle root that the agent computed from the source after the quiesce. */
  readonly sourceRoot: string;
  /** Merkle root of the final recovery point in the vault. */
  readonly targetRoot: string;
}

export interface DemoMeasurements {
  readonly seconds: number;
  readonly steps: readonly DemoStep[];
  /** From the appliance's first start, every hop checked, to registered: machine time, for no person is in between. */
  readonly setupSeconds: number;
  readonly disks: readonly DemoDisk[];
  readonly recoveryPoints: number;
  readonly replication: {
    readonly readBytes: number;
    readonly sentBytes: number;
    readonly storedBytes: number;
    readonly initialSeconds: number;
  };
  readonly agent: {
    readonly residentBytes: number;
    readonly cpuSeconds: number;
    readonly longestFreezeMs: number;
    readonly tracking: readonly string[];
  };
  readonly testMigration: {
    readonly orderToProbeSeconds: number;
    readonly hydrationSeconds: number;
    readonly rawBootToProbeSeconds: number;
  };
  /** Of a demo with --upgrade: what the guest said of it. */
  readonly upgrade?: { readonly to: string; readonly text: string; readonly seconds: number };
  readonly ledger: {
    /** Last record that the source acknowledged. */
    readonly lastBefore: number;
    /** First record that the landed machine wrote. */
    readonly firstAfter: number;
    readonly missing: number;
    readonly damaged: number;
    readonly downtimeSeconds: number;
  };
  /** Packets that tried a way that the closed network forbids. */
  readonly forbiddenPackets: number;
  /** Who they were, as far as the filters kept it: "zone: from to address protocol port: packets". */
  readonly forbiddenFlows: readonly string[];
  /** What was still there after the clean-up. */
  readonly leftovers: readonly string[];
}

export interface DemoReport extends DemoMeasurements {
  readonly ok: boolean;
  /** Why ok is false, a sentence each. */
  readonly problems: readonly string[];
}

const setupSecondsMax = 180;
/** A judgement on speed, with so much to spare that other work of the machine does not matter. */
const slowSetup = `the appliance's set-up from first start to registered took longer than ${setupSecondsMax} s`;

/** The other judgement on speed: both times are of the same minutes, but other work of the machine may fall on one of them only. */
export const slowTestMigration = "the test migration took longer than 1.3 × a boot from a local file plus 10 s";

/** Every sentence that keeps the measurements from being a proof. */
export function problemsOf(measured: DemoMeasurements): readonly string[] {
  const problems: string[] = [];
  const expect = (holds: boolean, sentence: string): void => {
    if (!holds) problems.push(sentence);
  };
  expect(measured.steps.length > 0, "no step was run");
  expect(measured.disks.length >= 2, `${measured.disks.length} disks were compared, the source has 2`);
  for (const disk of measured.disks) {
    expect(disk.sourceRoot.length === 64 && disk.sourceRoot === disk.targetRoot, `the roots of disk ${disk.id} differ`);
  }
  expect(measured.recoveryPoints >= 2, `only ${measured.recoveryPoints} recovery points were made`);
  const { readBytes, sentBytes, storedBytes } = measured.replication;
  expect(readBytes > 0 && sentBytes > 0 && storedBytes > 0, "replication moved nothing");
  expect(measured.setupSeconds > 0, "the appliance's set-up was not measured");
  expect(measured.setupSeconds <= setupSecondsMax, slowSetup);
  const { orderToProbeSeconds, rawBootToProbeSeconds } = measured.testMigration;
  expect(orderToProbeSeconds > 0 && rawBootToProbeSeconds > 0, "the test migration was not measured");
  expect(orderToProbeSeconds <= 1.3 * rawBootToProbeSeconds + 10, slowTestMigration);
  const { lastBefore, firstAfter, missing, damaged } = measured.ledger;
  expect(lastBefore > 0, "the ledger of the source was never read");
  expect(firstAfter === lastBefore + 1, `the ledger goes on at ${firstAfter} after ${lastBefore}`);
  expect(missing === 0, `${missing} ledger records are missing`);
  expect(damaged === 0, `${damaged} ledger records are damaged`);
  const flows = measured.forbiddenFlows.length === 0 ? "" : ` (${measured.forbiddenFlows.join("; ")})`;
  expect(measured.forbiddenPackets === 0, `${measured.forbiddenPackets} packets tried a forbidden way${flows}`);
  expect(measured.leftovers.length === 0, `left behind: ${measured.leftovers.join(", ")}`);
  return problems;
}

export function toReport(measured: DemoMeasurements): DemoReport {
  const problems = problemsOf(measured);
  return { ok: problems.length === 0, problems, ...measured };
}

export async function writeReport(path: string, report: DemoReport): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(report, undefined, 2)}\n`, { mode: 0o644 });
}
