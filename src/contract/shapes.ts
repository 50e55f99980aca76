// Schemas shared by every protocol: ids, timestamps, faults. Unknown input is parsed with these, once, at the edge.

import { z } from "zod";
import type { FaultCode, FaultReport } from "./errors.ts";
import { faultKinds } from "./fault-kinds.ts";
import { parseApplianceId, parseDigestHex, parseDiskId, parseMachineId, parseOrderId, parsePointId, parseVaultId } from "./ids.ts";

/** A schema of an id kind; the parser of that kind is the proof. */
function idSchema<Id extends string>(parse: (text: string) => Id): z.ZodType<Id, string> {
  return z.string().transform((text, context) => {
    try {
      return parse(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: error instanceof Error ? error.message : "not an id" });
      return z.NEVER;
    }
  });
}

export const machineIdShape = idSchema(parseMachineId);
export const diskIdShape = idSchema(parseDiskId);
export const pointIdShape = idSchema(parsePointId);
export const vaultIdShape = idSchema(parseVaultId);
export const applianceIdShape = idSchema(parseApplianceId);
export const orderIdShape = idSchema(parseOrderId);
export const digestShape = idSchema(parseDigestHex);

/** A count, size or offset that fits a double exactly. */
export const countShape = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
export const timestampShape = z.iso.datetime();

const isFaultCode = (text: string): text is FaultCode => Object.hasOwn(faultKinds, text);

/** A FaultReport; ids of newer peers are accepted and become Internal with the id kept as evidence. */
export const faultReportShape: z.ZodType<FaultReport> = z
  .object({
    id: z.string().max(80),
    message: z.string().max(4000),
    causes: z.array(z.string().max(1000)).max(20),
    action: z.string().max(2000),
    evidence: z.record(
      z.string().max(80),
      z.union([z.string().max(8000), z.number(), z.boolean(), z.array(z.string().max(2000)).max(100)]),
    ),
    retry: z.enum(["never", "later", "now"]),
  })
  .transform((report) =>
    isFaultCode(report.id)
      ? { ...report, id: report.id }
      : { ...report, id: "Internal" as const, evidence: { ...report.evidence, peerFaultId: report.id } },
  );
