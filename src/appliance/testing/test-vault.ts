// For tests: the real vault over a store in memory, and two questions that tests ask of it.

import { randomBytes, randomUUID } from "node:crypto";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { parseDiskId, parsePointId, parseVaultId, type DiskId, type MachineId, type PointId } from "../../contract/ids.ts";
import { MemoryStore } from "../../store/memory-store.ts";
import { openVault } from "../../vault/open-vault.ts";
import type { Vault } from "../../vault/vault.ts";

export interface TestVault {
  readonly vault: Vault;
  /** The content of a sealed disk. */
  contentOf(pointId: PointId, diskId: DiskId): Promise<Uint8Array>;
  /** Whether no point of the machine is under way. */
  isFree(machineId: MachineId): Promise<boolean>;
}

export async function openTestVault(): Promise<TestVault> {
  const vault = await openVault({
    store: new MemoryStore(),
    vaultId: parseVaultId(randomUUID()),
    key: new Uint8Array(randomBytes(32)),
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  });
  return {
    vault,
    contentOf: async (pointId, diskId) => {
      await using disk = await vault.openDisk(pointId, diskId);
      const bytes = new Uint8Array(disk.sizeBytes);
      await disk.read(0, bytes);
      return bytes;
    },
    isFree: async (machineId) => {
      const disk = { diskId: parseDiskId("probe"), sizeBytes: 65_536, isBoot: false, excluded: [] };
      try {
        const writer = await vault.beginPoint({ pointId: parsePointId(randomUUID()), machineId, disks: [disk] });
        await writer[Symbol.asyncDispose]();
        return true;
      } catch (error) {
        if (error instanceof Fault && error.code === "StateConflict") return false;
        throw error;
      }
    },
  };
}
