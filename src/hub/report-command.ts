// `watari report`: checks a signed equality report without any hub, down to single blocks, and holds disks against it.

import { readFile, stat } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import { printAnswer } from "../cli/output.ts";
import { equalityFileShape, equalityReportShape, equalityReportType, toEqualityFileText } from "../contract/equality-report.ts";
import type { EqualityFile, EqualityReport } from "../contract/equality-report.ts";
import { Fault } from "../contract/errors.ts";
import { blockIdOf } from "../disk/block-id.ts";
import { computeRoot } from "../disk/compute-root.ts";
import type { Disk } from "../disk/disk.ts";
import { idFromHex, idOf, isZeroId, toHex } from "../disk/digest.ts";
import { withExcludedRanges } from "../disk/excluded-disk.ts";
import { openFileDisk } from "../disk/file-disk.ts";
import { idAt, pageLevelsOf } from "../disk/page-tree.ts";
import { checkDocument } from "./pki/document-signer.ts";

interface Options {
  readonly ca: string;
  readonly disk: readonly string[];
  readonly json?: boolean;
}

/** A report with the pages of some thousand GiB. */
const fileBytesMax = 512 << 20;
const shownBlocksMax = 64;

export function registerReportCommand(program: Command): void {
  const noun = program.command("report").description("signed reports of migrations");
  noun
    .command("verify <file>")
    .description("check a report of `machine report` without a hub; exit code 0 only when it is whole and says that all disks were equal")
    .requiredOption("--ca <file>", "certificate of the hub's authority: a PEM file, or a profile or operator file of that hub")
    .option("--disk <id=path>", "also hold this disk image or device against the report; may be repeated", collect, [])
    .option("--json", "answer as JSON on stdout")
    .action(async (file: string, options: Options) => {
      const checked = await checkReportFile(await readBounded(file), await readAuthorityFile(options.ca));
      const disks: HeldDisk[] = [];
      for (const wish of options.disk) disks.push(await holdAgainst(checked, wish));
      printAnswer({ asJson: options.json === true }, { ...checked, leaves: undefined, comparedDisks: disks }, () =>
        describe(checked, disks),
      );
      if (!checked.report.isEqual || disks.some(({ isEqual }) => !isEqual)) process.exitCode = 5;
    });
}

export interface CheckedReport {
  readonly report: EqualityReport;
  readonly signedAt: string;
  /** Blocks whose digests the file proves, by disk. */
  readonly shownBlocks: Readonly<Record<string, number>>;
  /** Ids of those blocks: a page of level 1 by the index of it. */
  readonly leaves: ReadonlyMap<string, ReadonlyMap<number, Uint8Array>>;
}

/** Fault SignatureInvalid when any byte is not what the hub wrote. */
export async function checkReportFile(text: string, caPem: string): Promise<CheckedReport> {
  const file = readFileText(text);
  const { document, signedAt } = await checkDocument(file.report, { type: equalityReportType, caPem });
  const report = equalityReportShape.parse(document);
  const pages = new Map<string, Uint8Array>();
  for (const [id, content] of Object.entries(file.pages)) {
    const page = Buffer.from(content, "base64");
    if (page.toString("base64") !== content || toHex(idOf(page)) !== id) throw changed(`page ${id} is not what its digest says`);
    pages.set(id, page);
  }
  const used = new Set<string>();
  const leaves = new Map(report.disks.map((disk) => [disk.diskId as string, findLeaves(disk, pages, used)]));
  for (const id of pages.keys()) if (!used.has(id)) throw changed(`page ${id} is of no disk of the report`);
  const shownBlocks = Object.fromEntries(
    report.disks.map(({ diskId, blockCount }) => [diskId, countBlocks(leaves.get(diskId), { blockCount, idsPerPage: report.idsPerPage })]),
  );
  return { report, signedAt, shownBlocks, leaves };
}

function readFileText(text: string): EqualityFile {
  let file: EqualityFile;
  try {
    file = equalityFileShape.parse(JSON.parse(text));
  } catch (error) {
    throw new Fault("SignatureInvalid", "could not trust the report: the file is not one", { cause: error });
  }
  if (toEqualityFileText(file) !== text) throw changed("the file is not written as the hub's tool writes it");
  return file;
}

/** Follows the pages that are there from the signed root down; what is not there was not asked for. */
function findLeaves(
  disk: EqualityReport["disks"][number],
  pages: ReadonlyMap<string, Uint8Array>,
  used: Set<string>,
): ReadonlyMap<number, Uint8Array> {
  const leaves = new Map<number, Uint8Array>();
  const follow = (id: Uint8Array, level: number, index: number): void => {
    const page = pages.get(toHex(id));
    if (page === undefined || isZeroId(id)) return;
    used.add(toHex(id));
    if (level === 1) return void leaves.set(index, page);
    const slots = page.length / id.length;
    for (let slot = 0; slot < slots; slot++) follow(idAt(page, slot), level - 1, index * slots + slot);
  };
  follow(idFromHex(disk.replicaRoot), pageLevelsOf(disk.blockCount), 0);
  return leaves;
}

function countBlocks(
  leaves: ReadonlyMap<number, Uint8Array> | undefined,
  { blockCount, idsPerPage }: { readonly blockCount: number; readonly idsPerPage: number },
): number {
  return [...(leaves?.keys() ?? [])].reduce((sum, index) => sum + Math.min(idsPerPage, blockCount - index * idsPerPage), 0);
}

interface HeldDisk {
  readonly diskId: string;
  readonly path: string;
  readonly isEqual: boolean;
  /** Of the blocks whose digests the file has: those that differ, the first of them; absent when the file has none. */
  readonly differingBlocks?: readonly number[];
}

/** An image or a device beside what the report says of the disk. */
export async function holdAgainst({ report, leaves }: CheckedReport, wish: string): Promise<HeldDisk> {
  const [diskId = "", path = ""] = /^([^=]+)=(.+)$/.exec(wish)?.slice(1) ?? [];
  const told = report.disks.find((each) => each.diskId === diskId);
  if (told === undefined || path === "")
    throw new Fault("InputInvalid", `could not hold a disk against the report: ${wish} is no DISKID=PATH of it`, {
      evidence: { disks: report.disks.map((each) => each.diskId) },
    });
  await using disk = withExcludedRanges(await openFileDisk(path, { access: "read" }), told.excluded);
  const isEqual = disk.sizeBytes === told.sizeBytes && (await computeRoot(disk)) === told.replicaRoot;
  const shown = leaves.get(diskId);
  if (isEqual || shown === undefined || shown.size === 0) return { diskId, path, isEqual };
  return { diskId, path, isEqual, differingBlocks: await findDiffering(disk, shown, report) };
}

async function findDiffering(disk: Disk, leaves: ReadonlyMap<number, Uint8Array>, report: EqualityReport): Promise<readonly number[]> {
  const { blockBytes, idsPerPage } = report;
  const differing: number[] = [];
  for (const [index, page] of [...leaves].toSorted(([one], [other]) => one - other))
    for (let slot = 0; slot < idsPerPage; slot++) {
      const block = index * idsPerPage + slot;
      if (block * blockBytes >= disk.sizeBytes || differing.length === shownBlocksMax) break;
      const bytes = Buffer.alloc(blockBytes);
      await disk.read(block * blockBytes, bytes.subarray(0, Math.min(blockBytes, disk.sizeBytes - block * blockBytes)));
      if (Buffer.compare(blockIdOf(bytes), idAt(page, slot)) !== 0) differing.push(block);
    }
  return differing;
}

function describe({ report, signedAt, shownBlocks }: CheckedReport, held: readonly HeldDisk[]): string {
  const { machineName, pointId, pointTime, verification } = report;
  return [
    `${machineName}: ${report.isEqual ? "source and replica were equal" : "SOURCE AND REPLICA DIFFERED"}`,
    `signed      ${signedAt}, by the hub of this authority; not one byte was changed`,
    `point       ${pointId} of ${pointTime}`,
    `repaired    ${verification.repairedBlockCount} blocks before the freeze`,
    ...report.disks.flatMap(({ diskId, sizeBytes, sourceRoot, replicaRoot, isEqual }) => [
      `disk ${diskId}: ${sizeBytes} bytes, ${isEqual ? "equal" : "NOT EQUAL"}, digests of ${shownBlocks[diskId] ?? 0} blocks in the file`,
      `  source    ${sourceRoot ?? "told none"}`,
      `  replica   ${replicaRoot}`,
    ]),
    ...held.map(({ diskId, path, isEqual, differingBlocks = [] }) =>
      isEqual
        ? `${path} is disk ${diskId} of the report`
        : `${path} is NOT disk ${diskId} of the report${differingBlocks.length === 0 ? "" : `: blocks ${differingBlocks.join(", ")} differ`}`,
    ),
  ].join("\n");
}

async function readBounded(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size > fileBytesMax)
    throw new Fault("InputInvalid", "could not read the report: the file is too large", { evidence: { path, size } });
  return await readFile(path, "utf8");
}

/** A PEM file, or a JSON file that has one. */
export async function readAuthorityFile(path: string): Promise<string> {
  const text = await readBounded(path);
  if (!text.trimStart().startsWith("{")) return text;
  const found = z.looseObject({ caPem: z.string() }).safeParse(JSON.parse(text));
  if (found.success) return found.data.caPem;
  throw new Fault("InputInvalid", "could not read the certificate of the hub's authority: the file has no caPem", { evidence: { path } });
}

function changed(reason: string): Fault {
  return new Fault("SignatureInvalid", `could not trust the report: ${reason}`);
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}
