// A disk that is reached by several ways is one disk: refused while the ways are not joined, tracked where dm-multipath joins them, whichever way writes take.

import assert from "node:assert/strict";
import { test } from "node:test";
import { whyNoGuest } from "./agent-guest-image.ts";
import { agentLog, startGuestAgent, type GuestAgent } from "./guest-agent.ts";

const reason = await whyNoGuest();
const mebibyte = 1 << 20;
const ways = ["a", "b"] as const;
const write = (name: string): string =>
  `dd if=/dev/urandom of=/data/${name}.a bs=1M count=8 conv=fsync 2>/dev/null; dd if=/dev/urandom of=/data/${name}.b bs=64k count=64 oflag=direct 2>/dev/null; rm -f /data/older; fstrim /data; sync`;
test("a disk with several ways is replicated as one", { skip: reason ?? false, timeout: 1_500_000 }, async (context) => {
  await using agent = await startGuestAgent({
    packages: ["multipath-tools"],
    vdbBytes: 16 * mebibyte,
    more: [{ name: "joined", sizeBytes: 192 * mebibyte, bus: "virtio", isLate: true }],
  });
  const { guest, start, done, order, takeModes, rungs } = agent;
  try {
    await start();
    await guest.run("systemctl stop multipathd.socket multipathd 2>/dev/null || true; modprobe dm-multipath; modprobe virtio_scsi");
    for (const way of ways) {
      await addController(agent, way);
      await plugWay(agent, way);
    }
    await guest.run(`for i in $(seq 120); do [ $(lsblk -dno NAME | grep -c '^sd') = 2 ] && exit 0; sleep 0.5; done; lsblk; exit 1`);

    await context.test("ways that nobody joins are refused, and the fault names both", async (t) => {
      const result = await order({ kind: "point" });
      assert.ok(result.outcome === "failed" && result.fault.id === "DiskUnidentified", JSON.stringify(result));
      assert.match(result.fault.message, /sda.*sdb|sdb.*sda/);
      t.diagnostic(result.fault.message);
    });

    await context.test("ways that are joined are one disk on the best rung", async (t) => {
      await guest.run(
        `printf 'defaults {\\n user_friendly_names yes\\n find_multipaths no\\n}\\n' > /etc/multipath.conf; systemctl start multipathd; for i in $(seq 120); do [ -e /dev/mapper/mpatha ] && [ $(ls /sys/block/$(basename $(readlink -f /dev/mapper/mpatha))/slaves | wc -l) = 2 ] && break; sleep 0.5; done; multipath -ll; mkfs.ext4 -q /dev/mapper/mpatha; mkdir -p /data; mount /dev/mapper/mpatha /data; touch /data/older`,
      );
      takeModes();
      await done({ kind: "point" });
      assert.deepEqual(takeModes().at(-1), { vda: "delta", vdb: "delta", joined: "full" });
      assert.equal(rungs()["joined"], "ebpf");
      await guest.run(write("both"));
      await done({ kind: "point" });
      assert.deepEqual(takeModes(), [{ vda: "delta", vdb: "delta", joined: "delta" }]);
      t.diagnostic((await guest.run("dmsetup table mpatha")).trim());
    });

    await context.test("nothing is lost or read anew when a way fails, is taken off, and comes back", async () => {
      await guest.run(`echo offline > /sys/block/sda/device/state; ${write("failed")}`);
      await done({ kind: "point" });
      await guest.monitor("device_del", { id: "way-a" });
      await guest.run(`for i in $(seq 120); do [ $(lsblk -dno NAME | grep -c '^sd') = 1 ] && break; sleep 0.5; done; ${write("gone")}`);
      await done({ kind: "point" });
      await plugWay(agent, "a");
      await guest.run(
        `for i in $(seq 240); do [ $(ls /sys/block/$(basename $(readlink -f /dev/mapper/mpatha))/slaves | wc -l) = 2 ] && break; sleep 0.5; done; ${write("back")}`,
      );
      await done({ kind: "point" });
      const delta = { vda: "delta", vdb: "delta", joined: "delta" };
      assert.deepEqual(takeModes(), [delta, delta, delta]);
      const { repairedBlockCount } = await done({ kind: "verify" });
      assert.equal(repairedBlockCount, 0, "the points before held all that had changed");
      const final = await done({ kind: "quiesce", holdSecondsMax: 600 });
      assert.ok(final.pointId !== undefined);
      const compared = await agent.compare(final.pointId);
      assert.deepEqual([...compared.keys()].toSorted(), ["joined", "vda", "vdb"]);
      for (const [disk, { blocks }] of compared) assert.equal(blocks, 0, `${disk} equals its replica`);
      await done({ kind: "release" });
    });
  } catch (error) {
    context.diagnostic(await agentLog(guest).catch(() => "no log"));
    throw error;
  }
});

/** One more way to the disk: a controller of its own over the one file. */
async function addController({ guest }: GuestAgent, way: (typeof ways)[number]): Promise<void> {
  await guest.monitor("device_add", { driver: "virtio-scsi-pci", id: `controller-${way}` });
  const filename = guest.disks["joined"] ?? "";
  await guest.monitor("blockdev-add", { driver: "file", "node-name": `file-${way}`, filename, locking: "off", discard: "unmap" });
}

async function plugWay({ guest }: GuestAgent, way: (typeof ways)[number]): Promise<void> {
  const unit = { driver: "scsi-hd", bus: `controller-${way}.0`, drive: `file-${way}`, serial: "TEST-joined" };
  await guest.monitor("device_add", { ...unit, id: `way-${way}`, "share-rw": true });
}
