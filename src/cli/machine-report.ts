// `watari machine report`: the signed equality report of a machine's migration, with the digests of single blocks where they are asked for.

import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import {
  equalityPagesShape,
  equalityReportShape,
  toEqualityFileText,
  type EqualityPages,
  type EqualityReport,
} from "../contract/equality-report.ts";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { listJobs } from "./job.ts";
import { printAnswer } from "./output.ts";
import { openSession } from "./session.ts";
import { vaultPath } from "./vault.ts";

interface Options {
  readonly vault: string;
  readonly job?: string;
  readonly out?: string;
  readonly block: readonly BlockWish[];
  readonly allBlocks?: boolean;
  readonly json?: boolean;
  readonly profile?: string;
}

interface BlockWish {
  readonly diskId: string;
  readonly block: number;
}

const blocksPerCall = 64;
const reportAnswerShape = z.object({ report: z.string() });
const pagesAnswerShape = z.object({ pages: equalityPagesShape });

export function registerMachineReport(verb: (usage: string, description: string) => Command): void {
  verb("report <name>", "the signed report that source and replica were equal when the machine was cut over; check it with `report verify`")
    .option("--job <id>", "of this migration (default: the machine's last one that compared anything)")
    .option("--out <file>", "write it to a file, which needs no hub to be checked")
    .option("--block <disk:block>", "with the digests around this block; may be repeated", collectBlock, [])
    .option("--all-blocks", "with the digests of every block: half a MiB for each GiB of a disk")
    .action(async (name: string, options: Options) => {
      await using session = await openSession(options);
      const { arm } = session;
      const found = await findReport(arm, name, options);
      const report = readUnchecked(found.text);
      const wishes = options.allBlocks === true ? blocksOf(report) : options.block;
      const pages = await fetchPages(arm, found.jobPath, wishes);
      const text = toEqualityFileText({ format: "watari-equality-report", report: found.text, pages });
      if (options.out !== undefined) await writeFile(options.out, text);
      const answer = { report, pageCount: Object.keys(pages).length, ...(options.out === undefined ? {} : { file: options.out }) };
      printAnswer(session.style, answer, () => describe(report, options.out));
    });
}

async function findReport(
  arm: ArmClient,
  name: string,
  { vault, job }: Options,
): Promise<{ readonly jobPath: string; readonly text: string }> {
  const jobs = (await listJobs(arm, vault)).filter(
    ({ name: jobId, properties }) =>
      properties.scenarioName === "UnplannedFailover" && (job === undefined ? properties.targetObjectName === name : jobId === job),
  );
  for (const { name: jobId } of jobs) {
    const jobPath = `${vaultPath(arm.groupPath, vault)}/replicationJobs/${jobId}`;
    const text = await askReport(arm, jobPath);
    if (text !== undefined) return { jobPath, text };
  }
  throw new Fault("NotFound", `could not find an equality report of ${name}`, {
    evidence: { migrations: jobs.length },
    causes: ["the machine was not migrated yet", "its migrations landed from earlier points, so nothing was compared"],
    action: `list the jobs (watari job list --vault ${vault}) and name one with --job`,
  });
}

async function askReport(arm: ArmClient, jobPath: string): Promise<string | undefined> {
  try {
    return reportAnswerShape.parse(await arm.change("POST", `${jobPath}/equalityReport`, {})).report;
  } catch (error) {
    if (error instanceof Fault && error.code === "NotFound") return undefined;
    throw error;
  }
}

async function fetchPages(arm: ArmClient, jobPath: string, wishes: readonly BlockWish[]): Promise<EqualityPages> {
  const pages: EqualityPages = {};
  for (const [diskId, ofDisk] of Map.groupBy(wishes, (wish) => wish.diskId))
    for (let at = 0; at < ofDisk.length; at += blocksPerCall) {
      const blocks = ofDisk.slice(at, at + blocksPerCall).map(({ block }) => block);
      Object.assign(pages, pagesAnswerShape.parse(await arm.change("POST", `${jobPath}/equalityPages`, { diskId, blocks })).pages);
    }
  return pages;
}

/** One block of each page: a page tells the digests of all its blocks. */
function blocksOf({ disks, idsPerPage }: EqualityReport): readonly BlockWish[] {
  return disks.flatMap(({ diskId, blockCount }) =>
    Array.from({ length: Math.ceil(blockCount / idsPerPage) }, (_, page) => ({ diskId, block: page * idsPerPage })),
  );
}

/** For showing it; whether it is what a hub signed is for `report verify` to say. */
function readUnchecked(text: string): EqualityReport {
  return equalityReportShape.parse(JSON.parse(Buffer.from(text.split(".")[1] ?? "", "base64url").toString("utf8")));
}

function describe({ machineName, isEqual, pointId, disks }: EqualityReport, file: string | undefined): string {
  return [
    `${machineName}: ${isEqual ? "source and replica were equal" : "SOURCE AND REPLICA DIFFERED"} at the final point ${pointId}`,
    ...disks.map(({ diskId, sizeBytes, replicaRoot, isEqual: isDiskEqual }) =>
      [`disk ${diskId}:`, `${sizeBytes} bytes,`, isDiskEqual ? "equal," : "NOT EQUAL,", `root ${replicaRoot}`].join(" "),
    ),
    file === undefined
      ? "--out FILE writes the signed report"
      : `signed report in ${file}; check it with: watari report verify ${file} --ca CA`,
  ].join("\n");
}

function collectBlock(value: string, before: readonly BlockWish[]): readonly BlockWish[] {
  const [diskId = "", block = ""] = /^(.+):(\d+)$/.exec(value)?.slice(1) ?? [];
  if (diskId === "") throw new Fault("InputInvalid", `could not read --block ${value}: it takes DISKID:BLOCK`);
  return [...before, { diskId, block: Number(block) }];
}
