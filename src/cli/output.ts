// How the command line speaks: data on stdout (tables or JSON), talk and faults on stderr.

import { toReport, type Fault } from "../contract/errors.ts";
import type { MachineFlow } from "../contract/machine-flow.ts";

export interface OutputStyle {
  readonly asJson: boolean;
}

/** One event of a running command, for people. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** The answer of a command: JSON as it is, or the text for people. */
export function printAnswer(style: OutputStyle, value: unknown, toText: () => string): void {
  process.stdout.write(style.asJson ? `${JSON.stringify(value, undefined, 2)}\n` : `${toText()}\n`);
}

/** A fault in full on stderr: message, id, evidence, causes, action; also as JSON on stdout when asked for. */
export function printFault(fault: Fault, style: OutputStyle): void {
  if (style.asJson) process.stdout.write(`${JSON.stringify({ error: toReport(fault) }, undefined, 2)}\n`);
  const lines = [`watari: ${fault.message}`, `  id        ${fault.code}`];
  for (const [name, value] of Object.entries(fault.evidence))
    lines.push(`  evidence  ${name}: ${Array.isArray(value) ? value.join(", ") : String(value)}`);
  for (const cause of fault.causes) lines.push(`  cause     ${cause}`);
  lines.push(`  action    ${fault.action}`);
  say(lines.join("\n"));
}

/** A table with columns as wide as their longest cell; the first row is the head. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return [line(head), ...rows.map(line)].join("\n");
}

/** Bytes for people: "1.4 GiB". */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? ""}`;
}

/** A rate for people: "23.8 MiB/s". */
export function rateText(bytesPerSecond: number | undefined): string {
  return bytesPerSecond === undefined ? "unlimited" : `${formatBytes(Math.round(bytesPerSecond))}/s`;
}

/** Seconds for people: "3.2 s", "20 min". */
export function formatSeconds(seconds: number): string {
  if (seconds < 100) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 72 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

/** Columns of tables that show how machines' data flow. */
export const flowHead = ["mode", "lag", "backlog", "churn", "drained in", "downtime", "slowest"];

/** The cells below flowHead; "-" where nothing is known. */
export function flowRow(flow: MachineFlow | undefined): readonly string[] {
  if (flow === undefined) return flowHead.map(() => "-");
  const { mode, lagSeconds, backlogBytes, churnBytesPerSecond, drainSeconds, downtimeSeconds, slowestStage, isFallingBehind } = flow;
  const seconds = (value: number | undefined): string => (value === undefined ? "-" : formatSeconds(value));
  return [
    mode.rung === undefined ? mode.phase : `${mode.phase}/${mode.rung}`,
    seconds(lagSeconds),
    formatBytes(backlogBytes),
    churnBytesPerSecond === undefined ? "-" : `${formatBytes(churnBytesPerSecond)}/s`,
    isFallingBehind ? "never" : seconds(drainSeconds),
    seconds(downtimeSeconds),
    slowestStage ?? "-",
  ];
}

/** Progress of one long operation: rewrites its line on a terminal, prints each new step elsewhere. */
export function openProgress(title: string): { update(percent: number, text: string): void; finish(): void } {
  const isTerminal = process.stderr.isTTY;
  let lastText = "";
  return {
    update: (percent, text) => {
      if (isTerminal) process.stderr.write(`\r\u001B[K${title}  ${String(Math.round(percent)).padStart(3)} %  ${text}`);
      else if (text !== lastText) say(`${title}: ${text}`);
      lastText = text;
    },
    finish: () => {
      if (isTerminal && lastText !== "") process.stderr.write("\n");
    },
  };
}
