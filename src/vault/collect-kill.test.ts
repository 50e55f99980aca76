// A writer that seals, removes and collects is killed with SIGKILL at many moments: what it had sealed is whole, and it goes on.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { describe, it } from "node:test";
import type { PointId } from "../contract/ids.ts";
import { openDirectoryStore } from "../store/directory-store.ts";
import { contentOfSeed } from "./kill-content.ts";
import { assertContent, newMachine, openTestVault, testKey, vaultId } from "./test-vault.ts";

const killsCount = 8;

/** Lines of a child that is killed after `linesMax` of them and some steps of its own. */
async function runAndKill(
  { folder, indexFolder, machineId }: { readonly folder: string; readonly indexFolder: string | undefined; readonly machineId: string },
  linesMax: number,
): Promise<string[]> {
  const program = new URL("./collect-child.ts", import.meta.url).pathname;
  const args = [program, folder, machineId, testKey.toString("hex"), vaultId, ...(indexFolder === undefined ? [] : [indexFolder])];
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (lines.length === linesMax) child.kill("SIGKILL");
  }
  assert.ok(lines.length >= linesMax, "the child ends by the kill alone");
  return lines;
}

describe("A writer that is killed", () => {
  for (const where of ["memory", "a folder"] as const)
    it(`${killsCount} times, with its index in ${where}, loses nothing that it had sealed, and leaves no garbage in the end`, async () => {
      const root = await mkdtemp(join(tmpdir(), "watari-kill-"));
      const folder = join(root, "store");
      const indexFolder = where === "memory" ? undefined : join(root, "index");
      const indexed = indexFolder === undefined ? {} : { indexFolder, indexTableMax: 6 };
      try {
        const machineId = newMachine();
        const contents = new Map<PointId, Buffer>();
        const mustBe = new Set<PointId>();
        for (let kill = 0; kill < killsCount; kill++) {
          for (const line of await runAndKill({ folder, indexFolder, machineId }, 7 + kill * 5)) {
            const [what, id, seed] = line.split(" ");
            const pointId = id as PointId; // As the child printed it.
            if (what === "removing") mustBe.delete(pointId);
            else contents.set(pointId, contentOfSeed(Number(seed)));
            if (what === "sealed") mustBe.add(pointId);
          }
          await using store = await openDirectoryStore(folder);
          await using vault = await openTestVault(store, indexed);
          const there = new Set<PointId>();
          for await (const { pointId } of vault.listPoints()) {
            there.add(pointId);
            await assertContent(vault, pointId, contents.get(pointId) ?? assert.fail("nobody wrote it"));
          }
          for (const pointId of mustBe) assert.ok(there.has(pointId), "what was sealed and not removed is there");
        }
        await using store = await openDirectoryStore(folder);
        await using vault = await openTestVault(store, indexed);
        for (let round = 0; round < 2; round++) await vault.collect({ orphanGraceMs: 0, liveShareMin: 1 });
        assert.equal((await vault.verify()).damagedCount, 0);
        const left = await vault.collect({ isDryRun: true, orphanGraceMs: 0, liveShareMin: 1 });
        assert.deepEqual([left.removedPackCount, left.rewrittenPackCount], [0, 0]);
      } finally {
        await rm(root, { recursive: true });
      }
    });
});
