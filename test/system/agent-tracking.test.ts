// Change tracking in a real guest kernel: of heavy mixed writes, trims among them, not one changed granule may be missed.

import assert from "node:assert/strict";
import { once } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { build } from "esbuild";
import { runCommand } from "../../src/base/run-command.ts";
import { differingGranules, startGuest, whyNoGuest } from "./agent-guest.ts";

const here = fileURLToPath(new URL(".", import.meta.url));
const reason = await whyNoGuest();

const prepare = `set -e
sgdisk -n1:0:+1500M -t1:8e00 -n2:0:0 /dev/vdb >/dev/null; udevadm settle; [ -e /dev/vdb2 ] || { blockdev --rereadpt /dev/vdb; udevadm settle; }
pvcreate -q /dev/vdb1 >/dev/null; vgcreate -q vg /dev/vdb1 >/dev/null; lvcreate -q -n x -L 1.2G vg >/dev/null
mkfs.xfs -q /dev/vg/x; mkfs.ext4 -q /dev/vdb2; mkdir -p /w /mnt/x /mnt/e; mount /dev/vg/x /mnt/x; mount /dev/vdb2 /mnt/e; sync`;

const workload = `
for d in /w /mnt/x /mnt/e; do (
  cd $d
  fio --name=d --size=48m --rw=randwrite --bs=4k --ioengine=libaio --iodepth=16 --direct=1 --runtime=8 --time_based >/dev/null &
  fio --name=m --size=24m --rw=randwrite --bs=4k --ioengine=mmap --runtime=8 --time_based --rate=4m >/dev/null &
  fio --name=b --size=24m --rw=randwrite --bsrange=512-32k --ioengine=psync --fsync=32 --runtime=8 --time_based --rate=4m >/dev/null &
  for i in $(seq 60); do mkdir -p t/$((i%7)); head -c $((i*3000)) /dev/urandom > t/$((i%7))/$i; done
  fallocate -l 20m z; fallocate -z -o 1m -l 8m z; fallocate -p -o 12m -l 2m z; dd if=/dev/urandom of=z bs=1M count=3 seek=15 conv=notrunc 2>/dev/null
  wait; rm -rf t z; sync -f .; fstrim .
) & done; wait; sync`;

test("the tracker misses no changed granule of a busy guest", { skip: reason ?? false, timeout: 900_000 }, async (context) => {
  await using guest = await startGuest();
  const bundle = await build({
    entryPoints: [join(here, "agent-tracking-probe.ts")],
    bundle: true,
    write: false,
    platform: "node",
    format: "esm",
    logLevel: "silent",
  });
  await guest.run("cat > /root/probe.mjs", bundle.outputFiles[0]?.contents);
  await guest.run(prepare);
  const probe = guest.start("/opt/watari-agent/bin/node --disable-warning=ExperimentalWarning /root/probe.mjs vda vdb");
  const ready = await probe.next();
  assert.equal(ready["ready"], true);
  probe.say("acknowledge");
  await probe.next();

  await guest.pause();
  for (const path of Object.values(guest.disks)) await runCommand("cp", ["--sparse=always", path, `${path}.before`]);
  await guest.resume();
  await guest.run(workload);
  await guest.pause();
  const changed = new Map<string, Set<number>>();
  for (const [name, path] of Object.entries(guest.disks)) changed.set(name, await differingGranules(`${path}.before`, path));
  await guest.resume();

  probe.say("dump");
  for (let disk = 0; disk < 2; disk++) {
    const answer = await probe.next();
    const name = String(answer["name"]);
    const marked = new Set<number>();
    for (const [first, count] of answer["runs"] as [number, number][])
      for (let granule = first; granule < first + count; granule++) marked.add(granule);
    const truth = changed.get(name) ?? new Set<number>();
    const missed = truth.difference(marked);
    const excess = ((marked.size - truth.size + missed.size) / Math.max(1, marked.size)) * 100;
    context.diagnostic(
      `${name}: ${truth.size} granules changed, ${marked.size} marked, ${missed.size} missed, ${excess.toFixed(1)} % marked but equal (trims of free space mostly), ${String(answer["completions"])} completions`,
    );
    assert.ok(truth.size > 1000, "the workload changed much");
    assert.equal(missed.size, 0);
    assert.equal(answer["lost"], 0);
  }
  const done = await probe.next();
  context.diagnostic(
    `tick and scan of two disks: ${Number(done["ms"]).toFixed(0)} ms, resident ${(Number(done["rss"]) / 1e6).toFixed(0)} MB`,
  );
  probe.say("remove");
  probe.child.stdin?.end();
  await once(probe.child, "exit");
  assert.equal((await guest.run("ls /sys/fs/bpf/watari")).trim(), "", "nothing stays pinned");
});
