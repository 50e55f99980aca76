// Runs a program to its end with bounded output and time; no shell, no secrets in arguments.

import { spawn } from "node:child_process";

export interface CommandOptions {
  readonly stdin?: string | Uint8Array;
  /** Killed after this long; 120 000 unless told. */
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly signal?: AbortSignal;
  /** Bytes of stdout and of stderr kept; the rest is dropped. 16 MiB unless told. */
  readonly outputBytesMax?: number;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that could not be started, was killed, or ended with other than 0. */
export class CommandFailed extends Error {
  readonly result: CommandResult;
  constructor(program: string, args: readonly string[], result: CommandResult) {
    super(`${program} ${args.slice(0, 6).join(" ")} ended with ${result.exitCode}: ${result.stderr.trim().slice(-2000)}`);
    this.name = "CommandFailed";
    this.result = result;
  }
}

/** Runs the program and answers whatever it ended with. Rejects only when it cannot be started. */
export async function tryCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const outputBytesMax = options.outputBytesMax ?? 16 << 20;
  const child = spawn(program, args, {
    stdio: ["pipe", "pipe", "pipe"],
    timeout: options.timeoutMs ?? 120_000,
    killSignal: "SIGKILL",
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const collect = (stream: NodeJS.ReadableStream): (() => string) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream.on("data", (chunk: Buffer) => {
      if (bytes < outputBytesMax) chunks.push(chunk);
      bytes += chunk.length;
    });
    return () => Buffer.concat(chunks).toString("utf8");
  };
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin.on("error", () => undefined); // A program may end before it has read its input; its exit code tells.
  child.stdin.end(options.stdin ?? "");
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      const told = signal === null ? "" : `\nkilled by ${signal}`;
      resolve({ exitCode: code ?? 128, stdout: stdout(), stderr: stderr() + told });
    });
  });
}

/** Runs the program; throws CommandFailed unless it ends with 0. */
export async function runCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const result = await tryCommand(program, args, options);
  if (result.exitCode !== 0) throw new CommandFailed(program, args, result);
  return result;
}
