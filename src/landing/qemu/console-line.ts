// A line to a machine's console: what its serial console says is followed in its file, what is typed and the screen go by the emulator's sockets.

import { watch } from "node:fs";
import { open } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ConsoleLine, ConsoleWish } from "../target.ts";
import type { Machine } from "./machine.ts";

const replayBytesMax = 65_536;
const pieceBytesMax = 65_536;
/** Watching a file may miss a change; asking whether the machine still runs costs little. */
const lookMs = 500;

export async function openConsoleLine(machine: Machine, { kind, access }: ConsoleWish, clock: Clock): Promise<ConsoleLine> {
  const { name } = machine.record;
  if ((await machine.findEmulator()) === undefined)
    throw new Fault("StateConflict", `could not open the console of ${name}: the machine does not run`, {
      action: `start it: watari landed start ${name}`,
      retry: "later",
    });
  if (kind === "screen") return lineBySocket(await reach(machine, machine.paths.screenSocket));
  if (access === "read") return followingLine(machine, clock);
  await requireFreeSerial(machine);
  return followingLine(machine, clock, await reach(machine, machine.paths.serialSocket));
}

const chardevsShape = z.array(z.object({ label: z.string(), filename: z.string() }));

/** The emulator serves one at its socket; what a second one writes would come out later, when nobody expects it. */
async function requireFreeSerial(machine: Machine): Promise<void> {
  await using qmp = await machine.openQmp();
  const lines = chardevsShape.parse((await qmp?.execute("query-chardev")) ?? []);
  const serial = lines.find(({ label }) => label === "serial")?.filename ?? "";
  if (serial.startsWith("disconnected:")) return;
  const { name } = machine.record;
  if (!serial.startsWith("unix:"))
    throw new Fault("StateConflict", `could not write to the console of ${name}: its emulator was started without a line to it`, {
      evidence: { serial: serial.slice(0, 200) },
      action: `read it, or stop and start the machine once: watari landed stop ${name}; watari landed start ${name}`,
      retry: "never",
    });
  throw new Fault("StateConflict", `could not write to the console of ${name}: somebody else does`, {
    action: "read it, or wait until that line is closed",
    retry: "later",
  });
}

async function reach(machine: Machine, path: string): Promise<Socket> {
  const socket = connect(path);
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", (cause) => {
      reject(
        new Fault("StateConflict", `could not open the console of ${machine.record.name}: its emulator does not answer there`, {
          causes: ["the machine was started before its consoles could be reached", "it is just ending"],
          action: "stop and start the machine once",
          cause,
        }),
      );
    });
  });
  socket.on("error", () => undefined); // Readers and writers learn it by the end.
  return socket;
}

function lineBySocket(socket: Socket): ConsoleLine {
  return {
    output: piecesOf(socket),
    write: async (bytes) => await writeTo(socket, bytes),
    [Symbol.asyncDispose]: async () => void socket.destroy(),
  };
}

async function* piecesOf(socket: Socket): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of socket as AsyncIterable<Buffer>) yield piece; // A socket without an encoding gives bytes.
  } catch {
    // A line that broke, or was closed here, has ended.
  }
}

async function writeTo(socket: Socket, bytes: Uint8Array): Promise<void> {
  if (socket.destroyed) throw new Fault("StateConflict", "could not write to the console: the machine has stopped", { retry: "never" });
  if (socket.write(bytes)) return;
  await new Promise<void>((resolve) => {
    const end = (): void => {
      socket.off("drain", end);
      socket.off("close", end);
      resolve();
    };
    socket.on("drain", end);
    socket.on("close", end);
  });
}

function followingLine(machine: Machine, clock: Clock, writer?: Socket): ConsoleLine {
  const closed = new AbortController();
  writer?.resume(); // The file has what it says; a guest must not wait for a reader of the socket.
  return {
    output: follow(machine, clock, closed.signal),
    write: async (bytes) => {
      if (writer === undefined) throw new Fault("Forbidden", "could not write to the console: this line only reads");
      await writeTo(writer, bytes);
    },
    [Symbol.asyncDispose]: async () => {
      closed.abort();
      writer?.destroy();
    },
  };
}

/** The file's end, and what comes to it. A file that was cut because it had grown too long goes on from its new beginning. */
async function* follow(machine: Machine, clock: Clock, closed: AbortSignal): AsyncGenerator<Uint8Array> {
  await using file = await open(machine.paths.serial, "r");
  let changed = Promise.withResolvers<void>();
  const watcher = watch(machine.paths.serial, () => changed.resolve());
  watcher.on("error", () => undefined); // Then the file is looked at by the clock alone.
  try {
    let at = Math.max(0, (await file.stat()).size - replayBytesMax);
    while (!closed.aborted) {
      changed = Promise.withResolvers<void>();
      const isRunning = (await machine.findEmulator()) !== undefined;
      const { size } = await file.stat();
      if (size < at) at = 0;
      if (size === at && !isRunning) return;
      if (size === at) await woken(changed.promise, clock, closed);
      while (!closed.aborted && at < size) {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(Math.min(pieceBytesMax, size - at)), 0, undefined, at);
        if (bytesRead === 0) break;
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    }
  } finally {
    watcher.close();
  }
}

async function woken(changed: Promise<void>, clock: Clock, closed: AbortSignal): Promise<void> {
  const over = new AbortController();
  const slept = clock.sleep(lookMs, AbortSignal.any([closed, over.signal])).catch(() => undefined); // Closed, or woken before.
  await Promise.race([changed, slept]);
  over.abort();
}
