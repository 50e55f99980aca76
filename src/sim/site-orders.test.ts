// The orders that change a site, carried out by the real appliance (against VMware's own simulator) and by the simulated one.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { systemClock, toTimestamp } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { callAppliance } from "../appliance/admin/admin-client.ts";
import { createStateFolder, parseApplianceConfig, saveConfig } from "../appliance/config/config.ts";
import { startAppliance } from "../appliance/main.ts";
import { startFakeHub } from "../appliance/testing/fake-hub.ts";
import { simulatorMissing, simulatorPassword, simulatorUser, startVcenterSimulator } from "../appliance/testing/vcenter-simulator.ts";
import type { Inventory } from "../contract/appliance-protocol.ts";
import { parseVaultId } from "../contract/ids.ts";
import { SimAppliance, type SimSiteFront } from "../hub/replication/sim/sim-appliance.ts";
import { simFleet } from "../hub/replication/sim/sim-source.ts";
import { simSilentPrefix, simThumbprint } from "../hub/replication/sim/sim-vcenters.ts";
import { MemoryStore } from "../store/memory-store.ts";
import { openVault } from "../vault/open-vault.ts";
import { describeSiteOrders, type SiteUnderOrders } from "./site-orders-suite.ts";

interface Opened extends AsyncDisposable {
  readonly site: SiteUnderOrders;
}

describe("site orders at the simulated appliance", () => suite(openSimulated));
describe("site orders at the real appliance", { skip: (await simulatorMissing()) ?? false }, () => suite(openReal));

function suite(open: () => Promise<Opened>): void {
  let opened: Opened | undefined;
  before(async () => void (opened = await open()));
  after(async () => await opened?.[Symbol.asyncDispose]());
  describeSiteOrders(() => opened?.site ?? assert.fail("the site is open"));
}

async function openSimulated(): Promise<Opened> {
  let inventory: Inventory | undefined;
  const front = Promise.withResolvers<SimSiteFront>();
  const vault = await openVault({
    store: new MemoryStore(),
    ...{ vaultId: parseVaultId(systemRandom.uuid()), key: new Uint8Array(32), clock: systemClock, random: systemRandom, log: silentLog },
  });
  const appliance = new SimAppliance({
    voice: {
      serve: async (site, signal) => {
        front.resolve(site);
        await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      },
      tellInventory: async (fresh) => void (inventory = fresh),
      tellPoint: async () => undefined,
      tellMachine: async () => undefined,
      vaultKeys: async () => ({ current: 1, keys: new Map([[1, new Uint8Array(32)]]) }),
      renewCertificate: async () => ({ certificateEndsAt: toTimestamp(systemClock.nowMs() + 86_400_000) }),
    },
    ...{ vault, clock: systemClock, random: systemRandom, journal: { append: () => undefined } },
  });
  await appliance.discover(simFleet(2, systemRandom));
  const site = await front.promise;
  return {
    site: {
      give: async (order) => await site.obey(order),
      inventory: () => inventory ?? assert.fail("the inventory was told"),
      vcenter: { host: "vc.site.test", port: 443, thumbprint: simThumbprint },
      accounts: { right: "vcenter", wrong: "vcenter-wrong", guest: "root" },
      silent: { host: `${simSilentPrefix}.site.test`, port: 443 },
      machine: { address: "10.77.0.1", silentAddress: `${simSilentPrefix}.site.test` },
    },
    [Symbol.asyncDispose]: async () => {
      await appliance[Symbol.asyncDispose]();
      await vault[Symbol.asyncDispose]();
    },
  };
}

async function openReal(): Promise<Opened> {
  await using cleanup = new AsyncDisposableStack();
  const hub = cleanup.use(await startFakeHub());
  const simulator = cleanup.use(await startVcenterSimulator({ machineCount: 2 }));
  const folder = await mkdtemp(join(tmpdir(), "watari-appliance-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  // A guest of which nothing is known but that its SSH port answers.
  const guest = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => void guest.listen(0, "127.0.0.1", resolve));
  cleanup.defer(async () => await new Promise<void>((resolve) => void guest.close(() => resolve())));
  await createStateFolder(folder);
  const config = {
    ...{
      listenAddresses: ["127.0.0.1"],
      controlPort: 0,
      dataPort: 0,
      hubPort: hub.port,
      hosts: [...hub.hosts],
      siteRanges: ["127.0.0.0/8"],
    },
    sshPort: (guest.address() as AddressInfo).port, // A TCP server has a port.
  };
  await saveConfig(folder, parseApplianceConfig(config));
  const agentFiles = async (): Promise<never> => await Promise.reject(new Error("no agent is pushed here"));
  const appliance = cleanup.use(await startAppliance({ stateFolder: folder, agentFiles, log: silentLog }));
  await appliance.register(hub.createKey());
  const account = async (name: string, secret: string, kind: "vcenter" | "linux-password"): Promise<string> => {
    const userName = kind === "vcenter" ? simulatorUser : "root";
    return (await callAppliance(folder, "addCredential", { name, kind, userName, privilege: "root", secret })).credentialId;
  };
  const accounts = {
    right: await account("right", simulatorPassword, "vcenter"),
    wrong: await account("wrong", "not the password", "vcenter"),
    guest: await account("guest", "guest", "linux-password"),
  };
  const owned = cleanup.move();
  return {
    site: {
      give: async (order) => await hub.give(order),
      inventory: () => hub.inventories.at(-1) ?? { vcenters: [], runAsAccounts: [], machines: [] },
      vcenter: { host: "127.0.0.1", port: simulator.port, thumbprint: simulator.thumbprint },
      accounts,
      silent: { host: "127.0.0.1", port: 1 },
      machine: { address: "127.0.0.1", silentAddress: "127.0.0.77" },
    },
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}
