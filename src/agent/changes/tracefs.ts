// tracefs: where it is mounted, how the kernel describes the event of a completed request, and instances of our own.

import { closeSync, constants, openSync, readSync } from "node:fs";
import { mkdir, readdir, readFile, rmdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parsePageFormat, type PageFormat } from "./ring-page.ts";
import { parseEventFormat } from "./tracking-program.ts";

const tracefsFolders = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const eventPath = "events/block/block_rq_complete";
const instancePrefix = "watari-";

/** The folder of tracefs; throws when it is not mounted or cannot be read. */
export async function findTracefs(): Promise<string> {
  for (const folder of tracefsFolders)
    if ((await stat(join(folder, eventPath, "format")).catch(() => undefined)) !== undefined) return folder;
  throw new Error("the kernel does not describe the tracepoint block_rq_complete; tracefs is not mounted or not allowed");
}

export async function readEventFormat(tracefs: string): Promise<NonNullable<ReturnType<typeof parseEventFormat>>> {
  const format = parseEventFormat(await readFile(join(tracefs, eventPath, "format"), "latin1"));
  if (format === undefined) throw new Error("the kernel describes the tracepoint block_rq_complete in a way that is not known");
  return format;
}

export async function readPageFormat(tracefs: string): Promise<PageFormat> {
  const format = parsePageFormat(await readFile(join(tracefs, "events/header_page"), "latin1"));
  if (format === undefined) throw new Error("the kernel describes the pages of its trace buffer in a way that is not known");
  return format;
}

/** One instance: buffers of its own that hold the events of one disk. It outlives the program that made it. */
export class TraceInstance {
  readonly #folder: string;
  readonly #pipes = new Map<string, number>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async write(name: string, text: string): Promise<void> {
    await writeFile(join(this.#folder, name), text);
  }

  async read(name: string): Promise<string> {
    return (await readFile(join(this.#folder, name), "latin1")).trim();
  }

  async setFilter(filter: string): Promise<void> {
    await this.write(join(eventPath, "filter"), filter);
  }

  /** Turns the event on. */
  async begin(): Promise<void> {
    await this.write("tracing_on", "1");
    await this.write(join(eventPath, "enable"), "1");
  }

  /** Why events may have passed by unseen; undefined when none has. */
  async whyDoubtful(filters: readonly string[]): Promise<string | undefined> {
    if ((await this.read(join(eventPath, "enable"))) !== "1") return "somebody turned the trace event off";
    if ((await this.read("tracing_on")) !== "1") return "somebody stopped tracing";
    if (!filters.includes(await this.read(join(eventPath, "filter")))) return "somebody changed the filter of the trace event";
    return (await this.countLost()) > 0 ? "the trace buffer overran" : undefined;
  }

  /** Events that the buffers lost since they were made. */
  async countLost(): Promise<number> {
    let lost = 0;
    for (const cpu of this.#pipes.keys()) {
      const stats = await this.read(join("per_cpu", cpu, "stats"));
      for (const [, count] of stats.matchAll(/^(?:overrun|commit overrun|dropped events): (\d+)$/gm)) lost += Number(count);
    }
    return lost;
  }

  /** Opens the buffers of processors that have come since; buffers of those that went stay open. */
  async openPipes(): Promise<void> {
    const present = parseCpuList(await readFile("/sys/devices/system/cpu/present", "latin1"));
    for (const cpu of present.map((number) => `cpu${number}`)) {
      if (this.#pipes.has(cpu)) continue;
      const path = join(this.#folder, "per_cpu", cpu, "trace_pipe_raw");
      this.#pipes.set(cpu, openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    }
  }

  /** Fills `page` with the next page of any buffer, again and again until all are empty. Does not wait. */
  *pages(page: Uint8Array): Iterable<number> {
    for (const pipe of this.#pipes.values())
      for (let length = readPage(pipe, page); length > 0; length = readPage(pipe, page)) yield length;
  }

  close(): void {
    for (const pipe of this.#pipes.values()) closeSync(pipe);
    this.#pipes.clear();
  }

  /** Ends it in the kernel. */
  async remove(): Promise<void> {
    this.close();
    await removeInstance(this.#folder);
  }
}

function readPage(pipe: number, page: Uint8Array): number {
  try {
    return readSync(pipe, page, 0, page.length, null);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EAGAIN") return 0;
    throw error;
  }
}

async function removeInstance(folder: string): Promise<void> {
  const isThere = (await stat(folder).catch(() => undefined)) !== undefined; // Absent: removed already.
  if (!isThere) return;
  await writeFile(join(folder, eventPath, "enable"), "0");
  await rmdir(folder);
}

/** A new instance with buffers of this size; one of the same name goes first. */
export async function createInstance(
  tracefs: string,
  wanted: { readonly name: string; readonly ringKilobytes: number },
): Promise<TraceInstance> {
  const folder = instanceFolder(tracefs, wanted.name);
  await removeInstance(folder);
  await mkdir(folder);
  const instance = new TraceInstance(folder);
  try {
    await instance.write("buffer_size_kb", String(wanted.ringKilobytes));
    await instance.openPipes();
    return instance;
  } catch (error) {
    await instance.remove();
    throw error;
  }
}

/** The instance of this name that an earlier run made; undefined when there is none. */
export async function findInstance(tracefs: string, name: string): Promise<TraceInstance | undefined> {
  const folder = instanceFolder(tracefs, name);
  if ((await stat(folder).catch(() => undefined)) === undefined) return undefined;
  const instance = new TraceInstance(folder);
  await instance.openPipes();
  return instance;
}

function instanceFolder(tracefs: string, name: string): string {
  return join(tracefs, "instances", `${instancePrefix}${name}`);
}

export async function removeInstancesExcept(keep: ReadonlySet<string>): Promise<void> {
  const tracefs = await findTracefs().catch(() => undefined); // Without it there are no instances.
  if (tracefs === undefined) return;
  const names = await readdir(join(tracefs, "instances")).catch((): string[] => []); // A kernel without instances.
  for (const name of names)
    if (name.startsWith(instancePrefix) && !keep.has(name.slice(instancePrefix.length)))
      await removeInstance(join(tracefs, "instances", name));
}

/** "0-2,5" as [0, 1, 2, 5]. */
function parseCpuList(text: string): number[] {
  return text
    .trim()
    .split(",")
    .flatMap((part) => {
      const [first = "", last = first] = part.split("-");
      const count = Number(last) - Number(first) + 1;
      return first === "" || !(count > 0) ? [] : Array.from({ length: count }, (_, index) => Number(first) + index);
    });
}
