// What a command does when nobody reads its words any more.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";

test("a reader that has seen enough ends a command without a word", async () => {
  const main = join(import.meta.dirname, "../main.ts");
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", main, "net", "schema"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.stdout.destroy(); // Long before the first word: the pipe has no reader when it is written.
  const said: Buffer[] = [];
  child.stderr.on("data", (bytes: Buffer) => said.push(bytes));
  const ending: readonly unknown[] = await once(child, "close");
  assert.deepEqual([Buffer.concat(said).toString("utf8"), ending[0]], ["", 141]);
});
