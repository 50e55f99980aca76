// For tests: a vault in memory that keeps the promises of src/vault/vault.ts, slow and simple enough to be trusted.

import { createHash } from "node:crypto";
import { Fault } from "../../contract/errors.ts";
import type { DiskId, MachineId, PointId } from "../../contract/ids.ts";
import { blockBytes, blockCountOf, granuleBytes } from "../../disk/geometry.ts";
import type { BlockId, PointWriter, RecoveryPoint, Vault } from "../../vault/vault.ts";

const zeroId = "0".repeat(64);
const zeroBlock = new Uint8Array(blockBytes);

export interface MemoryVault extends Vault {
  readonly openWriterCount: number;
  /** The content of a sealed disk. */
  contentOf(pointId: PointId, diskId: DiskId): Uint8Array;
  /** Called before each stored block; may throw, or wait. */
  onStore: () => Promise<void> | void;
}

type Ids = Map<DiskId, string[]>;

export function createMemoryVault(): MemoryVault {
  const blocks = new Map<string, Uint8Array>();
  const owners = new Map<string, Set<MachineId>>();
  const points = new Map<PointId, { point: RecoveryPoint; ids: Ids }>();
  let openWriterCount = 0;
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
  const read = (id: string): Uint8Array => (id === zeroId ? zeroBlock : (blocks.get(id) ?? zeroBlock));
  const vault: MemoryVault = {
    onStore: () => undefined,
    get openWriterCount() {
      return openWriterCount;
    },
    contentOf: (pointId, diskId) => {
      const found = points.get(pointId);
      const disk = found?.point.disks.find((each) => each.diskId === diskId);
      const all = Buffer.concat((found?.ids.get(diskId) ?? []).map(read));
      return new Uint8Array(all.subarray(0, disk?.sizeBytes ?? 0));
    },
    listPoints: async function* (machineId) {
      for (const { point } of points.values())
        if (machineId === undefined || point.machineId === machineId) yield await Promise.resolve(point);
    },
    point: async (pointId) => await Promise.resolve(points.get(pointId)?.point),
    openDisk: async () => await Promise.reject(new Error("not part of this double")),
    removeMachine: async (machineId) => {
      for (const [id, { point }] of points) if (point.machineId === machineId) points.delete(id);
      return await Promise.resolve({ freedBytes: 0 });
    },
    beginPoint: async ({ pointId, machineId, parentPointId, disks }) => {
      if (points.has(pointId)) throw new Fault("StateConflict", "the point is sealed");
      const parent = parentPointId === undefined ? undefined : points.get(parentPointId);
      const ids: Ids = new Map(
        disks.map((disk) => [
          disk.diskId,
          Array.from({ length: blockCountOf(disk.sizeBytes) }, (_, block) => parent?.ids.get(disk.diskId)?.[block] ?? zeroId),
        ]),
      );
      openWriterCount += 1;
      let isOpen = true;
      let storedBytes = 0;
      const store = async (bytes: Uint8Array): Promise<string> => {
        await vault.onStore();
        const id = bytes.every((byte) => byte === 0) ? zeroId : createHash("sha256").update(bytes).digest("hex");
        if (!blocks.has(id) && id !== zeroId) {
          blocks.set(id, bytes.slice());
          storedBytes += bytes.length;
        }
        owners.set(id, (owners.get(id) ?? new Set()).add(machineId));
        return id;
      };
      const list = (diskId: DiskId): string[] => ids.get(diskId) ?? [];
      const writer: PointWriter = {
        need: async (_diskId, _firstBlock, asked) =>
          await Promise.resolve(asked.map((id) => hex(id) !== zeroId && owners.get(hex(id))?.has(machineId) !== true)),
        setBlock: (diskId, block, id: BlockId) => {
          list(diskId)[block] = hex(id);
        },
        putBlock: async (diskId, block, id, bytes) => {
          const real = createHash("sha256").update(bytes).digest("hex");
          if (real !== hex(id)) throw new Fault("DataDamaged", "a block does not have the digest that was told");
          list(diskId)[block] = await store(bytes);
        },
        patchBlock: async (diskId, block, granules) => {
          const bytes = read(list(diskId)[block] ?? zeroId).slice();
          for (const granule of granules) bytes.set(granule.bytes, granule.index * granuleBytes);
          list(diskId)[block] = await store(bytes);
        },
        blockId: async (diskId, block) => await Promise.resolve(Buffer.from(list(diskId)[block] ?? zeroId, "hex")),
        seal: async ({ timeMs, consistency, expectedRoots }) => {
          const point: RecoveryPoint = {
            pointId,
            machineId,
            timeMs,
            consistency,
            ...(parentPointId === undefined ? {} : { parentPointId }),
            disks: disks.map((disk) => ({ ...disk, root: createHash("sha256").update(list(disk.diskId).join()).digest("hex") })),
          };
          for (const { diskId, root } of expectedRoots ?? []) {
            if (point.disks.find((disk) => disk.diskId === diskId)?.root !== root) throw new Fault("RootsDiffer", "roots differ");
          }
          points.set(pointId, { point, ids: new Map([...ids].map(([diskId, each]) => [diskId, [...each]])) });
          return await Promise.resolve({ point, storedBytes });
        },
        [Symbol.asyncDispose]: async () => {
          if (isOpen) openWriterCount -= 1;
          isOpen = false;
          await Promise.resolve();
        },
      };
      return await Promise.resolve(writer);
    },
    [Symbol.asyncDispose]: async () => await Promise.resolve(),
  };
  return vault;
}
