// A small client of QEMU's machine protocol: connect, command, close (QEMU qmp-spec).

import { connect, type Socket } from "node:net";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";

export interface Qmp extends AsyncDisposable {
  /** Answers the command's return value. Throws Fault LandingFailed with QEMU's words when it refuses. */
  execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
}

const answerShape = z.union([
  z.object({ return: z.unknown() }),
  z.object({ error: z.object({ class: z.string(), desc: z.string() }) }),
  z.object({ event: z.string() }),
  z.object({ QMP: z.unknown() }),
]);
type Answer = z.infer<typeof answerShape>;

/** A monitor that says nothing for so long is taken for dead. */
const silenceMsMax = 30_000;
const lineBytesMax = 4 * 2 ** 20;

/** Connects; undefined when nobody listens at the socket. */
export async function openQmp(socketPath: string): Promise<Qmp | undefined> {
  const socket = connect(socketPath);
  const isOpen = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false)); // No file, or nobody behind it: the machine does not run.
  });
  return isOpen ? await talkQmp(socket) : undefined;
}

/** Over a connection that stands. Closing ends it. */
export async function talkQmp(socket: Socket): Promise<Qmp> {
  socket.setTimeout(silenceMsMax, () => socket.destroy());
  socket.on("error", () => undefined); // The waiting reader learns it by the end of the stream.
  const lines = linesOf(socket);
  const execute: Qmp["execute"] = async (command, args) => {
    socket.write(`${JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }) })}\n`);
    for (;;) {
      const { done, value } = await lines.next();
      if (done === true) throw new Fault("LandingFailed", `could not run ${command}: the machine's emulator ended`, { retry: "later" });
      if ("error" in value)
        throw new Fault("LandingFailed", `could not run ${command}: ${value.error.desc}`, { evidence: { class: value.error.class } });
      if ("return" in value) return value.return;
    }
  };
  await execute("qmp_capabilities");
  return {
    execute,
    [Symbol.asyncDispose]: async () => {
      socket.destroy();
    },
  };
}

async function* linesOf(source: AsyncIterable<Buffer>): AsyncGenerator<Answer, undefined> {
  let held = "";
  try {
    for await (const chunk of source) {
      held += chunk.toString("utf8");
      if (held.length > lineBytesMax) return undefined;
      const lines = held.split("\n");
      held = lines.pop() ?? "";
      for (const line of lines) if (line.trim() !== "") yield answerShape.parse(JSON.parse(line));
    }
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof z.ZodError) throw error;
    // A broken connection reads as its end.
  }
  return undefined;
}
