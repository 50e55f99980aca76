// From the rounds of bench/replication.ts to its claims: what is compared with what, and which bar each has.

import { atMost, extra, timesLess, timesMore, withinLimit, type Claim } from "./claim.ts";
import type { PointRun } from "./data-path-pair.ts";
import { median, type Measured } from "./measured.ts";

export type Figures = Measured;

export interface Round {
  /** First copies by the peers' names. */
  readonly first: Readonly<Record<string, Figures>>;
  /** Their second generation, found by reading everything. */
  readonly again: Readonly<Record<string, Figures>>;
  readonly initial: PointRun;
  readonly changed: PointRun;
  /** Tracking was lost before it. */
  readonly rescan: PointRun;
  readonly bitmapCopy?: Figures;
  readonly restore: Readonly<Record<string, Figures>>;
  readonly nbd: Readonly<Record<string, { readonly seconds: number; readonly iops: number }>>;
}

export interface Facts {
  readonly changedBytes: number;
  /** The reference job of 8 GiB: promises in seconds are of it. */
  readonly isFull: boolean;
  /** What `zstd -1` makes of the whole image; undefined without it. */
  readonly compressedBytes: number | undefined;
}

/** First copy: how many times faster than each peer in the fastest of its settings, which are the names that begin so. */
const firstBars: Readonly<Record<string, number>> = {
  "nbdcopy over TLS to a file": 2,
  "qemu-img convert -c (zstd)": 2,
  restic: 2,
  "borg, fixed 64 KiB, zstd": 4,
  casync: 4,
};
/** Beside them for the reader: what writes nowhere does less than we do, what is flushed does as much. */
const firstExtras: readonly string[] = ["nbdcopy over TLS to nowhere", "nbdcopy over TLS to a file, nbdkit, flushed"];
const zstd = "zstd -1 -T0 to nowhere";

export function toClaims(rounds: readonly Round[], facts: Facts): readonly Claim[] {
  return [
    ...firstClaims(rounds, facts),
    ...changeClaims(rounds, facts),
    ...rescanClaims(rounds),
    ...restoreClaims(rounds),
    ...nbdClaims(rounds),
  ];
}

function firstClaims(rounds: readonly Round[], facts: Facts): readonly Claim[] {
  const claim = "first copy, TLS, deduplicated, zstd, verified on receipt";
  const ours = rounds.map(({ initial }) => initial.wallSeconds);
  const theirs = (peer: string): number[] => rounds.flatMap(({ first }) => first[peer]?.wallSeconds ?? []);
  const beside = Object.entries(firstBars).flatMap(([program, bar]) => {
    const peer = fastestOf(rounds, program);
    return peer === undefined ? [] : [timesLess({ claim, ours, unit: "s", peer, theirs: theirs(peer), bar })];
  });
  const extras = firstExtras.flatMap((peer) =>
    theirs(peer).length === 0 ? [] : [extra(timesLess({ claim, ours, unit: "s", peer, theirs: theirs(peer), bar: 2 }))],
  );
  const compressor = theirs(zstd).length === 0 ? [] : [atMost({ claim, ours, unit: "s", peer: zstd, theirs: theirs(zstd), bar: 1.4 })];
  const stored = storedClaims(rounds, facts);
  const cpu = rounds.map(({ initial }) => initial.cpuSeconds);
  const spent = facts.isFull
    ? [withinLimit("first copy of 8 GiB, processor time of both ends", { ours: cpu, unit: "CPU s", limit: 20 })]
    : [];
  return [...compressor, ...beside, ...extras, ...spent, ...processorClaims(rounds), ...stored];
}

/** The setting of a program with the lowest median. */
function fastestOf(rounds: readonly Round[], program: string): string | undefined {
  const names = Object.keys(rounds[0]?.first ?? {}).filter((name) => name.startsWith(program));
  const seconds = (name: string): number => median(rounds.flatMap(({ first }) => first[name]?.wallSeconds ?? []));
  return names.toSorted((one, other) => seconds(one) - seconds(other))[0];
}

/** The limit in seconds was set where `zstd -1 -T4` of the image took 11.4 of them; this holds on any machine. */
function processorClaims(rounds: readonly Round[]): readonly Claim[] {
  const theirs = rounds.flatMap(({ first }) => first[zstd]?.cpuSeconds ?? []);
  const ours = rounds.map(({ initial }) => initial.cpuSeconds);
  if (theirs.length === 0) return [];
  return [atMost({ claim: "first copy, processor time of both ends", ours, unit: "CPU s", peer: zstd, theirs, bar: 20 / 11.4 })];
}

function storedClaims(rounds: readonly Round[], { compressedBytes }: Facts): readonly Claim[] {
  if (compressedBytes === undefined) return [];
  const ours = rounds.map(({ initial }) => initial.storedBytes / 1e6);
  const theirs = rounds.map(() => compressedBytes / 1e6);
  return [atMost({ claim: "first copy, bytes stored", ours, unit: "MB", peer: "zstd -1 of the whole image", theirs, bar: 1.06 })];
}

function changeClaims(rounds: readonly Round[], { changedBytes, isFull }: Facts): readonly Claim[] {
  const claim = "1 % random 4 KiB changes, tracked";
  const ours = rounds.map(({ changed }) => changed.wallSeconds);
  const copies = rounds.flatMap(({ bitmapCopy }) => bitmapCopy?.wallSeconds ?? []);
  const sent = rounds.map(({ changed }) => changed.sentBytes / 1e6);
  return [
    ...(isFull ? [withinLimit(`${claim}, of 8 GiB`, { ours, unit: "s", limit: 0.5 })] : []),
    atMost({
      claim: `${claim}, bytes sent`,
      ours: sent,
      unit: "MB",
      peer: "bytes changed",
      theirs: rounds.map(() => changedBytes / 1e6),
      bar: 0.7,
    }),
    ...(copies.length === 0
      ? []
      : [timesLess({ claim, ours, unit: "s", peer: "QEMU's copy by dirty bitmap over TLS", theirs: copies, bar: 1 })]),
  ];
}

function rescanClaims(rounds: readonly Round[]): readonly Claim[] {
  const claim = "the same changes, tracking lost";
  const ours = rounds.map(({ rescan }) => rescan.wallSeconds);
  const initial = rounds.map((round) => round.initial.wallSeconds);
  const names = Object.keys(rounds[0]?.again ?? {});
  const fastest = names
    .map((peer) => ({ peer, theirs: rounds.flatMap(({ again }) => again[peer]?.wallSeconds ?? []) }))
    .toSorted((one, other) => Math.min(...one.theirs) - Math.min(...other.theirs))[0];
  return [
    atMost({ claim, ours, unit: "s", peer: "our first copy", theirs: initial, bar: 0.45 }),
    ...(fastest === undefined ? [] : [timesLess({ claim, ours, unit: "s", ...fastest, bar: 5 })]),
  ];
}

function restoreClaims(rounds: readonly Round[]): readonly Claim[] {
  const wall = (name: string): number[] => rounds.flatMap(({ restore }) => restore[name]?.wallSeconds ?? []);
  const compared: readonly (readonly [ours: string, peer: string, bar: number])[] = [
    ["ours, to nowhere", "borg extract, to nowhere", 4],
    ["ours, to a file", "restic restore, to a file", 1],
    ["ours, to a file", "qemu-img convert from compressed qcow2, to a file", 0.8],
  ];
  return compared.flatMap(([own, peer, bar]) =>
    wall(peer).length === 0
      ? []
      : [timesLess({ claim: `restore, every block verified${own.slice(4)}`, ours: wall(own), unit: "s", peer, theirs: wall(peer), bar })],
  );
}

function nbdClaims(rounds: readonly Round[]): readonly Claim[] {
  const seconds = (name: string): number[] => rounds.flatMap(({ nbd }) => nbd[name]?.seconds ?? []);
  const iops = (name: string): number[] => rounds.flatMap(({ nbd }) => nbd[name]?.iops ?? []);
  const compressed = "qemu-nbd, compressed qcow2";
  const random = { claim: "NBD, verified, random 4 KiB at depth 16", unit: "/s", bar: 1 };
  return [
    timesLess({
      claim: "NBD, verified, sequential",
      ours: seconds("ours"),
      unit: "s",
      peer: compressed,
      theirs: seconds(compressed),
      bar: 1,
    }),
    timesMore({ ...random, ours: iops("ours"), peer: compressed, theirs: iops(compressed) }),
  ];
}
