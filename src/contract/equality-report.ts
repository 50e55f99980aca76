// The equality report of a migration: what source and replica told of each disk, as the hub signs it, and the file that carries it.

import { z } from "zod";
import { countShape, digestShape, diskIdShape, machineIdShape, pointIdShape, timestampShape } from "./shapes.ts";

/** `typ` of the signed document. */
export const equalityReportType = "watari-equality-report";

const reportDiskShape = z.strictObject({
  diskId: diskIdShape,
  sizeBytes: countShape,
  blockCount: countShape,
  isBoot: z.boolean(),
  /** Ranges that were not replicated: zeros on both sides of the comparison. */
  excluded: z.array(z.strictObject({ offset: countShape, length: countShape })).max(256),
  /** Root that the agent computed of the frozen disk; null: it told none. */
  sourceRoot: digestShape.nullable(),
  /** Root of the disk in the recovery point. */
  replicaRoot: digestShape,
  isEqual: z.boolean(),
});

export const equalityReportShape = z.strictObject({
  version: z.literal(1),
  isEqual: z.boolean(),
  jobId: z.guid(),
  vaultId: z.string().max(2048),
  itemId: z.string().max(2048),
  machineName: z.string().max(255),
  machineId: machineIdShape,
  pointId: pointIdShape,
  /** The instant that the point shows. */
  pointTime: timestampShape,
  quiesceOrderedAt: timestampShape,
  quiescedAt: timestampShape,
  frozenMs: z.number().nonnegative().optional(),
  /** Before the freeze the whole source was compared with the replica; what differed was sent again. */
  verification: z.strictObject({
    repairedBlockCount: countShape,
    /** The first of them that nobody was seen to write. */
    repairedBlocks: z.array(z.strictObject({ diskId: diskIdShape, block: countShape })).max(16),
  }),
  /** Points that were sent while the source ran on. */
  rounds: z.array(z.strictObject({ pointId: pointIdShape, sentBytes: countShape })).max(100),
  /** Roots are of SHA-256 over blocks of this size, in pages of so many ids: docs/design/vault-format.md. */
  blockBytes: countShape,
  idsPerPage: countShape,
  disks: z.array(reportDiskShape).min(1).max(64),
});
export type EqualityReport = z.infer<typeof equalityReportShape>;

/** Pages of the disks' trees by their digests: what leads from a signed root to the digests of single blocks. */
export const equalityPagesShape = z.record(digestShape, z.base64().max(8192));
export type EqualityPages = z.infer<typeof equalityPagesShape>;

export const equalityFileShape = z.strictObject({
  format: z.literal("watari-equality-report"),
  /** The signed document: a JWS in its compact form. */
  report: z.string().max(1 << 20),
  pages: equalityPagesShape,
});
export type EqualityFile = z.infer<typeof equalityFileShape>;

/** The only way to write such a file: any other spelling of the same content is not one. */
export function toEqualityFileText(file: EqualityFile): string {
  return `${JSON.stringify({ format: file.format, report: file.report, pages: file.pages }, undefined, 1)}\n`;
}
