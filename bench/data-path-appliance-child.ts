// The appliance's side of data-path.ts: its real ports and its real vault, in a process of its own.

import { randomBytes, randomUUID } from "node:crypto";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { startTestSite, type TestSite } from "../src/appliance/testing/test-site.ts";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { parseOrderId, parseVaultId, type MachineId, type PointId } from "../src/contract/ids.ts";
import { openNbdServer } from "../src/nbd/server.ts";
import { openAzureBlobStore } from "../src/store/azure-blob-store.ts";
import { openDirectoryStore } from "../src/store/directory-store.ts";
import type { Store } from "../src/store/store.ts";
import { openVault } from "../src/vault/open-vault.ts";
import type { Vault } from "../src/vault/vault.ts";
import {
  serveMessages,
  usage,
  type ApplianceReady,
  type ApplianceStart,
  type FleetUsage,
  type SealedPoint,
  type ServedPoint,
} from "./data-path-messages.ts";

interface Appliance {
  readonly site: TestSite;
  readonly vault: Vault;
  readonly folder: string;
}

const cleanup = new AsyncDisposableStack();
let appliance: Appliance | undefined;

async function openStore({ folder, blob }: ApplianceStart): Promise<Store> {
  if (blob === undefined) return await openDirectoryStore(join(folder, "store"));
  return openAzureBlobStore({
    accountUrl: blob.accountUrl,
    container: "vault",
    credential: { kind: "sharedKey", accountName: "acct1", accountKey: blob.key },
    connection: {
      ca: blob.ca,
      lookup: (_host, options, callback) =>
        options.all === true ? callback(null, [{ address: "127.0.0.1", family: 4 }]) : callback(null, "127.0.0.1", 4),
    },
  });
}

async function start(options: ApplianceStart): Promise<ApplianceReady> {
  const store = cleanup.use(await openStore(options));
  const vault = cleanup.use(
    await openVault({
      store,
      vaultId: parseVaultId(randomUUID()),
      key: randomBytes(32),
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
      blockThreads: options.blockThreads,
      spool: { folder: join(options.folder, "spool"), spoolBytesMax: 4 * 2 ** 30 },
    }),
  );
  const site = cleanup.use(await startTestSite({ vault }));
  appliance = { site, vault, folder: options.folder };
  return { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem, passphrase: site.authority.passphrase };
}

function running(): Appliance {
  if (appliance === undefined) throw new Error("the appliance was not started");
  return appliance;
}

async function sealedPoint(pointId: PointId): Promise<SealedPoint> {
  const { site, vault } = running();
  const point = await vault.point(pointId);
  const report = site.ledger.untold(100).find((each) => each.pointId === pointId);
  return { root: point?.disks[0]?.root ?? "no such point", storedBytes: report?.storedBytes ?? 0 };
}

async function serve(pointId: PointId): Promise<ServedPoint> {
  const { vault, folder } = running();
  const point = await vault.point(pointId);
  const disk = point?.disks[0];
  if (disk === undefined) throw new Error(`there is no recovery point ${pointId}`);
  const name = "disk";
  const server = await openNbdServer({
    listen: { kind: "unix", path: join(folder, "nbd.sock") },
    exports: [{ name, access: "read-only", disk: cleanup.use(await vault.openDisk(pointId, disk.diskId)) }],
    clock: systemClock,
    log: silentLog,
  });
  return { uri: cleanup.use(server).uriOf(name) };
}

/** The machine's agent makes points from now on. */
function orderPoints(machineId: MachineId, pointIntervalSeconds: number): void {
  const { site } = running();
  site.protect(machineId);
  const policy = { pointIntervalSeconds, freezeMsMax: 2000 };
  site.registry.setPolicy(machineId, policy);
  site.orders.give(machineId, { kind: "replicate", orderId: parseOrderId(randomUUID()), policy });
}

const stallResolutionMs = 5;
const stalls = monitorEventLoopDelay({ resolution: stallResolutionMs });
stalls.enable();

function fleetUsage(machineIds: readonly MachineId[]): FleetUsage {
  const counts = machineIds.map((machineId) => running().site.ledger.countOf(machineId));
  const stallP99Ms = stalls.percentile(99) / 1e6 - stallResolutionMs;
  stalls.reset();
  const pointCount = counts.reduce((sum, count) => sum + count, 0);
  return { ...usage(), pointCount, machinesWithPoints: counts.filter((count) => count > 0).length, stallP99Ms };
}

serveMessages(
  async (message) => {
    switch (message.kind) {
      case "startAppliance":
        return await start(message.start);
      case "protect":
        return running().site.protect(message.machineId);
      case "sealed":
        return await sealedPoint(message.pointId);
      case "serve":
        return await serve(message.pointId);
      case "usage":
        return usage();
      case "order":
        return orderPoints(message.machineId, message.pointIntervalSeconds);
      case "fleet":
        return fleetUsage(message.machineIds);
      case "loseTracking":
      case "startAgent":
      case "point":
      case "write":
        throw new Error(`not a message for the appliance: ${message.kind}`);
    }
  },
  async () => await cleanup.disposeAsync(),
);
