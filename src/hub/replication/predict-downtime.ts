// How long a cut-over will keep the machine away, from what was measured of it and of others; and what became of the prediction.

import { sql } from "kysely";
import type { MachineId } from "../../contract/ids.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";

/** What the downtime is made of, in order. fence: the guest's own shutdown is in it. boot: up to the first answer, or the running processor. */
const partNames = ["freeze", "compare", "fence", "boot"] as const;
type PartName = (typeof partNames)[number];

export interface PredictedPart {
  readonly name: PartName;
  readonly seconds: number;
  readonly lowSeconds: number;
  readonly highSeconds: number;
  /** own: measured of this machine. others: of others of the vault. assumed: nothing is known yet. */
  readonly basis: "own" | "others" | "assumed";
  readonly sampleCount: number;
}

export interface DowntimePrediction {
  readonly seconds: number;
  readonly lowSeconds: number;
  readonly highSeconds: number;
  /** high: all that matters was measured of this machine. low: something that matters was never measured. */
  readonly confidence: "high" | "medium" | "low";
  readonly parts: readonly PredictedPart[];
}

export interface DowntimeComparison {
  readonly actualSeconds: number;
  readonly predictedSeconds: number;
  /** Of the prediction; positive: it took longer. */
  readonly differencePercent: number;
  readonly isWithinRange: boolean;
}

/** Seconds, newest first. */
export interface PartSamples {
  readonly own: readonly number[];
  readonly others: readonly number[];
}

/** Wide, because they are of no machine at all: seconds with the least and the most. */
const assumed: Readonly<Record<PartName, readonly [number, number, number]>> = {
  freeze: [5, 1, 60],
  compare: [0.5, 0.1, 5],
  fence: [10, 1, 90],
  boot: [45, 10, 240],
};
/** A part below this share of the whole does not matter for the confidence. */
const shareThatMatters = 0.1;
const ownStretch = 1.25;
const othersStretch = 2;
const samplesMax = 10;

/** Pure: from samples to seconds. */
export function predictDowntime(
  samples: Readonly<Record<PartName, PartSamples>>,
  wanted: readonly PartName[] = partNames,
): DowntimePrediction {
  const parts = wanted.map((name) => predictPart(name, samples[name]));
  const seconds = parts.reduce((sum, part) => sum + part.seconds, 0);
  // Parts vary by themselves, so their deviations add up as squares do.
  const deviation = (of: (part: PredictedPart) => number): number => Math.sqrt(parts.reduce((sum, part) => sum + of(part) ** 2, 0));
  const mattering = parts.filter((part) => Math.max(part.seconds, part.highSeconds - part.seconds) >= seconds * shareThatMatters);
  const bases = new Set(mattering.map(({ basis }) => basis));
  return {
    seconds: round(seconds),
    lowSeconds: round(Math.max(0, seconds - deviation((part) => part.seconds - part.lowSeconds))),
    highSeconds: round(seconds + deviation((part) => part.highSeconds - part.seconds)),
    confidence: bases.has("assumed") ? "low" : bases.has("others") ? "medium" : "high",
    parts,
  };
}

function predictPart(name: PartName, { own, others }: PartSamples): PredictedPart {
  const basis = own.length > 0 ? "own" : others.length > 0 ? "others" : "assumed";
  if (basis === "assumed") {
    const [seconds, lowSeconds, highSeconds] = assumed[name];
    return { name, seconds, lowSeconds, highSeconds, basis, sampleCount: 0 };
  }
  const used = (basis === "own" ? own : others).slice(0, samplesMax);
  const stretch = basis === "own" ? ownStretch : othersStretch;
  const sorted = used.toSorted((one, other) => one - other);
  const seconds = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const lowSeconds = round((sorted[0] ?? 0) / stretch);
  const highSeconds = round((sorted.at(-1) ?? 0) * stretch);
  return { name, seconds: round(seconds), lowSeconds, highSeconds, basis, sampleCount: used.length };
}

export function compareDowntime(prediction: DowntimePrediction, actualSeconds: number): DowntimeComparison {
  const { seconds: predictedSeconds, lowSeconds, highSeconds } = prediction;
  return {
    actualSeconds: round(actualSeconds),
    predictedSeconds,
    differencePercent: Math.round((100 * (actualSeconds - predictedSeconds)) / Math.max(predictedSeconds, 0.001)),
    isWithinRange: actualSeconds >= lowSeconds && actualSeconds <= highSeconds,
  };
}

export interface PredictionWish {
  readonly vaultKey: string;
  readonly itemId: string;
  readonly machineId: MachineId | undefined;
  /** Of a migration to an earlier point nothing is frozen or compared. */
  readonly hasFinalSync: boolean;
}

export async function predictFor(
  { database, appliances }: Pick<HubServices, "database" | "appliances">,
  wish: PredictionWish,
): Promise<DowntimePrediction> {
  const { vaultKey, itemId, machineId, hasFinalSync } = wish;
  const told = machineId === undefined ? undefined : (await appliances.machine(vaultKey, machineId))?.report.flow?.downtimeSeconds;
  const rows = await readSamples(database.db, vaultKey);
  const samplesOf = (part: PartName): PartSamples => {
    const ofPart = rows.filter((row) => row.part === part);
    const isOwn = (row: SampleRow): boolean => row.itemKey === itemId.toLowerCase();
    return {
      own: ofPart.filter(isOwn).map(({ seconds }) => seconds),
      others: ofPart.filter((row) => !isOwn(row)).map(({ seconds }) => seconds),
    };
  };
  const samples = { freeze: samplesOf("freeze"), compare: samplesOf("compare"), fence: samplesOf("fence"), boot: samplesOf("boot") };
  // The appliance knows the line and what waits to be sent now; what an earlier freeze took does not.
  const freeze = told === undefined ? samples.freeze : { ...samples.freeze, own: [told] };
  return predictDowntime({ ...samples, freeze }, hasFinalSync ? partNames : ["fence", "boot"]);
}

interface SampleRow {
  readonly part: PartName;
  readonly itemKey: string;
  readonly seconds: number;
}

const rowsMax = 400;

/** Of steps that ran through at once, newest first: rehearsals and tests tell how a machine boots, migrations all of it. */
async function readSamples(db: Queryable, vaultKey: string): Promise<readonly SampleRow[]> {
  const found = await sql<SampleRow>`select part, "itemKey", seconds from (
      select case s.name when 'quiesce' then 'freeze' when 'compare' then 'compare' when 'fence' then 'fence' else 'boot' end as part,
        lower(j.target_id) as "itemKey", sum(extract(epoch from s.ended_at - s.started_at))::float8 as seconds, max(s.ended_at) as ended
      from jobs j join job_steps s using (job_id)
      where j.scope = ${vaultKey} and j.kind in ('UnplannedFailover', 'TestFailover', 'Rehearsal', 'ApplyRecoveryPoint')
        and j.state = 'succeeded' and s.state = 'done' and s.evidence <> '{}'::jsonb and s.ended_at > now() - interval '90 days'
        and s.name in ('quiesce', 'compare', 'fence', 'launch', 'probe', 'actions', 'ask')
      group by j.job_id, j.target_id, 1 having max(s.attempt_count) = 1 order by ended desc limit ${rowsMax}) recent`.execute(db);
  return found.rows;
}

function round(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}
