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

/** Parses a body or query; what is wrong becomes evidence, by its path in the whole body. `at`: the path of `value` in it. */
export function parseInput<Shape extends z.ZodType>(shape: Shape, value: unknown, what: string, at = ""): z.infer<Shape> {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.flatMap((issue) => problemsOf(issue, at === "" ? [] : [at])).slice(0, issuesMax);
  const evidence: Evidence = { problems: problems.map(({ path, message }) => `${path || "(whole)"}: ${message}`) };
  const first = problems[0]?.path;
  throw new ArmFault("InputInvalid", "InvalidRequestContent", `could not read ${what}: ${problems[0]?.text ?? "it has the wrong form"}`, {
    evidence,
    ...(first === undefined || first === "" ? {} : { target: first }),
  });
}

interface Problem {
  readonly path: string;
  readonly message: string;
  /** For the first line of the answer. */
  readonly text: string;
}

const pathCharactersMax = 200;

/** An unknown member is told by its own path, not by that of the object which has it. */
function problemsOf(issue: z.core.$ZodIssue, above: readonly PropertyKey[]): readonly Problem[] {
  const path = [...above, ...issue.path];
  if (issue.code !== "unrecognized_keys") {
    const text = toPath(path);
    return [
      { path: text, message: issue.message, text: text === "" ? "it has the wrong form" : `${text} is missing or has the wrong form` },
    ];
  }
  return issue.keys.map((key) => {
    const text = toPath([...path, key]);
    return { path: text, message: "this member is not known here", text: `${text} is not known here` };
  });
}

function toPath(path: readonly PropertyKey[]): string {
  return path.map(String).join(".").slice(0, pathCharactersMax);
}
