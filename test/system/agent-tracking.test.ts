// Change tracking in a real guest kernel: of heavy mixed writes, trims among them, not one changed granule may be missed, on no rung.

import assert from "node:assert/strict";
import { test } from "node:test";
import { whyNoGuest } from "./agent-guest-image.ts";
import { startGuest } from "./agent-guest.ts";
import { leftovers, prepareTrials, runTrial } from "./tracking-trial.ts";

const reason = await whyNoGuest();

test("the trackers miss no changed granule of a busy guest", { skip: reason ?? false, timeout: 900_000 }, async (context) => {
  await using guest = await startGuest();
  await prepareTrials(guest);
  for (const rung of ["ebpf", "tracefs"]) {
    const { rows, scanMs, residentBytes } = await runTrial(guest, { rung, seconds: 6 });
    for (const row of rows) {
      context.diagnostic(
        `${row.disk}, ${row.rung} (${row.reason}): ${row.changed} granules changed, ${row.marked} marked, ${row.missed} missed, ${(row.falselyDirtyShare * 100).toFixed(1)} % marked but equal (trims of free space mostly)`,
      );
      assert.equal(row.rung, rung, row.reason);
      assert.ok(row.changed > 1000, "the workload changed much");
      assert.equal(row.missed, 0);
    }
    context.diagnostic(`${rung}: tick and scan of two disks ${scanMs.toFixed(0)} ms, resident ${(residentBytes / 1e6).toFixed(0)} MB`);
    assert.equal(await leftovers(guest), "", "nothing stays behind");
  }
});
