// The words of alert mails in English.

import { toTimestamp } from "../../base/clock.ts";
import type { MailWords } from "./mail-words.ts";

export const englishWords: MailWords = {
  severities: { Critical: "CRITICAL", Warning: "WARNING", Info: "INFO" },
  over: "OVER",
  labels: {
    what: "What is wrong",
    when: "When",
    about: "About",
    job: "Job",
    causes: "May be because",
    action: "What to do",
    resource: "Resource",
    vault: "Vault",
    event: "Event",
  },
  subjectOfMany: (count, vault, codes) => `${count} alerts in ${vault}: ${codes}`,
  headOfMany: (count, vault) => `${count} alerts in the vault ${vault}`,
  more: (count) => `… and ${count} more. The vault's replicationEvents show them all.`,
  leftOut: (count) => `${count} more came while too many waited. They are not in this mail; the vault's events show them.`,
  foot: (vault) => [
    `You get this mail because the alert setting of the vault ${vault} names your address.`,
    "Change it: watari alert set-email",
  ],
  testSubject: "Test alert",
  test: ["This is a test. Nothing is wrong.", "The hub reaches this mailbox: alerts will come here."],
  health: () => undefined, // What events and health codes say is English.
  cleared: (summary) => `No more: ${summary}`,
  endedJob: ({ title, name, state }) => `${state}: ${title} (${name})`,
  times: (atMs) => `${toTimestamp(atMs).slice(0, 19).replace("T", " ")} UTC`,
};
