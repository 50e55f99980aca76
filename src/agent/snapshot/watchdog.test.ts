// The promise that matters most to somebody else's machine: whatever happens to the agent, its filesystems thaw.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runCommand, tryCommand } from "../../base/run-command.ts";

const isRoot = process.getuid?.() === 0;

describe("armWatchdog", { skip: isRoot ? false : "freezing a filesystem needs root" }, () => {
  let folder = "";
  let mountPoint = "";

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "watari-freeze-"));
    mountPoint = join(folder, "mnt");
    const image = join(folder, "disk.raw");
    await runCommand("truncate", ["-s", "32M", image]);
    await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", image]);
    await runCommand("mkdir", [mountPoint]);
    await runCommand("mount", ["-o", "loop", image, mountPoint]);
  });

  after(async () => {
    await tryCommand("fsfreeze", ["--unfreeze", mountPoint]); // Only if a test failed and left it frozen.
    await tryCommand("umount", [mountPoint]);
    await rm(folder, { recursive: true, force: true });
  });

  async function freezeAnd(signal: "SIGSTOP" | "SIGKILL", watchdogMs: number): Promise<void> {
    const child = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", join(import.meta.dirname, "freeze-child.ts"), mountPoint, String(watchdogMs)],
      {
        stdio: ["pipe", "pipe", "inherit"],
      },
    );
    try {
      const said: unknown[] = await Promise.race([once(child.stdout, "data"), once(child, "exit").then(() => ["it ended"])]);
      assert.equal(String(said[0]), "frozen\n");
      child.kill(signal);
      // Blocks until the thaw; the runner's own limit fails the test when there is none.
      await writeFile(join(mountPoint, signal), "written after the thaw", { flush: true });
    } finally {
      child.kill("SIGKILL");
    }
  }

  test("thaws when its time is over, although the agent hangs", { timeout: 30_000 }, async () => await freezeAnd("SIGSTOP", 700));

  test(
    "thaws at once when the agent is killed, long before its time",
    { timeout: 30_000 },
    async () => await freezeAnd("SIGKILL", 3_600_000),
  );
});
