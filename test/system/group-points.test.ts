// Points of a group of machines: real agents over simulated machines against an appliance's real ports agree on one moment, or say why not.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { registerSimulatedAgent, startSimulatedAgent } from "../../src/agent/sim/simulated-agent.ts";
import { SimulatedSource } from "../../src/agent/sim/simulated-source.ts";
import { startTestSite, type TestSite } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { ReplicationPolicy } from "../../src/contract/agent-control.ts";
import type { SealedPointReport } from "../../src/contract/appliance-protocol.ts";
import { parseDiskId, parseOrderId, parseVaultId, type MachineId } from "../../src/contract/ids.ts";
import { openDirectoryStore } from "../../src/store/directory-store.ts";
import { openVault } from "../../src/vault/open-vault.ts";
import type { Vault } from "../../src/vault/vault.ts";

const diskId = parseDiskId("serial-a");
const sizeBytes = 4 * 2 ** 20;
/** Where the stamps lie: far from each other, so that a point takes several frames. */
const stampOffsets = [0, 2 ** 20, 3 * 2 ** 20] as const;
const group = { groupId: randomUUID(), name: "shop" };
const policy: ReplicationPolicy = { pointIntervalSeconds: 1, freezeMsMax: 1000 };

interface Member extends AsyncDisposable {
  readonly machineId: MachineId;
  readonly source: SimulatedSource;
  points(): readonly SealedPointReport[];
  /** The stamp that was written first and the one that was written last. */
  stampsOf(point: SealedPointReport): Promise<{ readonly first: number; readonly last: number }>;
  stopAgent(): Promise<void>;
  /** Waits before each freeze from now on. */
  hang(until: Promise<void> | undefined): void;
}

interface Scene extends AsyncDisposable {
  readonly site: TestSite;
  readonly members: readonly [Member, Member];
  setGroup(isOn: boolean): Promise<void>;
}

async function openScene(): Promise<Scene> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-group-"));
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  const store = cleanup.use(await openDirectoryStore(join(folder, "store")));
  const parts = { store, vaultId: parseVaultId(randomUUID()), key: randomBytes(32) };
  const vault = cleanup.use(await openVault({ ...parts, clock: systemClock, random: systemRandom, log: silentLog }));
  const site = cleanup.use(await startTestSite({ vault }));
  const members = [
    cleanup.use(await openMember({ folder, site, vault, name: "a" })),
    cleanup.use(await openMember({ folder, site, vault, name: "b" })),
  ] as const;
  const owned = cleanup.move();
  return {
    site,
    members,
    setGroup: async (isOn) => {
      for (const { machineId } of members) {
        const wanted = isOn ? { ...policy, group } : policy;
        site.registry.setPolicy(machineId, wanted);
        const orderId = parseOrderId(randomUUID());
        site.orders.give(machineId, { kind: "replicate", orderId, policy: wanted });
        assert.equal((await site.orders.waitResult(orderId)).outcome, "done");
      }
    },
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}

async function openMember(at: {
  readonly folder: string;
  readonly site: TestSite;
  readonly vault: Vault;
  readonly name: string;
}): Promise<Member> {
  const { folder, site, vault, name } = at;
  const path = join(folder, `${name}.disk`);
  await writeFile(path, Buffer.alloc(sizeBytes, name));
  const names = {
    hostname: name,
    smbiosUuid: randomUUID(),
    osMachineId: randomUUID(),
    bootId: randomUUID(),
    osName: "x",
    kernelRelease: "6",
  };
  const facts = { ...names, firmware: "bios" as const, cpuCount: 1, memoryBytes: 2 ** 30, addresses: [], nics: [] };
  const disk = { diskId, deviceName: "sda", identifiedBy: "serial" as const, isBoot: true, excluded: [] };
  let hanging: Promise<void> | undefined;
  await using cleanup = new AsyncDisposableStack();
  const source = cleanup.use(
    await SimulatedSource.open({
      ...{ clock: systemClock, random: systemRandom, facts, disks: [{ path, facts: disk }] },
      beforeFreeze: async () => await hanging,
    }),
  );
  const passphraseFile = join(folder, `${name}.passphrase`);
  await writeFile(passphraseFile, site.authority.passphrase, { mode: 0o600 });
  const agent = { source, stateFolder: join(folder, `${name}.state`), clock: systemClock, random: systemRandom };
  const appliance = { host: "127.0.0.1", port: site.controlPort };
  const machineId = await registerSimulatedAgent({ ...agent, appliance, authorityPem: site.authority.caPem, passphraseFile });
  site.protect(machineId);
  for (const offset of stampOffsets) await source.write(diskId, offset, stampBytes(0));
  const running = cleanup.use(startSimulatedAgent(agent));
  const owned = cleanup.move();
  return {
    machineId,
    source,
    points: () => site.ledger.untold(1000).filter((report) => report.machineId === machineId),
    stampsOf: async ({ pointId }) => {
      await using opened = await vault.openDisk(pointId, diskId);
      const stamps: number[] = [];
      for (const offset of stampOffsets) {
        const bytes = Buffer.alloc(512);
        await opened.read(offset, bytes);
        stamps.push(Number(bytes.readBigUInt64BE(0)));
      }
      // Written first to last: a point of one moment has them falling, by one at most.
      for (const [index, stamp] of stamps.entries()) assert.ok(index === 0 || (stamps[index - 1] ?? 0) - stamp <= 1, stamps.join(" "));
      return { first: stamps[0] ?? 0, last: stamps.at(-1) ?? 0 };
    },
    stopAgent: async () => await running[Symbol.asyncDispose](),
    hang: (until) => {
      hanging = until;
    },
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}

function stampBytes(sequence: number): Uint8Array {
  const bytes = Buffer.alloc(4096);
  bytes.writeBigUInt64BE(BigInt(sequence), 0);
  return bytes;
}

/** Writes n to machine A, and to machine B only when A has it: so at any moment A has as much as B, and at most one more. */
function startCausalWrites({ members: [a, b] }: Scene): { stop(): Promise<number> } {
  const ending = new AbortController();
  let sequence = 0;
  const running = (async (): Promise<void> => {
    while (!ending.signal.aborted) {
      sequence += 1;
      for (const member of [a, b]) for (const offset of stampOffsets) await member.source.write(diskId, offset, stampBytes(sequence));
      await systemClock.sleep(1);
    }
  })();
  return {
    stop: async () => {
      ending.abort();
      await running;
      return sequence;
    },
  };
}

async function until(claim: string, holds: () => boolean): Promise<void> {
  const endMs = systemClock.monotonicMs() + 90_000;
  while (!holds()) {
    assert.ok(systemClock.monotonicMs() < endMs, `in vain: ${claim}`);
    await systemClock.sleep(20);
  }
}

/** Pairs of points of the two machines that are one point of the group. */
function pairsOf({ members: [a, b] }: Scene): (readonly [SealedPointReport, SealedPointReport])[] {
  return a.points().flatMap((one) => {
    const other = b.points().find(({ group: theirs }) => theirs?.groupPointId === one.group?.groupPointId);
    return one.group === undefined || other === undefined ? [] : [[one, other] as const];
  });
}

test("points of a group show one moment of all its machines: never an effect without its cause", { timeout: 240_000 }, async (context) => {
  await using scene = await openScene();
  const [a, b] = scene.members;
  await scene.setGroup(false);
  await until("each machine has points of its own", () => a.points().length > 1 && b.points().length > 1);
  const writes = startCausalWrites(scene);
  await scene.setGroup(true);
  await until("the group has eight points", () => pairsOf(scene).length >= 8);
  const pairs = pairsOf(scene);
  for (const [one, other] of pairs) {
    assert.deepEqual(one.group, other.group, "id, moment and members are the same");
    assert.equal(one.group?.memberCount, 2);
    const cause = (await a.stampsOf(one)).last;
    const effect = (await b.stampsOf(other)).first;
    assert.ok(effect <= cause && cause - effect <= 1, `A has ${cause}, B has ${effect}`);
  }
  // The check can fail: points of the same machines that are not of one group's point break it.
  const [first] = pairs;
  const later = pairs.at(-1);
  assert.ok(first !== undefined && later !== undefined);
  const gap = (await b.stampsOf(later[1])).first - (await a.stampsOf(first[0])).last;
  assert.ok(gap > 1, "between the first and the last point much was written");
  const frozen = pairs.flat().map(({ frozenMs }) => frozenMs);
  context.diagnostic(
    `${pairs.length} points of the group, ${await writes.stop()} writes, frozen ${Math.max(...frozen).toFixed(0)} ms at most`,
  );
  assert.ok(Math.max(...frozen) <= policy.freezeMsMax, "no freeze was longer than the policy allows");
});

test(
  "a member that hangs or dies leaves the others their own points, thawed in time, and the group's come back",
  { timeout: 240_000 },
  async () => {
    await using scene = await openScene();
    const [a, b] = scene.members;
    await scene.setGroup(true);
    const writes = startCausalWrites(scene);
    await until("the group has a point", () => pairsOf(scene).length > 0);
    const hanging = Promise.withResolvers<void>();
    const before = a.points().length;
    b.hang(hanging.promise);
    await until("the one that does not hang goes on, and says why", () =>
      a
        .points()
        .slice(before)
        .some(({ groupFault }) => groupFault !== undefined),
    );
    const alone = a
      .points()
      .slice(before)
      .filter(({ groupFault }) => groupFault !== undefined);
    assert.match(
      alone[0]?.groupFault?.message ?? "",
      /b did not come to the stage frozen in time|not every machine of the group was frozen/,
    );
    for (const report of alone) {
      assert.equal(report.group, undefined, "it is not called a point of the group");
      assert.ok(report.frozenMs <= policy.freezeMsMax, `frozen for ${report.frozenMs} ms`);
      await a.stampsOf(report);
    }
    b.hang(undefined);
    hanging.resolve();
    const count = pairsOf(scene).length;
    await until("the group makes points again", () => pairsOf(scene).length > count + 1);
    await b.stopAgent();
    const after = a.points().length;
    await until("the other goes on alone when one is gone", () => a.points().length > after + 1);
    assert.ok(
      a
        .points()
        .slice(after + 1)
        .every((report) => report.group === undefined || report.groupFault !== undefined),
    );
    await a.source.write(diskId, 0, stampBytes(0)); // A machine that is still frozen would hold this write.
    await b.source.write(diskId, 0, stampBytes(0));
    await writes.stop();
  },
);
