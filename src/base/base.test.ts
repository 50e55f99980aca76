// Promises of the ground: files whole or absent, bounded parallel work, retries that end, commands with bounds.

import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { writeFileAtomic } from "./atomic-file.ts";
import type { Clock } from "./clock.ts";
import { withRetry } from "./retry.ts";
import { CommandFailed, runCommand, tryCommand } from "./run-command.ts";
import { forEachParallel, Semaphore } from "./semaphore.ts";

describe("writeFileAtomic", () => {
  test("replaces the file whole and leaves no other file", async () => {
    const folder = await mkdtemp(join(tmpdir(), "watari-base-"));
    try {
      await writeFileAtomic(join(folder, "a"), "one");
      await writeFileAtomic(join(folder, "a"), "two");
      assert.equal(await readFile(join(folder, "a"), "utf8"), "two");
      assert.deepEqual(await readdir(folder), ["a"]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("Semaphore", () => {
  test("never runs more tasks than it has permits, and runs them all", async () => {
    const semaphore = new Semaphore(3);
    let running = 0;
    let highest = 0;
    let done = 0;
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        await semaphore.run(async () => {
          running += 1;
          highest = Math.max(highest, running);
          await Promise.resolve();
          running -= 1;
          done += 1;
        });
      }),
    );
    assert.equal(highest, 3);
    assert.equal(done, 20);
  });

  test("gives the permit back when a task fails", async () => {
    const semaphore = new Semaphore(1);
    await assert.rejects(semaphore.run(async () => await Promise.reject(new Error("no"))));
    assert.equal(await semaphore.run(async () => await Promise.resolve(7)), 7);
  });
});

test("forEachParallel visits each item once and passes the first failure on", async () => {
  const seen: number[] = [];
  await forEachParallel([1, 2, 3, 4, 5], 2, async (item) => {
    await Promise.resolve();
    seen.push(item);
  });
  assert.deepEqual(
    seen.toSorted((left, right) => left - right),
    [1, 2, 3, 4, 5],
  );
  await assert.rejects(
    forEachParallel([1, 2], 2, async (item) => {
      await Promise.resolve();
      throw new Error(`item ${item}`);
    }),
    /item/,
  );
});

describe("withRetry", () => {
  const waits: number[] = [];
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    sleep: async (waitMs) => {
      await Promise.resolve();
      waits.push(waitMs);
    },
  };

  test("waits longer each time, up to its limit, and gives the last failure", async () => {
    waits.length = 0;
    let calls = 0;
    const failing = withRetry({ clock, attemptsMax: 4, firstWaitMs: 10, waitMaxMs: 25, isTransient: () => true }, async () => {
      await Promise.resolve();
      calls += 1;
      throw new Error(`call ${calls}`);
    });
    await assert.rejects(failing, /call 4/);
    assert.deepEqual(waits, [10, 20, 25]);
  });

  test("does not repeat what cannot pass by itself", async () => {
    let calls = 0;
    await assert.rejects(
      withRetry({ clock, attemptsMax: 4, firstWaitMs: 1, waitMaxMs: 1, isTransient: () => false }, async () => {
        await Promise.resolve();
        calls += 1;
        throw new Error("for good");
      }),
    );
    assert.equal(calls, 1);
  });
});

describe("runCommand", () => {
  test("gives stdin to the program and answers what it prints", async () => {
    const result = await runCommand("cat", [], { stdin: "hello" });
    assert.deepEqual(result, { exitCode: 0, stdout: "hello", stderr: "" });
  });

  test("tells how a program ended, and throws only when asked to", async () => {
    assert.equal((await tryCommand("sh", ["-c", "exit 3"])).exitCode, 3);
    await assert.rejects(
      runCommand("sh", ["-c", "echo why >&2; exit 3"]),
      (error) => error instanceof CommandFailed && error.message.includes("why"),
    );
  });

  test("kills a program that runs longer than it may", async () => {
    const result = await tryCommand("sh", ["-c", "while :; do :; done"], { timeoutMs: 200 });
    assert.match(result.stderr, /killed by SIGKILL/);
  });
});
