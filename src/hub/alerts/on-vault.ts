// What the resources of alerts on a vault share: the check that it is a vault, and the answer of a test.

import { z } from "zod";
import { Fault, toReport } from "../../contract/errors.ts";
import { faultReportShape } from "../../contract/shapes.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { Delivery } from "./delivery.ts";

const vaultType = "Microsoft.RecoveryServices/vaults";

export function requireVault(id: ResourceId): void {
  const parent = parseResourceId(id.parentText);
  if (parent.type.toLowerCase() === vaultType.toLowerCase()) return;
  throw new Fault("InputInvalid", `could not save ${id.name}: alerts are those of a vault`, {
    evidence: { resourceId: id.text, expected: `<vault>/providers/${id.type}/${id.name}` },
  });
}

export const testAnswerShape = z.object({
  outcome: z.enum(["sent", "failed"]),
  evidence: z.record(z.string(), z.unknown()),
  fault: faultReportShape.optional(),
});

export function testAnswerOf(delivery: Delivery): z.infer<typeof testAnswerShape> {
  if (delivery.kind === "sent") return { outcome: "sent", evidence: delivery.evidence };
  return { outcome: "failed", evidence: delivery.fault.evidence, fault: toReport(delivery.fault) };
}
