// The text of an alert mail: what is wrong, why it may be, what to do, and the ids; plain lines that are read at night on a telephone.

import { fromTimestamp } from "../../base/clock.ts";
import type { AlertMessage } from "../db/alert-outbox.ts";
import type { HubEvent } from "../db/events.ts";
import { adviceOf, healthOfEvent, type Advice } from "./advice.ts";
import { wordsOf, type MailWords } from "./mail-words.ts";

export interface MailText {
  /** One line. */
  readonly subject: string;
  readonly text: string;
}

/** Alerts told one by one; the others are counted. */
const toldMax = 30;
const subjectCharactersMax = 160;
const codesInSubjectMax = 3;
const lineCharactersMax = 76;

export function writeAlertMail(
  message: Pick<AlertMessage, "leftOut"> & { readonly vaultId: string },
  alerts: readonly HubEvent[],
  locale: string,
): MailText {
  const words = wordsOf(locale);
  const vault = nameOf(message.vaultId);
  const [only] = alerts;
  const head = alerts.length === 1 && only !== undefined ? [] : [...headOf(alerts, vault, words), ""];
  const told = alerts.slice(0, toldMax).flatMap((event) => [...tell(event, message.vaultId, words), ""]);
  const rest = alerts.length > toldMax ? [...wrap(words.more(alerts.length - toldMax)), ""] : [];
  const leftOut = message.leftOut > 0 ? [...wrap(words.leftOut(message.leftOut)), ""] : [];
  const lines = [...head, ...told, ...rest, ...leftOut, "--", ...words.foot(vault).flatMap(wrap)];
  const subject =
    alerts.length === 1 && only !== undefined
      ? `${markOf(only, words)} ${whatOf(only, words)}${isNamedIn(only, words) ? "" : ` (${only.affected.name})`}`
      : words.subjectOfMany(alerts.length, vault, codesOf(alerts));
  return { subject: oneLine(`[Watari] ${subject}`).slice(0, subjectCharactersMax), text: `${lines.join("\n")}\n` };
}

export function writeTestMail(locale: string): MailText {
  const words = wordsOf(locale);
  return { subject: `[Watari] ${words.testSubject}`, text: `${words.test.join("\n")}\n` };
}

/** Text from outside cannot begin a header or a line of its own. */
function oneLine(text: string): string {
  return text
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ")
    .replaceAll(/ {2,}/g, " ")
    .trim();
}

function headOf(alerts: readonly HubEvent[], vault: string, words: MailWords): readonly string[] {
  const counts = countCodes(alerts).map(([code, count]) => `  ${String(count).padStart(5)}  ${code}`);
  return [words.headOfMany(alerts.length, vault), "", ...counts];
}

function codesOf(alerts: readonly HubEvent[]): string {
  const counts = countCodes(alerts);
  const shown = counts.slice(0, codesInSubjectMax).map(([code, count]) => `${count} ${code}`);
  return [...shown, ...(counts.length > shown.length ? ["…"] : [])].join(", ");
}

function countCodes(alerts: readonly HubEvent[]): readonly (readonly [string, number])[] {
  const counts = new Map<string, number>();
  for (const { code } of alerts) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts].toSorted(([, left], [, right]) => right - left);
}

function tell(event: HubEvent, vaultId: string, words: MailWords): readonly string[] {
  const { labels } = words;
  const { causes, action } = adviceIn(event, words);
  const field = (label: string, lines: readonly string[]): readonly string[] =>
    lines.length === 0 ? [] : [`${label}:`, ...lines.map((line) => `  ${line}`)];
  const what = whatOf(event, words);
  const own = event.fault === undefined || event.description === what ? [] : wrap(event.description);
  return [
    `${markOf(event, words)} ${oneLine(event.affected.name)}  (${event.code})`,
    "",
    ...field(labels.what, [...wrap(what), ...own]),
    ...field(labels.when, [words.times(fromTimestamp(event.at))]),
    ...field(
      labels.causes,
      causes.flatMap((cause) => wrap(`- ${cause}`)),
    ),
    ...field(labels.action, action === "" ? [] : wrap(action)),
    ...field(labels.resource, [oneLine(event.affected.id)]),
    ...(event.job === undefined ? [] : field(labels.job, [`${vaultId}/replicationJobs/${event.job.jobId}`])),
    ...field(labels.event, [`${vaultId}/replicationEvents/${event.eventId}`]),
  ];
}

function whatOf(event: HubEvent, words: MailWords): string {
  const health = healthOfEvent(event);
  const summary = health === undefined ? undefined : words.health(health.code)?.summary;
  if (health !== undefined && summary !== undefined) return health.isCleared ? words.cleared(summary) : summary;
  const { job, code, affected, description } = event;
  if (job === undefined) return oneLine(description);
  return oneLine(words.endedJob({ kind: code.slice(0, -job.state.length), title: job.title, name: affected.name, state: job.state }));
}

/** A job's text names its machine. */
function isNamedIn(event: HubEvent, words: MailWords): boolean {
  return whatOf(event, words).includes(oneLine(event.affected.name));
}

function adviceIn(event: HubEvent, words: MailWords): Advice {
  const health = healthOfEvent(event);
  const own = health === undefined || health.isCleared || event.fault !== undefined ? undefined : words.health(health.code);
  return own ?? adviceOf(event);
}

function markOf(event: HubEvent, words: MailWords): string {
  return `[${healthOfEvent(event)?.isCleared === true ? words.over : words.severities[event.severity]}]`;
}

function nameOf(id: string): string {
  return id.split("/").at(-1) ?? id;
}

/** Breaks at spaces; a text without them stays whole. */
function wrap(text: string): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of oneLine(text).split(" ")) {
    if (line !== "" && line.length + 1 + word.length > lineCharactersMax) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
