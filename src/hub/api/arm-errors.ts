// The ARM error envelope: a Fault's id, message, causes, action and evidence where Azure's clients look for them.

import type { z } from "zod";
import { Fault, toReport, type Evidence, type FaultReport } from "../../contract/errors.ts";

export interface ArmError {
  readonly code: string;
  readonly message: string;
  readonly details: readonly { readonly code: string; readonly message: string; readonly target: string }[];
  readonly additionalInfo: readonly [{ readonly type: "WatariFault"; readonly info: FaultReport }];
}

/** Details carry causes and action as text, for clients that show only those; additionalInfo carries the whole report. */
export function toArmError(report: FaultReport): ArmError {
  return {
    code: report.id,
    message: report.message,
    details: [
      ...report.causes.map((message) => ({ code: "PossibleCause", message, target: "causes" })),
      { code: "RecommendedAction", message: report.action, target: "action" },
    ],
    additionalInfo: [{ type: "WatariFault", info: report }],
  };
}

export function toErrorBody(fault: Fault): { readonly error: ArmError } {
  return { error: toArmError(toReport(fault)) };
}

const issuesMax = 20;

/** Parses a body or query; what is wrong becomes evidence. */
export function parseInput<Shape extends z.ZodType>(shape: Shape, value: unknown, what: string): z.infer<Shape> {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const evidence: Evidence = {
    problems: parsed.error.issues.slice(0, issuesMax).map((issue) => `${issue.path.join(".") || "(whole)"}: ${issue.message}`),
  };
  throw new Fault("InputInvalid", `could not read ${what}: a value is missing or has the wrong form`, { evidence });
}
