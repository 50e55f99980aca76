// The ARM error envelope: Azure's own code where it documents one, and a Fault's causes, action and evidence where its clients look for them.

import type { z } from "zod";
import { Fault, toReport, type Evidence, type FaultCode, type FaultOptions, type FaultReport } from "../../contract/errors.ts";

export interface ArmError {
  readonly code: string;
  readonly message: string;
  readonly target?: string;
  readonly details: readonly { readonly code: string; readonly message: string; readonly target: string }[];
  readonly additionalInfo: readonly [{ readonly type: "WatariFault"; readonly info: FaultReport }];
}

/** Codes that Azure documents for what a Fault of this kind says; other kinds keep their own name. The table of docs/api/errors.md. */
export const armCodes: Partial<Record<FaultCode, string>> = {
  InputInvalid: "InvalidRequestContent",
  NotFound: "ResourceNotFound",
  StateConflict: "Conflict",
  Unauthorized: "InvalidAuthenticationToken",
  Forbidden: "AuthorizationFailed",
  OperationNotSupported: "MethodNotAllowed",
  Internal: "InternalServerError",
  MediaTypeUnsupported: "UnsupportedMediaType",
  BodyTooLarge: "RequestEntityTooLarge",
};

/** A Fault of the API itself, with the code that Azure's clients know for exactly this case and the part of the call that it is about. */
export class ArmFault extends Fault {
  readonly armCode: string;
  readonly target: string | undefined;

  constructor(code: FaultCode, armCode: string, message: string, options: FaultOptions & { readonly target?: string } = {}) {
    super(code, message, options);
    this.armCode = armCode;
    this.target = options.target;
  }
}

/** Details carry causes and action as text, for clients that show only those; additionalInfo carries the whole report. */
export function toArmError(report: FaultReport, exact?: { readonly armCode: string; readonly target: string | undefined }): ArmError {
  return {
    code: exact?.armCode ?? armCodes[report.id] ?? report.id,
    message: report.message,
    ...(exact?.target === undefined ? {} : { target: exact.target }),
    details: [
      ...report.causes.map((message) => ({ code: "PossibleCause", message, target: "causes" })),
      { code: "RecommendedAction", message: report.action, target: "action" },
    ],
    additionalInfo: [{ type: "WatariFault", info: report }],
  };
}

export function toErrorBody(fault: Fault): { readonly error: ArmError } {
  return { error: toArmError(toReport(fault), fault instanceof ArmFault ? fault : undefined) };
}

const issuesMax = 20;

/** Parses a body or query; what is wrong becomes evidence. */
export function parseInput<Shape extends z.ZodType>(shape: Shape, value: unknown, what: string): z.infer<Shape> {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.slice(0, issuesMax);
  const evidence: Evidence = { problems: issues.map((issue) => `${issue.path.join(".") || "(whole)"}: ${issue.message}`) };
  const first = issues[0]?.path.join(".");
  throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not read ${what}: a value is missing or has the wrong form`, {
    evidence,
    ...(first === undefined || first === "" ? {} : { target: first }),
  });
}
