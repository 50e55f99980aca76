// One trial of a tracker in a guest: images of its disks before and after heavy mixed writes and trims, each granule against the tracker's marks.

import { once } from "node:events";
import { join } from "node:path";
import { build } from "esbuild";
import { systemClock } from "../../src/base/clock.ts";
import { runCommand } from "../../src/base/run-command.ts";
import { differingGranules, type Guest } from "./agent-guest.ts";

const trackedDisks = ["vda", "vdb"] as const;

export interface TrialRow {
  readonly disk: string;
  readonly rung: string;
  readonly reason: string;
  /** Granules of 4 KiB that were compared: all of the disk. */
  readonly compared: number;
  readonly changed: number;
  readonly marked: number;
  readonly missed: number;
  /** Marked though equal, of all marked. Most are trims of free space, which a tracker must call changed. */
  readonly falselyDirtyShare: number;
}

export interface Trial {
  readonly rows: readonly TrialRow[];
  /** To close an epoch and list what it holds, both disks. */
  readonly scanMs: number;
  readonly residentBytes: number;
}

const unique = "/dev/disk/by-id/virtio-TEST-vdb";

/** Partitions, LVM, md and dm-crypt on vdb, with XFS, ext4 and btrfs on them; the root stands on vda without any of it. */
const prepare = `set -e
sgdisk -n1:0:+1100M -t1:8e00 -n2:0:+600M -n3:0:+400M -n4:0:+400M -n5:0:+128M ${unique} >/dev/null; udevadm settle
[ -e ${unique}-part5 ] || { blockdev --rereadpt ${unique}; udevadm settle; }
pvcreate -q ${unique}-part1 >/dev/null; vgcreate -q vg ${unique}-part1 >/dev/null; lvcreate -q -n x -L 1G vg >/dev/null
mdadm --quiet --create /dev/md7 --run --level=1 --raid-devices=2 --metadata=1.2 ${unique}-part3 ${unique}-part4 </dev/null
head -c 32 /dev/urandom > /run/key; cryptsetup open --type plain --key-file /run/key --cipher aes-xts-plain64 /dev/md7 sealed
mkfs.xfs -q /dev/vg/x; mkfs.ext4 -q ${unique}-part2; mkfs.btrfs -q /dev/mapper/sealed
mkdir -p /w /mnt/x /mnt/e /mnt/b; mount /dev/vg/x /mnt/x; mount ${unique}-part2 /mnt/e; mount /dev/mapper/sealed /mnt/b; sync`;

/** Buffered, direct and mapped writes with their journals, files made and removed, zeroed and punched ranges, trims, and raw discards. */
const workloadOf = (seconds: number): string => `
for d in /w /mnt/x /mnt/e /mnt/b; do (
  cd $d
  fio --name=d --size=48m --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --runtime=${seconds} --time_based >/dev/null &
  fio --name=m --size=24m --rw=randwrite --bs=4k --ioengine=mmap --runtime=${seconds} --time_based --rate=4m >/dev/null &
  fio --name=b --size=24m --rw=randwrite --bsrange=512-32k --ioengine=psync --fsync=32 --runtime=${seconds} --time_based --rate=4m >/dev/null &
  for i in $(seq 60); do mkdir -p t/$((i%7)); head -c $((i*3000)) /dev/urandom > t/$((i%7))/$i; done
  fallocate -l 20m z; fallocate -z -o 1m -l 8m z; fallocate -p -o 12m -l 2m z; dd if=/dev/urandom of=z bs=1M count=3 seek=15 conv=notrunc 2>/dev/null
  wait; rm -rf t z; sync -f .; fstrim . || true
) & done
dd if=/dev/urandom of=${unique}-part5 bs=1M count=64 oflag=direct 2>/dev/null; blkdiscard -o 8388608 -l 16777216 ${unique}-part5
blkdiscard -z -o 33554432 -l 8388608 ${unique}-part5; dd if=/dev/urandom of=${unique}-part5 bs=512 count=77 seek=9999 oflag=direct 2>/dev/null
wait; sync`;

/** The tracker of src as one file for the guest. */
async function bundleProbe(): Promise<Uint8Array> {
  const bundle = await build({
    entryPoints: [join(import.meta.dirname, "agent-tracking-probe.ts")],
    bundle: true,
    write: false,
    platform: "node",
    format: "esm",
    logLevel: "silent",
  });
  const bytes = bundle.outputFiles[0]?.contents;
  if (bytes === undefined) throw new Error("esbuild made no file");
  return bytes;
}

/** Puts the probe and the filesystems there; once a boot. */
export async function prepareTrials(guest: Guest): Promise<void> {
  await guest.run("cat > /root/probe.mjs", await bundleProbe());
  await guest.run(prepare);
}

export async function runTrial(guest: Guest, options: { readonly rung: string; readonly seconds: number }): Promise<Trial> {
  const names: string[] = [];
  for (const disk of trackedDisks) names.push((await guest.run(`basename $(readlink -f /dev/disk/by-id/virtio-TEST-${disk})`)).trim());
  await guest.run("rm -f /run/agent-tracking-session");
  const node = "/opt/watari-agent/bin/node --disable-warning=ExperimentalWarning";
  const probe = guest.start(`${node} /root/probe.mjs ${options.rung} ${names.join(" ")}`);
  const ready = await probe.next();
  const opened = new Map((ready["disks"] as { name: string; rung: string; reason: string }[]).map((disk) => [disk.name, disk]));
  probe.say("acknowledge");
  await probe.next();

  await guest.pause();
  for (const disk of trackedDisks) await runCommand("cp", ["--sparse=always", guest.disks[disk], `${guest.disks[disk]}.before`]);
  await guest.resume();
  await guest.run(workloadOf(options.seconds));
  await guest.pause();
  const truths = [];
  for (const disk of trackedDisks) truths.push(await differingGranules(`${guest.disks[disk]}.before`, guest.disks[disk]));
  await guest.resume();

  probe.say("dump");
  const rows: TrialRow[] = [];
  for (const [index, disk] of trackedDisks.entries()) {
    const answer = await probe.next();
    const truth = truths[index] ?? { compared: 0, differing: new Set<number>() };
    const marked = new Set<number>();
    for (const [first, count] of answer["runs"] as [number, number][])
      for (let granule = first; granule < first + count; granule++) marked.add(granule);
    const missed = truth.differing.difference(marked).size;
    const { rung = "", reason = "" } = opened.get(names[index] ?? "") ?? {};
    const counts = { compared: truth.compared, changed: truth.differing.size, marked: marked.size, missed };
    const falselyDirtyShare = (marked.size - truth.differing.size + missed) / Math.max(1, marked.size);
    rows.push({ disk, rung, reason, ...counts, falselyDirtyShare });
  }
  const done = await probe.next();
  probe.say("remove");
  probe.child.stdin?.end();
  await once(probe.child, "exit");
  return { rows, scanMs: Number(done["ms"]), residentBytes: Number(done["rss"]) };
}

/** What of the tracker is left in the kernel and in memory, as lines; none after `remove`. */
export async function leftovers(guest: Guest): Promise<string> {
  return (
    await guest.run("ls -d /sys/fs/bpf/watari/* /sys/kernel/tracing/instances/watari-* /run/watari-agent-changes/* 2>/dev/null || true")
  ).trim();
}

export function secondsSince(startedMs: number): number {
  return Math.round((systemClock.monotonicMs() - startedMs) / 1000);
}
