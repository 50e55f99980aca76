// Every fault of the world that a person can meet, as a thrown Fault and as the report that crosses process edges.

import type { FaultKind, RetryAdvice } from "./fault-kind.ts";
import { faultKinds } from "./fault-kinds.ts";

export type FaultCode = keyof typeof faultKinds;

export type Evidence = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface FaultOptions {
  /** What was seen; printed to people, so never a secret. */
  readonly evidence?: Evidence;
  /** Replaces the table's action when a more exact one is known, best a command to run. */
  readonly action?: string;
  readonly causes?: readonly string[];
  readonly retry?: RetryAdvice;
  /** The private cause; never printed to other parties. */
  readonly cause?: unknown;
}

/** The shape that crosses process edges and is printed with --json. */
export interface FaultReport {
  readonly id: FaultCode;
  readonly message: string;
  readonly causes: readonly string[];
  readonly action: string;
  readonly evidence: Evidence;
  readonly retry: RetryAdvice;
}

/** A fault of the world. The message says what was being done, to what, and what went wrong: lower case, no full stop. */
export class Fault extends Error {
  readonly code: FaultCode;
  readonly causes: readonly string[];
  readonly action: string;
  readonly evidence: Evidence;
  readonly retry: RetryAdvice;

  constructor(code: FaultCode, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "Fault";
    this.code = code;
    const kind: FaultKind = faultKinds[code];
    this.causes = options.causes ?? kind.causes;
    this.action = options.action ?? kind.action;
    this.evidence = options.evidence ?? {};
    this.retry = options.retry ?? kind.retry;
  }

  get httpStatus(): number {
    return faultKinds[this.code].httpStatus;
  }

  get exitCode(): number {
    return faultKinds[this.code].exitCode;
  }
}

export function toReport(fault: Fault): FaultReport {
  const { code, message, causes, action, evidence, retry } = fault;
  return { id: code, message, causes, action, evidence, retry };
}

/** Rebuilds a Fault that came from another process. Unknown ids of newer peers become Internal with the id as evidence. */
export function fromReport(report: FaultReport): Fault {
  const isKnown = Object.hasOwn(faultKinds, report.id);
  return new Fault(isKnown ? report.id : "Internal", report.message, {
    causes: report.causes,
    action: report.action,
    evidence: isKnown ? report.evidence : { ...report.evidence, peerFaultId: report.id },
    retry: report.retry,
  });
}

/** Any thrown value as a Fault: a Fault is itself, anything else is Internal with the original as private cause. */
export function asFault(error: unknown, doing: string): Fault {
  if (error instanceof Fault) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new Fault("Internal", `could not ${doing}: ${text}`, { cause: error });
}
