// Reads the ledger from outside: what the source acknowledged, what its disk holds after the fence, what the target goes on with.

import { createHash } from "node:crypto";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { runCommand } from "../../src/base/run-command.ts";
import { Fault } from "../../src/contract/errors.ts";
import { readPartitionTable } from "../../src/landing/hydration/partition-table.ts";
import type { LabPlace, Zone } from "../place.ts";
import { labExec } from "../processes.ts";

const recordBytes = 64;
const signedBytes = 40;
const magic = "WTRLEDG1";

const bootShape = z.object({ bootId: z.string(), first: z.number(), last: z.number(), firstTimeMs: z.number(), lastTimeMs: z.number() });
const verificationShape = z.object({
  last: z.number(),
  count: z.number(),
  missing: z.number(),
  damaged: z.number(),
  boots: z.array(bootShape).min(1),
});
export type LedgerVerification = z.infer<typeof verificationShape>;

const stateShape = z.object({ last: z.object({ sequence: z.number(), timeMs: z.number() }), bootId: z.string() });
export type LedgerState = z.infer<typeof stateShape>;

async function ask(place: LabPlace, zone: Zone, url: string): Promise<unknown> {
  const answer = await labExec(place, zone, ["curl", "-sf", "--noproxy", "*", "--max-time", "60", url]);
  if (answer.exitCode !== 0)
    throw new Fault("ProbeFailed", `could not read the ledger at ${url}`, { evidence: { url, curlExit: answer.exitCode } });
  return JSON.parse(answer.stdout);
}

export async function readLedger(place: LabPlace, zone: Zone, baseUrl: string): Promise<LedgerState> {
  return stateShape.parse(await ask(place, zone, `${baseUrl}/`));
}

/** The machine reads both of its files whole. */
export async function verifyLedger(place: LabPlace, zone: Zone, baseUrl: string): Promise<LedgerVerification> {
  return verificationShape.parse(await ask(place, zone, `${baseUrl}/verify`));
}

export interface LedgerTail {
  readonly last: number;
  readonly timeMs: number;
}

/**
 * The last whole record on the first disk of a machine that is off: read from the disk itself, so that it counts every record
 * that the source can ever have acknowledged, also those that nobody asked about.
 */
export async function readLedgerFromDisk(image: string, workFolder: string): Promise<LedgerTail> {
  const folder = await mkdtemp(join(workFolder, "ledger-"));
  try {
    const raw = join(folder, "disk.raw");
    await runCommand("qemu-img", ["convert", "-O", "raw", image, raw], { timeoutMs: 300_000 });
    const offset = await rootPartitionOffset(raw);
    const file = join(folder, "ledger.log");
    // A source that was cut off may need its journal replayed; this is a copy.
    await runCommand("sh", ["-c", 'e2fsck -fp "$1" >/dev/null 2>&1; test $? -le 1', "sh", `${raw}?offset=${offset}`], {
      timeoutMs: 300_000,
    });
    await runCommand("debugfs", ["-R", `dump /var/lib/ledger/ledger.log ${file}`, `${raw}?offset=${offset}`]);
    return lastRecord(await readFile(file));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The partition that holds the ledger is the largest of the first disk: the others are the boot loader's and swap. */
async function rootPartitionOffset(raw: string): Promise<number> {
  await using file = await open(raw, "r");
  const { size } = await file.stat();
  const { partitions } = await readPartitionTable({
    sizeBytes: size,
    readAt: async (offset, into) => void (await file.read(into, 0, into.length, offset)),
  });
  const [largest] = partitions.toSorted((one, other) => other.sizeBytes - one.sizeBytes);
  if (largest === undefined) throw new Fault("Internal", "could not find a partition on the source's first disk");
  return largest.offset;
}

function lastRecord(log: Buffer): LedgerTail {
  for (let offset = Math.floor(log.length / recordBytes) * recordBytes - recordBytes; offset >= 0; offset -= recordBytes) {
    const record = log.subarray(offset, offset + recordBytes);
    const sum = createHash("sha256").update(record.subarray(0, signedBytes)).digest();
    const isWhole =
      record.toString("latin1", 0, 8) === magic && sum.subarray(0, recordBytes - signedBytes).equals(record.subarray(signedBytes));
    if (isWhole) return { last: Number(record.readBigUInt64BE(8)), timeMs: Number(record.readBigUInt64BE(16)) };
  }
  throw new Fault("DataDamaged", "could not find one whole record in the source's ledger");
}
