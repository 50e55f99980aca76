// The words of alert mails in one language; what only a job's fault says stays in its own words.

import type { EventSeverity } from "../db/events.ts";
import type { HealthErrorCode } from "../health/health-codes.ts";
import type { Advice } from "./advice.ts";
import { englishWords } from "./mail-words-en.ts";
import { japaneseWords } from "./mail-words-ja.ts";

export interface MailWords {
  readonly severities: Readonly<Record<EventSeverity, string>>;
  readonly over: string;
  readonly labels: Readonly<Record<"what" | "when" | "about" | "job" | "causes" | "action" | "resource" | "vault" | "event", string>>;
  readonly subjectOfMany: (count: number, vault: string, codes: string) => string;
  readonly headOfMany: (count: number, vault: string) => string;
  readonly more: (count: number) => string;
  readonly leftOut: (count: number) => string;
  readonly foot: (vault: string) => readonly string[];
  readonly testSubject: string;
  readonly test: readonly string[];
  /** Undefined: the event's own description. */
  readonly health: (code: HealthErrorCode) => (Advice & { readonly summary: string }) | undefined;
  readonly cleared: (summary: string) => string;
  /** `kind` is the job's, for languages that have words of their own for it. */
  readonly endedJob: (job: EndedJob) => string;
  readonly times: (atMs: number) => string;
}

export interface EndedJob {
  readonly kind: string;
  readonly title: string;
  readonly name: string;
  readonly state: string;
}

/** By the language of an alert setting's locale ("ja-JP", "ja"); English for every other one. */
export function wordsOf(locale: string): MailWords {
  return locale.toLowerCase().split(/[-_]/)[0] === "ja" ? japaneseWords : englishWords;
}
