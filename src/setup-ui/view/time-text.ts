// Times as people of a language write them.

import type { Language } from "./language.tsx";

export function toTimeText(timestamp: string, language: Language): string {
  return new Intl.DateTimeFormat(language === "en" ? "en-GB" : language, { dateStyle: "medium", timeStyle: "medium" }).format(
    new Date(timestamp),
  );
}

/** With the seconds of universal time, to be held against another clock. */
export function toUniversalText(timestamp: string): string {
  return timestamp.replace("T", " ").replace(/\.\d+Z$/, "");
}
