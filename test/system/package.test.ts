// The hub's package on a Debian that has never seen it: installed, started, used, broken, upgraded, removed and purged, under systemd.

import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makePackage } from "../../packaging/programs.ts";
import { packageGuest, runTrial } from "./package-guest.ts";

const cacheFolder = process.env["WATARI_CACHE"] ?? "/var/cache/watari";
const skip = process.getuid?.() === 0 ? false : "needs root to build the guest";

test("the hub's package lives its whole life on a clean Debian", { skip }, async (t) => {
  const guest = await packageGuest(cacheFolder);
  const work = await mkdtemp(join(tmpdir(), "watari-trial-"));
  try {
    const files = join(work, "files");
    await mkdir(files);
    for (const version of ["1.0.0", "1.0.1"]) {
      const place = join(work, version);
      await mkdir(place);
      await makePackage("hub", { version, epochSeconds: 1_800_000_000, work: place, folder: files, compression: "none" });
    }
    for (const script of ["trial.sh", "primitives.sh"]) await copyFile(join(import.meta.dirname, "package", script), join(files, script));
    const said = await runTrial(guest, { files, work });
    const lines = said.split(/\r?\n/);
    for (const line of lines) if (/(STEP|NOTE) /.test(line)) t.diagnostic(line.replace(/^.*?(STEP|NOTE) /, ""));
    assert.ok(said.includes("TRIAL DONE"), `the trial did not end: ${said.slice(-3000)}`);
    const steps = lines.filter((line) => /STEP (ok|FAIL) /.test(line));
    assert.deepEqual(
      steps.filter((line) => line.includes("STEP FAIL")),
      [],
    );
    assert.ok(steps.length >= 17, `${steps.length} steps`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
});
