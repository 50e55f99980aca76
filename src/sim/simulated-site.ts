// A simulated site behind a real hub: one appliance, its machines with believable facts, and a vault that it really writes.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { parseApplianceId } from "../contract/ids.ts";
import { parseResourceId } from "../hub/api/resource-id.ts";
import type { RunningHub } from "../hub/main.ts";
import { Journal } from "../hub/replication/sim/journal.ts";
import { SimAppliance, simDiscovered, SimSource } from "../hub/replication/sim/sim-appliance.ts";
import { openAzureBlobStore } from "../store/azure-blob-store.ts";
import { openVault } from "../vault/open-vault.ts";
import type { LandingZone } from "./landing-zone.ts";

export interface SimulatedSiteOptions {
  readonly hub: RunningHub;
  readonly zone: LandingZone;
  readonly machineCount: number;
  readonly paceSeconds: number;
  readonly folder: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** The machines are in the hub's inventory on return. */
export async function openSimulatedSite(options: SimulatedSiteOptions): Promise<AsyncDisposable> {
  const { hub, zone, clock, random, log } = options;
  const { services } = hub;
  await using opening = new AsyncDisposableStack();
  const { vaultId, key, storage } = await services.vaults.open(zone.vaultId);
  const store = opening.use(
    openAzureBlobStore({
      accountUrl: storage.accountUrl,
      container: storage.container,
      credential: { kind: "sharedKey", accountName: storage.accountName, accountKey: storage.accountKey },
      connection: {
        ca: storage.caPem,
        lookup: (_name, wish, callback) =>
          wish.all === true ? callback(null, [{ address: storage.address, family: 4 }]) : callback(null, storage.address, 4),
      },
    }),
  );
  const vault = opening.use(await openVault({ store, vaultId, key: key.bytes, clock, random, log }));
  const applianceId = parseApplianceId(random.uuid());
  const vaultKey = parseResourceId(zone.vaultId).key;
  const registration = { applianceId, vaultKey, name: "simulated-site", version: "sim", certificateDigest: random.uuid() };
  await services.appliances.add({ ...registration, usingKey: async () => undefined });
  const journal = new Journal(options.folder);
  const appliance = opening.use(new SimAppliance({ services, applianceId, vaultKey, vault, clock, random, journal }));
  appliance.slownessMs = options.paceSeconds * 1000;
  const names = Array.from({ length: options.machineCount }, (_, index) => `machine-${String(index + 1).padStart(2, "0")}`);
  await appliance.discover(names.map((name) => new SimSource(simDiscovered(name, random), `hello from ${name}`)));
  const closing = opening.move();
  return { [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
}
