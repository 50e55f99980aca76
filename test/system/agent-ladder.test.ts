// Each machine lands on the right rung by itself and says why: a disk without events, no eBPF, no tracing; and swaps of every kind stay out.

import assert from "node:assert/strict";
import { test } from "node:test";
import { agentPlaces } from "../../src/agent/unit.ts";
import { whyNoGuest } from "./agent-guest-image.ts";
import { agentLog, nameOf, startGuestAgent, type GuestAgent } from "./guest-agent.ts";

const reason = await whyNoGuest();
const unit = agentPlaces.unitName;
const mebibyte = 1 << 20;
const vdb = "/dev/disk/by-id/virtio-TEST-vdb";
const dropIn = `/run/systemd/system/${unit}.d/denied.conf`;

/** LVM with a swap and a filesystem on vdb, a filesystem on the disk without events, a swap file on the root. */
const prepare = `set -e
pvcreate -q ${vdb} >/dev/null; vgcreate -q vg ${vdb} >/dev/null; lvcreate -q -n swap -L 64M vg >/dev/null; lvcreate -q -n data -L 128M vg >/dev/null
mkswap -L kept /dev/vg/swap >/dev/null; swapon /dev/vg/swap; mkfs.ext4 -q /dev/vg/data; mkdir -p /data; mount /dev/vg/data /data
mkfs.ext4 -q /dev/nvme0n1; mount /dev/nvme0n1 /mnt
fallocate -l 48M /swap; chmod 600 /swap; mkswap /swap >/dev/null; swapon /swap; sync`;

const churn = "for f in /data /mnt /var; do dd if=/dev/urandom of=$f/churn bs=64k count=64 conv=fsync 2>/dev/null; done; sync";

test(
  "each machine lands on the right rung by itself, and its points are right there",
  { skip: reason ?? false, timeout: 1_800_000 },
  async (context) => {
    await using agent = await startGuestAgent({ vdbBytes: 256 * mebibyte, more: [{ name: "nvm", sizeBytes: 24 * mebibyte, bus: "nvme" }] });
    const { guest, start, done } = agent;
    try {
      await guest.run(prepare);
      await context.test("eBPF, and a disk that raises no events is read whole", async (t) => {
        await start();
        assert.deepEqual(await rungsAfterPoint(agent), { vda: "ebpf", vdb: "ebpf", nvm: "checksum" });
        assert.match(reasonsOf(agent)["nvm"] ?? "", /raised no block event/);
        t.diagnostic(JSON.stringify(reasonsOf(agent)));
      });
      await context.test("swaps on LVM and in files are left out, but for the page that they are known by", async () => {
        const excludedBytes = agent.excludedBytes();
        assert.equal(excludedBytes["vdb"], 64 * mebibyte - 4096);
        assert.equal(excludedBytes["vda"], 48 * mebibyte - 4096);
        await guest.run(
          `swapoff /dev/vg/swap /swap; dd if=/dev/urandom of=/swap bs=1M count=48 conv=notrunc,fsync 2>/dev/null; mkfs.ext4 -qF /dev/vg/swap`,
        );
        await requireEqual(agent);
        await guest.run("mkswap /swap >/dev/null; swapon /swap");
      });
      await context.test("tracefs where bpf(2) is refused", async (t) => {
        await deny(agent, "SystemCallFilter=~bpf\nSystemCallErrorNumber=EPERM");
        assert.deepEqual(await rungsAfterPoint(agent), { vda: "tracefs", vdb: "tracefs", nvm: "checksum" });
        assert.match(reasonsOf(agent)["vda"] ?? "", /eBPF: the kernel does not allow it/);
        t.diagnostic(JSON.stringify(reasonsOf(agent)));
        agent.takeModes();
        await guest.run(`systemctl kill -s KILL ${unit}; ${churn}`);
        await done({ kind: "point" });
        assert.deepEqual(agent.takeModes()[0], { vda: "delta", vdb: "delta", nvm: "checksum" }, "a killed agent goes on");
        await requireEqual(agent);
      });
      await context.test("tracefs notices that its buffers overran", async () => {
        agent.takeModes();
        await guest.run(
          `systemctl kill -s STOP ${unit}; dd if=/dev/zero of=/dev/vg/swap bs=512 count=90000 oflag=direct 2>/dev/null; systemctl kill -s CONT ${unit}`,
        );
        await done({ kind: "point" });
        assert.ok(
          agent.takeModes().some((modes) => modes["vdb"] === "checksum"),
          "the disk is compared whole",
        );
        await requireEqual(agent);
      });
      await context.test("nothing sees changes where tracing is locked down too, and the agent says so instead of a point", async (t) => {
        await guest.run("echo confidentiality > /sys/kernel/security/lockdown");
        await guest.run(`systemctl restart ${unit}`);
        const result = await agent.order({ kind: "point" });
        assert.ok(result.outcome === "failed" && result.fault.id === "TrackingRefused", JSON.stringify(result));
        t.diagnostic(result.fault.message);
        t.diagnostic(JSON.stringify(reasonsOf(agent)));
        assert.equal(agent.rungs()["vda"], "checksum");
      });
      await context.test("eBPF where the kernel is locked down but bpf(2) is not refused", async () => {
        await guest.run(`rm ${dropIn}; systemctl daemon-reload; systemctl restart ${unit}`);
        assert.deepEqual(await rungsAfterPoint(agent), { vda: "ebpf", vdb: "ebpf", nvm: "checksum" });
        await requireEqual(agent);
      });
    } catch (error) {
      context.diagnostic(await agentLog(guest).catch(() => "no log"));
      throw error;
    }
  },
);

async function deny({ guest }: GuestAgent, lines: string): Promise<void> {
  await guest.run(
    `mkdir -p $(dirname ${dropIn}); printf '[Service]\\n${lines.replaceAll("\n", "\\n")}\\n' > ${dropIn}; systemctl daemon-reload; systemctl restart ${unit}`,
  );
}

async function rungsAfterPoint(agent: GuestAgent): Promise<Readonly<Record<string, string>>> {
  await agent.guest.run(churn);
  await agent.done({ kind: "point" });
  return agent.rungs();
}

function reasonsOf({ state }: GuestAgent): Readonly<Record<string, string>> {
  return Object.fromEntries(state().disks.map(({ diskId, tracking }) => [nameOf(diskId), tracking.reason]));
}

/** A final point is the disks as they stand. */
async function requireEqual({ done, compare, guest }: GuestAgent): Promise<void> {
  await guest.run(churn);
  const { pointId } = await done({ kind: "point" });
  assert.ok(pointId !== undefined);
  const { repairedBlockCount } = await done({ kind: "verify" });
  assert.equal(repairedBlockCount, 0, "the points before held all that had changed");
  const final = await done({ kind: "quiesce", holdSecondsMax: 600 });
  assert.ok(final.pointId !== undefined);
  for (const [disk, { blocks }] of await compare(final.pointId)) assert.equal(blocks, 0, `${disk} equals its replica`);
  await done({ kind: "release" });
}
