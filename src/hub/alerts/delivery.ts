// What one attempt to send a message came to, and what a failure means for the next one.

import { Fault, type Evidence } from "../../contract/errors.ts";

export type Delivery =
  | { readonly kind: "sent"; readonly evidence: Evidence }
  | {
      readonly kind: "failed";
      /** Its retry advice decides: never, or later. */
      readonly fault: Fault;
      /** The receiver's own wish, from Retry-After. */
      readonly waitMs?: number;
      /** Of a mail: who has it already and is left out of the next attempt. */
      readonly accepted?: readonly string[];
    };

/** Any failure of a hop as a delivery that failed; what is no Fault came from the connection and may pass. */
export function failedDelivery(error: unknown, what: string, evidence: Evidence): Delivery {
  if (error instanceof Fault) return { kind: "failed", fault: error };
  return { kind: "failed", fault: notSent(what, { ...evidence, reason: reasonOf(error) }, "later", error) };
}

export function notSent(what: string, evidence: Evidence, retry: "never" | "later", cause?: unknown): Fault {
  return new Fault("AlertNotSent", `could not send ${what}`, { evidence, retry, ...(cause === undefined ? {} : { cause }) });
}

const reasonCharactersMax = 200;

/** One line: what servers answer is not ours. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll(/\p{Cc}+/gu, " ").slice(0, reasonCharactersMax);
}
