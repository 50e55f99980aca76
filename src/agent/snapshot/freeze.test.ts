// Filesystems are frozen all together or not at all, and thawed all together; what was thawed in between is told.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { runCommand, tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { openCallThreads } from "../kernel/call-threads.ts";
import { openSystemCalls } from "../kernel/system-calls.ts";
import { armFreeze } from "./freeze.ts";

const isRoot = process.getuid?.() === 0;
const threads = openCallThreads(openSystemCalls(), systemClock);

describe("armFreeze", { skip: isRoot ? false : "freezing a filesystem needs root" }, () => {
  let folder = "";
  const mountPoints: string[] = [];
  const diskNames = new Set<string>();

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "watari-freeze-"));
    for (const name of ["one", "two"]) {
      const [image, mountPoint] = [join(folder, `${name}.raw`), join(folder, name)];
      await runCommand("truncate", ["-s", "16M", image]);
      await runCommand("mke2fs", ["-q", "-t", "ext4", "-F", image]);
      await runCommand("mkdir", [mountPoint]);
      await runCommand("mount", ["-o", "loop", image, mountPoint]);
      mountPoints.push(mountPoint);
      const { stdout } = await runCommand("findmnt", ["-no", "SOURCE", mountPoint]);
      diskNames.add(basename(stdout.trim()));
    }
  });

  after(async () => {
    for (const mountPoint of mountPoints) {
      await tryCommand("fsfreeze", ["--unfreeze", mountPoint]); // Only if a test failed and left it frozen.
      await tryCommand("umount", [mountPoint]);
    }
    await rm(folder, { recursive: true, force: true });
  });

  const arm = async () => await armFreeze({ threads, clock: systemClock, diskNames, msMax: 20_000 });
  /** A filesystem that is frozen refuses a second freeze. */
  const isFrozen = async (mountPoint: string): Promise<boolean> => {
    const { exitCode } = await tryCommand("fsfreeze", ["--freeze", mountPoint]);
    if (exitCode === 0) await runCommand("fsfreeze", ["--unfreeze", mountPoint]);
    return exitCode !== 0;
  };
  const areFrozen = async (): Promise<boolean[]> => await Promise.all(mountPoints.map(isFrozen));

  test("freezes every filesystem and thaws it", { timeout: 30_000 }, async () => {
    const armed = await arm();
    await armed.writeOut();
    const freeze = await armed.freeze();
    assert.deepEqual(freeze.filesystems.map(({ path }) => path).toSorted(), mountPoints.toSorted());
    assert.deepEqual(await areFrozen(), [true, true]);
    assert.equal(freeze.isHeld(), true);
    const both = await Promise.all([freeze.thaw(), freeze.thaw()]);
    assert.deepEqual(
      both.map(({ isWhole }) => isWhole),
      [true, true],
    );
    assert.equal(freeze.isHeld(), false);
    for (const mountPoint of mountPoints) await writeFile(join(mountPoint, "thawed"), "written", { flush: true });
  });

  test("tells that a filesystem was thawed in between", { timeout: 30_000 }, async () => {
    const freeze = await (await arm()).freeze();
    await runCommand("fsfreeze", ["--unfreeze", mountPoints[1] ?? ""]);
    assert.equal((await freeze.thaw()).isWhole, false);
    assert.deepEqual(await areFrozen(), [false, false]);
  });

  test("leaves nothing frozen of its own when one filesystem cannot be", { timeout: 30_000 }, async () => {
    const [mine = "", others = ""] = mountPoints;
    await runCommand("fsfreeze", ["--freeze", others]);
    const armed = await arm();
    await assert.rejects(
      armed.freeze(),
      (error) => error instanceof Fault && error.code === "FreezeFailed" && error.evidence["why"] === "EBUSY",
    );
    assert.deepEqual([await isFrozen(mine), await isFrozen(others)], [false, true], "what another has frozen stays so");
    await runCommand("fsfreeze", ["--unfreeze", others]);
  });
});
