// Lines to the consoles of a real emulator: what is typed comes back, many read, one writes, the screen answers as RFB does.

import assert from "node:assert/strict";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Fault } from "../../contract/errors.ts";
import type { ConsoleLine } from "../target.ts";
import { echoGreeting, echoMachineMissing, makeEchoMachine, openEchoTarget } from "./echo-machine.ts";
import { machinePaths } from "./machine-record.ts";
import type { QemuTarget } from "./qemu-target.ts";

const name = "echo";
const authority = { kind: "job", fence: 1 } as const;
let folder = "";
let target: QemuTarget;

describe("a line to a console", { skip: echoMachineMissing() ?? false }, () => {
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "wc-"));
    await makeEchoMachine(folder, name);
    target = await openEchoTarget(folder);
    await target.under(authority).start(name);
  });
  after(async () => {
    await target.under(authority).remove(name);
    await target[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it("of the serial console gives what was said, then what is said; many read it, and one writes", async () => {
    await using writer = await target.openConsole(name, { kind: "serial", access: "write" });
    await using reader = await target.openConsole(name, { kind: "serial", access: "read" });
    const [written, read] = [listenTo(writer), listenTo(reader)];
    await written.hear(echoGreeting);
    await writer.write(Buffer.from("hello, machine"));
    await written.hear(`${echoGreeting}hello, machine`);
    await read.hear(`${echoGreeting}hello, machine`);
    await assert.rejects(reader.write(Buffer.from("x")), isFault("Forbidden"));
    await assert.rejects(target.openConsole(name, { kind: "serial", access: "write" }), isFault("StateConflict"));
  });

  it("of the serial console is free again when it was closed, replays the last 64 KiB, and follows a file that was cut", async () => {
    const path = machinePaths(folder, name).serial;
    await writeFile(path, "o".repeat(100_000));
    await using line = await target.openConsole(name, { kind: "serial", access: "write" });
    const heard = listenTo(line);
    await heard.hear("o".repeat(65_536));
    await truncate(path, 0);
    await line.write(Buffer.from("after the cut"));
    await heard.hear("after the cut", "anywhere");
  });

  it("of the screen speaks RFB, to several at once", async () => {
    await using first = await target.openConsole(name, { kind: "screen", access: "write" });
    await using second = await target.openConsole(name, { kind: "screen", access: "write" });
    for (const line of [first, second]) {
      const heard = listenTo(line);
      await heard.hear("RFB 003.008\n");
      await line.write(Buffer.from("RFB 003.008\n"));
      await heard.hear("RFB 003.008\n\x01\x01"); // One security type: none.
      await line.write(Uint8Array.of(1));
      await heard.hear("RFB 003.008\n\x01\x01\0\0\0\0");
      await line.write(Uint8Array.of(1)); // Shared.
      await heard.hear(`watari-${name}`, "anywhere");
    }
  });

  it("ends when the machine stops, and is refused while it does", async () => {
    await using line = await target.openConsole(name, { kind: "serial", access: "read" });
    const heard = listenTo(line);
    await target.under(authority).stop(name, "cut");
    await heard.ended;
    for (const kind of ["serial", "screen"] as const)
      await assert.rejects(target.openConsole(name, { kind, access: "write" }), isFault("StateConflict"));
    await target.under(authority).start(name);
    await using again = await target.openConsole(name, { kind: "serial", access: "write" });
    await listenTo(again).hear(echoGreeting, "anywhere");
  });
});

const isFault = (code: string) => (error: unknown) => error instanceof Fault && error.code === code;

interface Heard {
  /** Resolves when all that was heard is the text, or holds it. The test's own end is the limit. */
  hear(text: string, where?: "whole" | "anywhere"): Promise<void>;
  readonly ended: Promise<void>;
}

function listenTo(line: ConsoleLine): Heard {
  let said = "";
  let waiting: { readonly isIt: () => boolean; readonly resolve: () => void } | undefined;
  const listen = async (): Promise<void> => {
    for await (const piece of line.output) {
      assert.ok(piece.length <= 65_536);
      said += Buffer.from(piece).toString("latin1");
      if (waiting?.isIt() === true) waiting.resolve();
    }
  };
  return {
    hear: async (text, where = "whole") => {
      const isIt = (): boolean => (where === "whole" ? said === text : said.includes(text));
      if (!isIt()) await new Promise<void>((resolve) => (waiting = { isIt, resolve }));
      waiting = undefined;
    },
    ended: listen(),
  };
}
