// What the table of faults tells of each kind.

/** never: the same call fails again. later: may pass by itself. now: at once, for example after a lost race. */
export type RetryAdvice = "never" | "later" | "now";

export interface FaultKind {
  readonly httpStatus: number;
  readonly exitCode: number;
  readonly retry: RetryAdvice;
  readonly causes: readonly string[];
  readonly action: string;
}

/** A row of the table: HTTP status, exit code, retry advice, causes, action. */
export function row(httpStatus: number, exitCode: number, retry: RetryAdvice, causes: readonly string[], action: string): FaultKind {
  return { httpStatus, exitCode, retry, causes, action };
}
