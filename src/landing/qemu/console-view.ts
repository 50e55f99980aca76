// What a machine's console shows: its serial log as a file holds it, its screen as the emulator draws it.

import { open, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ConsoleView, ProbeOutcome } from "../target.ts";
import type { Machine } from "./machine.ts";

const serialBytesMax = 1 << 20;
const screenshotBytesMax = 8 << 20;
const serialPauseMs = 250;

export async function lookAt(machine: Machine): Promise<ConsoleView> {
  const serialLog = await readSerial(machine);
  const screenshot = await takeScreenshot(machine);
  return { serialLog, ...(screenshot === undefined ? {} : { screenshot }) };
}

/** Waits until the serial console has said the text, since the machine's first start. */
export async function probeSerial(
  machine: Machine,
  { text, timeoutSeconds, clock }: { readonly text: string; readonly timeoutSeconds: number; readonly clock: Clock },
  signal?: AbortSignal,
): Promise<ProbeOutcome> {
  const startedMs = clock.monotonicMs();
  const seconds = (): number => (clock.monotonicMs() - startedMs) / 1000;
  while (seconds() < timeoutSeconds) {
    signal?.throwIfAborted();
    const isRunning = (await machine.findEmulator()) !== undefined;
    const line = (await readSerial(machine)).split("\n").find((each) => each.includes(text));
    if (isRunning && line !== undefined) return { kind: "answered", body: line.trim(), seconds: seconds() };
    await clock.sleep(serialPauseMs, signal);
  }
  return { kind: "silent", seconds: seconds(), reason: `its serial console does not say ${JSON.stringify(text)}` };
}

async function readSerial({ paths }: Machine): Promise<string> {
  const size = (await stat(paths.serial).catch(() => undefined))?.size; // No console yet.
  if (size === undefined) return "";
  await using file = await open(paths.serial, "r");
  const newest = Buffer.alloc(Math.min(size, serialBytesMax));
  const { bytesRead } = await file.read(newest, 0, newest.length, size - newest.length);
  return newest.toString("utf8", 0, bytesRead);
}

/** The emulator writes it as its own user into the machine's folder. */
async function takeScreenshot(machine: Machine): Promise<Uint8Array | undefined> {
  const path = join(machine.paths.folder, "screen.png");
  await using qmp = await machine.openQmp();
  if (qmp === undefined) return undefined;
  try {
    await qmp.execute("screendump", { filename: path, format: "png" });
    const { size } = await stat(path);
    if (size > screenshotBytesMax)
      throw new Fault("LandingFailed", "could not take a picture of a screen: it is too large", { evidence: { size } });
    return await readFile(path);
  } finally {
    await rm(path, { force: true });
  }
}
