// A real agent in a real guest, registered at a real appliance with a vault in a folder: ordered about, broken, and held against the guest's disks.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildAgentBundle } from "../../src/agent/bundle.ts";
import { agentPlaces, agentUnitText } from "../../src/agent/unit.ts";
import { startTestSite, type TestSite } from "../../src/appliance/testing/test-site.ts";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog, type Log } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { AgentOrder, AgentState, OrderResult } from "../../src/contract/agent-control.ts";
import { parseOrderId, parseVaultId, type MachineId, type PointId } from "../../src/contract/ids.ts";
import { blockBytes, granuleBytes } from "../../src/disk/geometry.ts";
import { openDirectoryStore } from "../../src/store/directory-store.ts";
import { openVault } from "../../src/vault/open-vault.ts";
import type { Vault } from "../../src/vault/vault.ts";
import { startGuest, wayOut, type Guest, type GuestOptions } from "./agent-guest.ts";

type DistributiveOmit<T, K extends string> = T extends unknown ? Omit<T, K> : never;
type DoneResult = Extract<OrderResult, { outcome: "done" }>;

/** What a point holds of a disk, against the file behind the guest's disk. */
export interface Difference {
  readonly blocks: number;
  readonly granules: number;
}

export interface GuestAgent extends AsyncDisposable {
  readonly guest: Guest;
  readonly site: TestSite;
  order(order: DistributiveOmit<AgentOrder, "orderId">): Promise<OrderResult>;
  /** As order, of which it is known that it can be carried out. */
  done(order: DistributiveOmit<AgentOrder, "orderId">): Promise<DoneResult>;
  /** What the agent said of itself last. */
  state(): AgentState;
  /** Rung of each disk, by its name in the guest's serial numbers. */
  rungs(): Readonly<Record<string, string>>;
  /** Bytes of each disk that are not replicated. */
  excludedBytes(): Readonly<Record<string, number>>;
  /** Modes of the points since the last call, oldest first, by disk. */
  takeModes(): readonly Readonly<Record<string, string>>[];
  /** Starts the service with these further arguments; as after an upgrade when it runs already. */
  start(...more: string[]): Promise<void>;
  /** Compares the newest point with the disks as they stand; the guest is paused meanwhile. */
  compare(pointId: PointId): Promise<ReadonlyMap<string, Difference>>;
  /** Waits until a word of the agent that comes after the call satisfies. */
  wait(what: string, isSo: (state: AgentState) => boolean): Promise<AgentState>;
}

/** Points come by orders alone, and once at each start of the agent. */
const policy = { pointIntervalSeconds: 86_400, freezeMsMax: 10_000 };

export async function startGuestAgent(options: Omit<GuestOptions, "ways"> = {}): Promise<GuestAgent> {
  await using cleanup = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "watari-guest-agent-"));
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  const store = cleanup.use(await openDirectoryStore(join(folder, "store")));
  const seal = { vaultId: parseVaultId(randomUUID()), key: randomBytes(32) };
  const vault = cleanup.use(await openVault({ store, ...seal, clock: systemClock, random: systemRandom, log: silentLog }));
  const begins: Record<string, string>[] = [];
  const site = cleanup.use(await startTestSite({ vault, log: logOfBegins(begins) }));
  const guest = cleanup.use(await startGuest({ ...options, ways: [site.controlPort, site.dataPort] }));
  await guest.run(`cat > ${agentPlaces.program}`, (await buildAgentBundle()).bytes);
  await guest.run("cat > /root/authority.pem", new TextEncoder().encode(site.authority.caPem));
  await guest.run("cat > /root/passphrase; chmod 600 /root/passphrase", new TextEncoder().encode(site.authority.passphrase));
  const registered = await guest.run(
    `${agentPlaces.node} --disable-warning=ExperimentalWarning ${agentPlaces.program} register --appliance ${wayOut}:${site.controlPort} --ca /root/authority.pem --passphrase-file /root/passphrase`,
  );
  const said: unknown = JSON.parse(registered);
  assert.ok(typeof said === "object" && said !== null && "machineId" in said && typeof said.machineId === "string");
  const [machine] = site.registry.list();
  assert.ok(machine !== undefined && machine.machineId === said.machineId);
  site.protect(machine.machineId);
  const owned = cleanup.move();
  return agentOf({ guest, site, vault, begins, machineId: machine.machineId, close: () => owned.disposeAsync() });
}

interface Parts {
  readonly guest: Guest;
  readonly site: TestSite;
  readonly vault: Vault;
  readonly begins: Record<string, string>[];
  readonly machineId: MachineId;
  readonly close: () => Promise<void>;
}

export function nameOf(diskId: string): string {
  return diskId.replace("serial-test-", "");
}

/** The appliance tells of each point that begins. */
function logOfBegins(begins: Record<string, string>[]): Log {
  const log: Log = {
    ...silentLog,
    with: () => log,
    debug: (message, fields) => {
      const modes: unknown = fields?.["modes"];
      if (message !== "point began" || typeof modes !== "object" || modes === null) return;
      begins.push(Object.fromEntries(Object.entries(modes).map(([disk, mode]) => [nameOf(disk), String(mode)])));
    },
  };
  return log;
}

function agentOf({ guest, site, vault, begins, machineId, close }: Parts): GuestAgent {
  const state = (): AgentState => {
    const { state: found } = site.registry.get(machineId);
    assert.ok(found !== undefined, "the agent has been heard of");
    return found;
  };
  const order: GuestAgent["order"] = async (wanted) => {
    const orderId = parseOrderId(randomUUID());
    site.orders.give(machineId, { ...wanted, orderId });
    return await site.orders.waitResult(orderId, AbortSignal.timeout(900_000));
  };
  const done: GuestAgent["done"] = async (wanted) => {
    const result = await order(wanted);
    assert.equal(result.outcome, "done", JSON.stringify(result));
    return result;
  };
  return {
    guest,
    site,
    state,
    rungs: () => Object.fromEntries(state().disks.map(({ diskId, tracking }) => [nameOf(diskId), tracking.rung])),
    excludedBytes: () =>
      Object.fromEntries(
        site.registry
          .get(machineId)
          .facts.disks.map(({ diskId, excluded }) => [nameOf(diskId), excluded.reduce((sum, { length }) => sum + length, 0)]),
      ),
    takeModes: () => begins.splice(0),
    order,
    done,
    start: async (...more) => {
      await guest.run(`cat > ${agentPlaces.unitFile}`, new TextEncoder().encode(agentUnitText({ more })));
      await guest.run(`systemctl daemon-reload; systemctl enable -q ${agentPlaces.unitName}; systemctl restart ${agentPlaces.unitName}`);
      await done({ kind: "replicate", policy });
    },
    compare: async (pointId) => {
      await guest.pause();
      try {
        return await compareDisks({ guest, vault }, pointId);
      } finally {
        await guest.resume();
      }
    },
    wait: async (what, isSo) => {
      const endMs = systemClock.monotonicMs() + 600_000;
      const startMs = site.clock.nowMs();
      for (;;) {
        const { state: found, seenAtMs } = site.registry.get(machineId);
        if (found !== undefined && seenAtMs >= startMs && isSo(found)) return found;
        if (systemClock.monotonicMs() > endMs) throw new Error(`waited in vain: ${what}; ${JSON.stringify(found)}`);
        await systemClock.sleep(100);
      }
    },
    [Symbol.asyncDispose]: close,
  };
}

async function compareDisks(parts: Pick<Parts, "guest" | "vault">, pointId: PointId): Promise<ReadonlyMap<string, Difference>> {
  const found = new Map<string, Difference>();
  const point = await parts.vault.point(pointId);
  assert.ok(point !== undefined, "the point is in the vault");
  for (const [name, path] of Object.entries(parts.guest.disks)) {
    const disk = point.disks.find(({ diskId }) => diskId === `serial-test-${name}`);
    if (disk === undefined) continue;
    await using file = await open(path);
    await using replica = await parts.vault.openDisk(pointId, disk.diskId);
    const [a, b] = [Buffer.alloc(64 * blockBytes), Buffer.alloc(64 * blockBytes)];
    let blocks = 0;
    let granules = 0;
    for (let at = 0; at < disk.sizeBytes; at += a.length) {
      const length = Math.min(a.length, disk.sizeBytes - at);
      await file.read(a, 0, length, at);
      await replica.read(at, b.subarray(0, length));
      for (const range of disk.excluded) {
        const [start, end] = [Math.max(range.offset - at, 0), Math.min(range.offset + range.length - at, length)];
        if (end > start) a.fill(0, start, end);
      }
      if (a.compare(b, 0, length, 0, length) === 0) continue;
      for (let block = 0; block < length; block += blockBytes) {
        if (a.compare(b, block, block + blockBytes, block, block + blockBytes) === 0) continue;
        blocks += 1;
        for (let granule = block; granule < block + blockBytes; granule += granuleBytes)
          if (a.compare(b, granule, granule + granuleBytes, granule, granule + granuleBytes) !== 0) granules += 1;
      }
    }
    found.set(name, { blocks, granules });
  }
  return found;
}

/** For people: what the service said, newest last. */
export async function agentLog(guest: Guest): Promise<string> {
  return await guest.run(`journalctl -u ${agentPlaces.unitName} -n 40 --no-pager -o cat || true`);
}
