// The helper machine that looks at points: their disks are plugged in one after the other, and never mounted on the host.

import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Vault } from "../../../src/vault/vault.ts";
import type { DiskId, PointId } from "../../../src/contract/ids.ts";
import type { Guest } from "../../system/agent-guest.ts";
import { putProgram, stampSlots } from "./source-guest.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { z } from "zod";

const chunkBytes = 4 << 20;

/** Writes a disk of a point into a sparse file; answers how many of its bytes are data. */
export async function writeDisk(
  vault: Vault,
  at: { readonly pointId: PointId; readonly diskId: DiskId; readonly path: string },
): Promise<number> {
  await using disk = await vault.openDisk(at.pointId, at.diskId);
  await using file = await open(at.path, "w");
  await file.truncate(disk.sizeBytes);
  let dataBytes = 0;
  for (let offset = 0; offset < disk.sizeBytes; offset += chunkBytes) {
    const length = Math.min(chunkBytes, disk.sizeBytes - offset);
    for (const extent of await disk.extents(offset, length)) {
      if (extent.kind === "zero") continue;
      const bytes = Buffer.alloc(extent.length);
      await disk.read(extent.offset, bytes);
      await file.write(bytes, 0, bytes.length, extent.offset);
      dataBytes += bytes.length;
    }
  }
  return dataBytes;
}

const verdictShape = z.object({ stampCount: z.number(), newest: z.number(), wrong: z.array(z.string()) });

export interface PointVerdict {
  readonly stamps: z.infer<typeof verdictShape>;
  /** What each check of a filesystem and of the database found; empty when nothing. */
  readonly faults: readonly string[];
  readonly historyRows: number;
  readonly recoveryMs: number;
  readonly restRows: number;
}

/** Each line of its output is a fault, but for those that begin with "=". */
const check = `
cd / # The database's user may not be in root's folder, and says so.
fault() { echo "$1: $(echo "$2" | tail -n 3 | tr '\\n' ' ')"; }
try() { what=$1; shift; out=$("$@" 2>&1) || fault "$what" "$out"; }
udevadm settle
root=/dev/disk/by-id/virtio-POINT-vda; data=/dev/disk/by-id/virtio-POINT-vdb
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e $data-part3 ] && [ -e $root ] && break; sleep 1; udevadm settle; done
mkdir -p /p/r /p/e /p/x /p/b
try "e2fsck of the root, as frozen" e2fsck -fn $root
try "e2fsck of ext4, as frozen" e2fsck -fn $data-part1
try "mount of the root" mount $root /p/r
try "mount of ext4" mount $data-part1 /p/e
try "mount of XFS" mount -o nouuid $data-part2 /p/x
try "mount of btrfs" mount $data-part3 /p/b
echo "=stamps $(CHECK ${stampSlots} /p/r/var/stamps /p/e /p/x /p/b)"
bin=$(ls -d /usr/lib/postgresql/*/bin)
rm -f /p/e/data/postmaster.pid /p/e/data/pg_wal; ln -s /p/x/wal /p/e/data/pg_wal
begin=$(date +%s%3N)
try "PostgreSQL's recovery" runuser -u postgres -- $bin/pg_ctl -D /p/e/data -l /tmp/pg.log -w -t 120 start
echo "=recovery $(( $(date +%s%3N) - begin ))"
ask() { runuser -u postgres -- psql -qAth /tmp -c "$1" postgres; }
sums=$(ask "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta),0) from pgbench_history) and (select sum(tbalance) from pgbench_tellers) = (select coalesce(sum(delta),0) from pgbench_history) and (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta),0) from pgbench_history)" 2>&1)
[ "$sums" = t ] || fault "pgbench's sums" "$sums $(tail -n 2 /tmp/pg.log)"
try "pg_amcheck or a full read" runuser -u postgres -- $bin/pg_dump -h /tmp -f /dev/null postgres
echo "=history $(ask 'select count(*) from pgbench_history')"
echo "=rest $(ask 'select count(*) from rest')"
try "PostgreSQL's stop" runuser -u postgres -- $bin/pg_ctl -D /p/e/data -m fast -w stop
for at in /p/r /p/e /p/x /p/b; do try "umount of $at" umount $at; done
try "e2fsck of the root, after replay" e2fsck -fn $root
try "e2fsck of ext4, after replay" e2fsck -fn $data-part1
try "xfs_repair -n, after replay" xfs_repair -n $data-part2
try "btrfs check, after replay" btrfs check --readonly $data-part3
btrfs device scan --forget >/dev/null 2>&1 || true
rm -f /tmp/pg.log`;

/** Plugs the two disks in, checks, and takes them out again. */
export async function checkPoint(guest: Guest, folder: string): Promise<PointVerdict> {
  const program = await putProgram(guest, "check-child.ts");
  for (const name of ["vda", "vdb"]) {
    await guest.monitor("blockdev-add", {
      "node-name": `point-${name}`,
      driver: "raw",
      file: { driver: "file", filename: join(folder, name) },
    });
    await guest.monitor("device_add", { driver: "virtio-blk-pci", drive: `point-${name}`, id: `plug-${name}`, serial: `POINT-${name}` });
  }
  try {
    return parseVerdict(await guest.run(check.replace("CHECK", program)));
  } finally {
    for (const name of ["vda", "vdb"]) {
      await guest.monitor("device_del", { id: `plug-${name}` });
      await guest.run(`for i in $(seq 60); do [ -e /dev/disk/by-id/virtio-POINT-${name} ] || exit 0; sleep 0.5; done; exit 1`);
      await removeNode(guest, `point-${name}`);
      await rm(join(folder, name), { force: true });
    }
  }
}

/** The machine lets go of a disk a moment after its guest does. */
async function removeNode(guest: Guest, name: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await guest.monitor("blockdev-del", { "node-name": name });
    } catch (error) {
      if (attempt === 20) throw error;
      await systemClock.sleep(500);
    }
  }
}

function parseVerdict(output: string): PointVerdict {
  const lines = output.split("\n").filter((line) => line !== "");
  const told = (name: string): string => lines.find((line) => line.startsWith(`=${name} `))?.slice(name.length + 2) ?? "";
  const stamps = verdictShape.safeParse(told("stamps") === "" ? undefined : JSON.parse(told("stamps")));
  const faults = lines.filter((line) => !line.startsWith("="));
  return {
    stamps: stamps.success ? stamps.data : { stampCount: 0, newest: 0, wrong: ["the stamps could not be read"] },
    faults,
    historyRows: Number(told("history")),
    recoveryMs: Number(told("recovery")),
    restRows: Number(told("rest")),
  };
}
