// Whatever breaks change tracking on a real machine ends in equal disks, and costs a re-reading at most: killed, upgraded, starved, restarted, cut off, rewired.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { open } from "node:fs/promises";
import { test, type TestContext } from "node:test";
import { expediteSwitch } from "../../src/agent/snapshot/short-waits.ts";
import { agentPlaces } from "../../src/agent/unit.ts";
import { blockBytes, granuleBytes } from "../../src/disk/geometry.ts";
import { whyNoGuest } from "./agent-guest-image.ts";
import { agentLog, startGuestAgent, type GuestAgent } from "./guest-agent.ts";

const reason = await whyNoGuest();
const unit = agentPlaces.unitName;
const mebibyte = 1 << 20;
const residentBytesMax = 120e6;

interface Break {
  readonly name: string;
  /** What is done to the machine; it has 24 MiB of new bytes on vdb when it comes and afterwards. */
  readonly harm: (agent: GuestAgent, context: TestContext) => Promise<void>;
  /** The agent goes on in the same process: what it counts goes on too. */
  readonly isSurvived?: boolean;
  /** Modes of the point after it, by disk. */
  readonly modes: Readonly<Record<string, string>>;
}

/** 12 MiB that nothing can pack, once through the page cache and once past it. */
const write = (name: string): string =>
  `dd if=/dev/urandom of=/mnt/${name}.a bs=1M count=12 conv=fsync 2>/dev/null; dd if=/dev/urandom of=/mnt/${name}.b bs=64k count=192 oflag=direct 2>/dev/null; sync`;

const deltas = { vda: "delta", vdb: "delta" };
const compared = { vda: "checksum", vdb: "checksum" };

const breaks: readonly Break[] = [
  {
    name: "the agent is killed",
    harm: async ({ guest, wait }) => {
      await guest.run(`systemctl kill -s KILL ${unit}; ${write("killed")}`);
      await wait("the agent is back", (state) => state.pointCount > 0);
    },
    modes: deltas,
  },
  {
    name: "the agent is killed, with its watchdog, while the filesystems are frozen",
    harm: async ({ guest, order, wait }) => {
      await guest.run(
        `systemd-run -q sh -c 'until read -r on < ${expediteSwitch} && [ "$on" = 1 ]; do :; done; echo 1 > /sys/fs/cgroup/system.slice/${unit}/cgroup.kill; echo killed > /run/killed'`,
      );
      const result = await order({ kind: "point" });
      assert.ok(result.outcome === "failed" && result.fault.id === "OrderInterrupted", JSON.stringify(result));
      assert.equal(
        await guest.run(`${write("frozen")}; cat /run/killed ${expediteSwitch}; ls /run | grep watari-agent- || true`),
        "killed\n0\n",
      );
      await wait("the agent is back", (state) => state.pointCount > 0);
    },
    modes: deltas,
  },
  { name: "the machine restarts", harm: async (agent) => await restart(agent, "clean"), modes: compared },
  { name: "the machine's power is cut", harm: async (agent) => await restart(agent, "cut"), modes: compared },
  {
    name: "the disk grows",
    isSurvived: true,
    harm: async ({ guest }) => await guest.monitor("block_resize", { device: "vdb", size: 640 * mebibyte }),
    modes: { vda: "delta", vdb: "checksum" },
  },
  {
    name: "the disk is taken off, written to elsewhere, and put on again under another name",
    isSurvived: true,
    harm: async ({ guest }) => {
      await guest.run("umount /mnt");
      await guest.monitor("device_del", { id: "device-vdb" });
      await guest.run("while [ -e /dev/disk/by-id/virtio-TEST-vdb ]; do sleep 0.2; done");
      await guest.monitor("blockdev-add", { driver: "file", "node-name": "vdc-file", filename: guest.disks["vdc"] ?? "" });
      await guest.monitor("device_add", { driver: "virtio-blk-pci", drive: "vdc-file", id: "device-vdc", serial: "TEST-vdc" });
      await guest.run("while [ ! -e /dev/disk/by-id/virtio-TEST-vdc ]; do sleep 0.2; done");
      await using file = await open(guest.disks.vdb, "r+");
      await file.write(randomBytes(mebibyte), 0, mebibyte, 600 * mebibyte);
      await guest.monitor("blockdev-add", { driver: "file", "node-name": "vdb-file", filename: guest.disks.vdb });
      await guest.monitor("device_add", { driver: "virtio-blk-pci", drive: "vdb-file", id: "device-vdb-2", serial: "TEST-vdb" });
      await guest.run("while [ ! -e /dev/disk/by-id/virtio-TEST-vdb ]; do sleep 0.2; done; mount /dev/disk/by-id/virtio-TEST-vdb /mnt");
    },
    modes: { vda: "delta", vdb: "checksum", vdc: "full" },
  },
  {
    name: "the agent is upgraded",
    harm: async ({ guest, start }) => {
      await guest.run(`printf '\\n// Another build.\\n' >> ${agentPlaces.program}`);
      await start();
    },
    modes: { ...deltas, vdc: "delta" },
  },
  {
    name: "the agent runs out of memory",
    harm: async ({ guest, wait }) => {
      await guest.run(
        `systemctl set-property --runtime ${unit} MemoryMax=20M; ${write("starved")}; while ! journalctl -u ${unit} -b -o cat | grep -q "oom-kill\\|Failed with result 'oom"; do sleep 0.2; done`,
      );
      await guest.run(`systemctl set-property --runtime ${unit} MemoryMax=512M`);
      await wait("the agent is back", (state) => state.pointCount > 0);
    },
    modes: { ...deltas, vdc: "delta" },
  },
  {
    name: "the clock jumps ahead and back",
    isSurvived: true,
    harm: async ({ guest }) => void (await guest.run(`date -s '+3 days' >/dev/null; ${write("clock")}; date -s '-3 days' >/dev/null`)),
    modes: { ...deltas, vdc: "delta" },
  },
];

async function restart({ guest, wait }: GuestAgent, how: "clean" | "cut"): Promise<void> {
  await guest.run(write(how));
  await guest.restart(how);
  await guest.run("mount /dev/disk/by-id/virtio-TEST-vdb /mnt");
  await wait("the agent is back", (state) => state.pointCount > 0 && state.phase === "delta");
}

test(
  "whatever breaks tracking ends in equal disks, for a re-reading at most",
  { skip: reason ?? false, timeout: 3_000_000 },
  async (context) => {
    await using agent = await startGuestAgent({
      vdbBytes: 512 * mebibyte,
      more: [{ name: "vdc", sizeBytes: 32 * mebibyte, bus: "virtio", isLate: true }],
    });
    const { guest, wait, start } = agent;
    try {
      await guest.run("mkfs.ext4 -q /dev/disk/by-id/virtio-TEST-vdb; mount /dev/disk/by-id/virtio-TEST-vdb /mnt; sync");
      await guest.run("fallocate -l 64M /swap; chmod 600 /swap; mkswap /swap >/dev/null; swapon /swap");
      await start();
      await context.test("the first copy goes on after the agent was killed in the middle of it", async (t) => {
        const half = await wait("half of the copy", ({ disks }) => disks.some(({ copiedBytes, sizeBytes }) => copiedBytes > sizeBytes / 2));
        await guest.run(`systemctl kill -s KILL ${unit}; ${write("first")}`);
        const whole = await wait("the first point", ({ phase, pointCount }) => phase === "delta" && pointCount > 0);
        const sizeBytes = whole.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
        t.diagnostic(
          `killed after ${mebibytes(half.readBytes)} MiB of ${mebibytes(sizeBytes)}; ${mebibytes(whole.readBytes)} MiB were read afterwards`,
        );
        assert.ok(whole.readBytes < sizeBytes * 0.6, "what had been read is not read again");
        await requireEqual(agent);
      });
      for (const each of breaks) await context.test(each.name, async (t) => await runBreak(agent, each, t));
    } catch (error) {
      context.diagnostic(await agentLog(guest).catch(() => "no log"));
      throw error;
    }
  },
);

async function runBreak(agent: GuestAgent, { harm, modes, isSurvived }: Break, t: TestContext): Promise<void> {
  const { guest, done, state, compare, takeModes } = agent;
  const { pointId: basePointId } = await done({ kind: "point" });
  assert.ok(basePointId !== undefined);
  await guest.run(write("before"));
  const before = state();
  takeModes();
  await harm(agent, t);
  await guest.run(write("after"));
  const { pointId } = await done({ kind: "point" });
  const after = state();
  assert.ok(pointId !== undefined);
  const [first, ...more] = takeModes();
  assert.deepEqual(first, modes);
  for (const later of more)
    assert.ok(
      Object.values(later).every((mode) => mode === "delta"),
      "one comparison is enough",
    );
  const changed = [...(await compare(basePointId)).values()];
  const [blocks, granules] = [changed.reduce((sum, one) => sum + one.blocks, 0), changed.reduce((sum, one) => sum + one.granules, 0)];
  const sentBytes = after.sentBytes - (isSurvived === true ? before.sentBytes : 0);
  const share = sentBytes / (blocks * blockBytes);
  t.diagnostic(
    `${mebibytes(granules * granuleBytes)} MiB changed, in blocks of ${mebibytes(blocks * blockBytes)} MiB; ${mebibytes(sentBytes)} MiB went over the line, ${share.toFixed(3)} of the blocks, ${(sentBytes / (granules * granuleBytes)).toFixed(3)} of the granules; agent ${Math.round(after.residentBytes / 1e6)} MB resident; ${Object.values(first ?? {}).join(", ")}`,
  );
  assert.ok(share <= 1.05, "little more than what truly changed was sent");
  assert.ok(after.residentBytes < residentBytesMax, "the agent stays small");
  await requireEqual(agent);
}

const mebibytes = (bytes: number): string => (bytes / mebibyte).toFixed(1);

/** Nothing differs that the trackers had not seen, and the final point is the disks as they stand. */
async function requireEqual({ done, compare }: GuestAgent): Promise<void> {
  const { repairedBlockCount } = await done({ kind: "verify" });
  assert.equal(repairedBlockCount, 0, "the points before held all that had changed");
  const { pointId } = await done({ kind: "quiesce", holdSecondsMax: 600 });
  assert.ok(pointId !== undefined);
  for (const [disk, { blocks }] of await compare(pointId)) assert.equal(blocks, 0, `${disk} equals its replica`);
  await done({ kind: "release" });
}
