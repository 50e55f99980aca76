// `watari landed console`: the serial console of a landed machine at this terminal, through the hub; it comes back after a line that broke.

import type { Command } from "commander";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { printAnswer, say } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface ConsoleOptions {
  readonly json?: boolean;
  readonly profile?: string;
  readonly readOnly?: boolean;
  readonly takeOver?: boolean;
  readonly escape: number;
  readonly browser?: boolean;
}

export type MachinePath = (groupPath: string, name?: string) => string;

const openedShape = z.object({ url: z.string(), pageUrl: z.string().optional(), expiresAt: z.string() });
/** After these the hub says that coming back by itself is not wanted. */
const isFinal = (code: number): boolean => code >= 4000 || code === 1000;
const returnsMax = 8;
const unsentBytesMax = 1 << 18;
/** Of a console that is fed from a file or pipe: it ends when the machine has said nothing for so long. */
const quietMs = 1_000;

export async function openConsole(
  arm: ArmClient,
  path: string,
  wish: { readonly kind: "serial" | "screen"; readonly access: "read" | "write"; readonly takeOver?: boolean },
): Promise<z.infer<typeof openedShape>> {
  return openedShape.parse(await arm.change("POST", `${path}/openConsole`, wish));
}

export function registerConsole(noun: Command, machinePath: MachinePath): void {
  withHubOptions(noun.command("console").argument("<name>"))
    .description("the serial console of a landed machine; Ctrl-] leaves it")
    .option("--read-only", "look without typing; others may type")
    .option("--take-over", "type in place of whoever does now")
    .option("--escape <key>", "key that leaves, as ^] or ^A", parseEscape, 0x1d)
    .option("--browser", "give the address of the hub's own page in place of it; good once, for half a minute")
    .action(async (name: string, options: ConsoleOptions) => {
      await using session = await openSession(options);
      const { arm } = session;
      const path = machinePath(arm.groupPath, name);
      const access = options.readOnly === true ? "read" : "write";
      const wish = { kind: "serial", access, takeOver: options.takeOver === true } as const;
      if (options.browser === true) {
        const opened = await openConsole(arm, path, wish);
        printAnswer(session.style, opened, () => opened.pageUrl ?? "");
        return;
      }
      say(`${name}: ${access === "read" ? "reading" : "connected"}; ${escapeName(options.escape)} leaves`);
      await follow(name, async () => arm.dial((await openConsole(arm, path, wish)).url, "watari.v1"), { access, escape: options.escape });
      say(`left ${name}`);
    });
}

function parseEscape(text: string): number {
  const [, letter = ""] = /^\^([@-_a-z])$/.exec(text) ?? [];
  if (letter !== "") return letter.toUpperCase().charCodeAt(0) & 0x1f;
  throw new Fault("InputInvalid", `could not read the key ${text}`, { action: "write a control key as ^] or ^A" });
}

function escapeName(key: number): string {
  return `Ctrl-${String.fromCharCode(key | 0x40)}`;
}

type Dial = () => Promise<ReturnType<ArmClient["dial"]>>;

interface Line {
  readonly send: (bytes: Uint8Array) => Promise<void>;
  readonly close: () => void;
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
}

/** One person, or one pipe, at a console. */
interface Seat {
  readonly access: "read" | "write";
  readonly escape: number;
  readonly isTerminal: boolean;
  line: Line;
  saidMs: number;
  hasLeft: boolean;
}

async function follow(
  name: string,
  dial: Dial,
  { access, escape }: { readonly access: "read" | "write"; readonly escape: number },
): Promise<void> {
  const { stdin, stdout } = process;
  let seat: Seat | undefined;
  const write = (bytes: Uint8Array): void => {
    if (seat !== undefined) seat.saidMs = systemClock.monotonicMs();
    stdout.write(bytes);
  };
  const line = await connect(dial, write);
  seat = { access, escape, isTerminal: stdin.isTTY, line, saidMs: systemClock.monotonicMs(), hasLeft: false };
  if (seat.isTerminal) stdin.setRawMode(true);
  const typed = type(seat);
  try {
    await stay(name, seat, async () => await comeBack(dial, write));
  } finally {
    if (seat.isTerminal) stdin.setRawMode(false);
    stdin.destroy(); // Else its next byte would be waited for.
    await typed.catch(() => undefined); // It ends with stdin.
  }
}

/** Until the person leaves, or the hub closes the line for good. */
async function stay(name: string, seat: Seat, back: () => Promise<Line>): Promise<void> {
  for (let returns = 0; ; returns++) {
    const { code, reason } = await seat.line.closed;
    if (seat.hasLeft) return;
    if (isFinal(code)) throw new Fault("StateConflict", `the console of ${name} was closed: ${reason === "" ? `code ${code}` : reason}`);
    if (returns >= returnsMax) throw new Fault("HubUnreachable", `the line to the console of ${name} broke too often`);
    say("\r\nthe line broke; coming back with what was said last\r");
    seat.line = await back();
  }
}

async function type(seat: Seat): Promise<void> {
  const { access, escape, isTerminal } = seat;
  const listensForEscape = isTerminal || access === "read";
  for await (const piece of process.stdin as AsyncIterable<Buffer>) {
    const at = listensForEscape ? piece.indexOf(escape) : -1;
    if (access === "write") await seat.line.send(at === -1 ? piece : piece.subarray(0, at));
    if (at !== -1) return leave(seat);
  }
  // What a pipe asked for is still being answered; who only reads stays until the line ends.
  if (access === "read" && !isTerminal) return;
  while (systemClock.monotonicMs() - seat.saidMs < quietMs) await systemClock.sleep(100);
  leave(seat);
}

function leave(seat: Seat): void {
  seat.hasLeft = true;
  seat.line.close();
}

async function comeBack(dial: Dial, write: (bytes: Uint8Array) => void): Promise<Line> {
  for (let attempt = 1; ; attempt++) {
    await systemClock.sleep(Math.min(10_000, 500 * 2 ** attempt));
    try {
      return await connect(dial, write);
    } catch (error) {
      if (attempt >= returnsMax) throw error;
    }
  }
}

/** Fault HubUnreachable when the line does not open. */
async function connect(dial: Dial, write: (bytes: Uint8Array) => void): Promise<Line> {
  const socket = await dial();
  const closed = new Promise<{ readonly code: number; readonly reason: string }>((resolve) => {
    socket.addEventListener("close", ({ code, reason }) => resolve({ code, reason }));
  });
  socket.addEventListener("message", ({ data }) => {
    if (data instanceof ArrayBuffer) write(new Uint8Array(data));
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => resolve());
    socket.addEventListener("error", ({ error }) => {
      const evidence = { reason: error instanceof Error ? error.message : "refused" };
      reject(new Fault("HubUnreachable", "could not open the line to the console", { evidence }));
    });
  });
  return {
    closed,
    close: () => socket.close(1000),
    send: async (bytes) => {
      if (bytes.length === 0 || socket.readyState !== socket.OPEN) return; // What is typed while the line is broken is lost, as on any terminal.
      socket.send(bytes);
      while (socket.bufferedAmount > unsentBytesMax) await systemClock.sleep(20);
    },
  };
}
