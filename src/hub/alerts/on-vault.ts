// What the resources of alerts on a vault share: the check that it is a vault, and the answer of a test.

import { Fault, toReport, type FaultReport } from "../../contract/errors.ts";
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

interface TestAnswer {
  readonly outcome: "sent" | "failed";
  readonly evidence: Readonly<Record<string, unknown>>;
  readonly fault?: FaultReport;
}

export function testAnswerOf(delivery: Delivery): TestAnswer {
  if (delivery.kind === "sent") return { outcome: "sent", evidence: delivery.evidence };
  return { outcome: "failed", evidence: delivery.fault.evidence, fault: toReport(delivery.fault) };
}
