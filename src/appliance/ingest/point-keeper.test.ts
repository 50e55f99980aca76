// Retention on an appliance: what a policy does not keep leaves vault and list and is told, what is held stays.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { systemClock, toTimestamp, type Clock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { parseDiskId, parseMachineId, parsePointId, parseVaultId, type PointId } from "../../contract/ids.ts";
import { MemoryStore } from "../../store/memory-store.ts";
import { openVault, openVaultReader } from "../../vault/open-vault.ts";
import { openStateDatabase } from "../state/database.ts";
import { listBrought, removeExpired } from "./point-keeper.ts";
import { createPointLedger } from "./point-ledger.ts";

const minuteMs = 60_000;

describe("Retention on an appliance", () => {
  it("removes what the policy does not keep, tells the hub, and leaves what is held", async () => {
    const folder = await mkdtemp(join(tmpdir(), "watari-keeper-"));
    try {
      using database = openStateDatabase(join(folder, "state.sqlite"));
      const nowMs = 30_000 * 24 * 60 * minuteMs;
      const clock: Clock = { ...systemClock, nowMs: () => nowMs };
      const ledger = createPointLedger({ database, clock });
      const secret = { store: new MemoryStore(), vaultId: parseVaultId(systemRandom.uuid()), key: randomBytes(32) };
      await using vault = await openVault({ ...secret, clock, random: systemRandom, log: silentLog });
      await using reader = await openVaultReader(secret);
      const machineId = parseMachineId(systemRandom.uuid());
      const seal = async (timeMs: number): Promise<PointId> => {
        const pointId = parsePointId(systemRandom.uuid());
        const disks = [{ diskId: parseDiskId("disk-1"), sizeBytes: 65_536, isBoot: true, excluded: [] }];
        await using writer = await vault.beginPoint({ pointId, machineId, disks });
        const counts = { readBytes: 0, sentBytes: 0, storedBytes: 0, frozenMs: 0 };
        const facts = { timeMs, sealedAt: toTimestamp(timeMs), consistency: "crash", mode: "full" } as const;
        const report = { pointId, machineId, ...facts, ...counts, disks: [] };
        ledger.prepare({ report, bootId: "boot", repairedBlockCount: 0 });
        ledger.complete(await writer.seal({ timeMs, consistency: "crash" }));
        return pointId;
      };
      const points: PointId[] = [];
      for (const ageMinutes of [90, 40, 20, 10]) points.push(await seal(nowMs - ageMinutes * minuteMs));
      const [expired = assert.fail(), held = assert.fail(), kept = assert.fail(), newest = assert.fail()] = points;
      assert.ok(await reader.holdPoint(held, "landed-1"));
      const policy = { pointIntervalSeconds: 5, freezeMsMax: 2000, historyMinutes: 30 };
      const registry = { list: () => [{ machineId, policy }] as never };
      const parts = { vault, ledger, registry, clock, log: silentLog };
      const { signal } = new AbortController();
      const brought = new Map();
      assert.equal(await removeExpired(parts, brought, signal), 0, "the hub does not know of the points yet");
      ledger.markTold(points);
      assert.equal(await removeExpired(parts, brought, signal), 1);
      assert.deepEqual(await Promise.all(points.map(async (pointId) => (await reader.point(pointId)) !== undefined)), [
        false,
        true,
        true,
        true,
      ]);
      assert.deepEqual(ledger.untoldRemovals(10), [expired]);
      ledger.markRemovalsTold([expired]);
      await reader.releasePoint(held, "landed-1");
      policy.historyMinutes = 0;
      assert.equal(await removeExpired(parts, brought, signal), 2);
      assert.deepEqual(new Set(ledger.untoldRemovals(10)), new Set([held, kept]));
      assert.equal(ledger.newestOf(machineId)?.pointId, newest);
      assert.ok(await reader.point(newest));
      // A point that another appliance has sealed is found in the vault.
      const foreign = parsePointId(systemRandom.uuid());
      {
        const disks = [{ diskId: parseDiskId("disk-1"), sizeBytes: 65_536, isBoot: true, excluded: [] }];
        await using writer = await vault.beginPoint({ pointId: foreign, machineId, disks });
        await writer.seal({ timeMs: nowMs - 90 * minuteMs, consistency: "crash" });
      }
      const listed = await listBrought(parts, signal);
      assert.deepEqual([...(listed.get(machineId)?.keys() ?? [])], [foreign]);
      assert.equal(await removeExpired(parts, listed, signal), 1);
      assert.equal(await reader.point(foreign), undefined);
      assert.equal(listed.get(machineId)?.size, 0);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
