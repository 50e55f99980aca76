// What a line carries of a plain stream: whether it has the bandwidth that it was given, and what carrying costs.
// Also the program of the process that has both ends of the stream: node bench/raw-stream.ts, spoken to by messages.

import { fork } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { performance } from "node:perf_hooks";
import { z } from "zod";

/** How much of the nominal bandwidth may be missing or too much. */
export const lineErrorMax = 0.03;
const pieceBytes = 256 << 10;
/** Buffers and the shaper's burst fill before it. */
const warmUpMs = 1000;
const measuredMs = 2000;

const openedShape = z.object({ port: z.number() });
const carriedShape = z.object({ bytesPerSecond: z.number(), cpuShare: z.number() });

export interface CarriedStream {
  readonly bytesPerSecond: number;
  /** Of one processor: both ends of the stream. */
  readonly endsCpuShare: number;
  /** Of one processor: this process, which may be the line. */
  readonly ownCpuShare: number;
}

/** `line` puts itself before the port and answers the one to dial. */
export async function carryRawStream(line: (port: number) => Promise<number>): Promise<CarriedStream> {
  const child = fork(import.meta.filename, ["--ends"], { execArgv: ["--disable-warning=ExperimentalWarning"] });
  try {
    const [opened]: unknown[] = await once(child, "message");
    child.send({ port: await line(openedShape.parse(opened).port) });
    const [cpu, startedMs] = [process.cpuUsage(), performance.now()];
    const [carried]: unknown[] = await once(child, "message");
    const { user, system } = process.cpuUsage(cpu);
    const { bytesPerSecond, cpuShare } = carriedShape.parse(carried);
    return { bytesPerSecond, endsCpuShare: cpuShare, ownCpuShare: (user + system) / 1000 / (performance.now() - startedMs) };
  } finally {
    child.kill();
  }
}

/** Listens, sends to itself by the port that it is told, counts what arrives. */
async function serveEnds(): Promise<void> {
  let bytes = 0;
  const server = createServer((socket) => socket.on("data", (chunk) => (bytes += chunk.length)));
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // A TCP server has a port.
  process.send?.({ port });
  const [message]: unknown[] = await once(process, "message");
  const sender = connect({ port: openedShape.parse(message).port, host: "127.0.0.1" });
  const piece = Buffer.alloc(pieceBytes, 1);
  const fill = (): void => {
    while (sender.write(piece));
  };
  sender.on("drain", fill).once("connect", fill);
  const pass = async (ms: number): Promise<void> => await new Promise((resolve) => void setTimeout(resolve, ms));
  await pass(warmUpMs);
  const [before, cpu, startedMs] = [bytes, process.cpuUsage(), performance.now()];
  await pass(measuredMs);
  const elapsedMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  process.send?.({ bytesPerSecond: ((bytes - before) / elapsedMs) * 1000, cpuShare: (user + system) / 1000 / elapsedMs });
}

if (process.argv.includes("--ends")) await serveEnds();
