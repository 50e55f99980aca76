// A simulated site at a hub's private endpoints: an appliance that registers with a key as a real one does, and machines with lives.

import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { parseApplianceConfig } from "../appliance/config/config.ts";
import { HubIdentity } from "../appliance/identity/hub-identity.ts";
import { readGrant, topologyOf, useRegistrationKey, writeGrant } from "../appliance/identity/hub-registration.ts";
import { readVaultKeys } from "../appliance/identity/vault-keys.ts";
import type { FactName, SealedFacts } from "../appliance/state/facts.ts";
import { createConnector } from "../connectivity/connector.ts";
import type { RegistrationKey, StorageGrant } from "../contract/appliance-protocol.ts";
import { Fault } from "../contract/errors.ts";
import { SimAppliance } from "../hub/replication/sim/sim-appliance.ts";
import { simFleet, type SimSource } from "../hub/replication/sim/sim-source.ts";
import { openAzureBlobStore } from "../store/azure-blob-store.ts";
import { withStoreRetry } from "../store/wrappers.ts";
import { openVault } from "../vault/open-vault.ts";
import { createHttpsVoice } from "./https-voice.ts";

export interface SimulatedSiteOptions {
  /** As the hub gave it to the operator; used up. */
  readonly key: RegistrationKey;
  /** Addresses of the key's private names, for a desk whose resolver does not know them. */
  readonly hosts: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  readonly hubPort: number;
  readonly name: string;
  readonly machineCount: number;
  /** In the place of machines of its own: those that other appliances see too. */
  readonly sources?: readonly SimSource[];
  readonly paceSeconds: number;
  /** Keeps the machines of several sites apart. */
  readonly siteNumber?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Memory of one site for blocks and pages that it knows; its disks are small. */
const blockCacheBytesMax = 2 ** 20;
const entriesMax = 2 ** 16;

/** Registered, and its machines in the hub's inventory, on return. */
export async function openSimulatedSite(options: SimulatedSiteOptions): Promise<AsyncDisposable> {
  const { key, name, hubPort, clock, random, log } = options;
  await using opening = new AsyncDisposableStack();
  const hosts = options.hosts.map((host) => ({ name: host.name, addresses: [...host.addresses] }));
  const config = parseApplianceConfig({ name, listenAddresses: ["127.0.0.1"], hosts, hubPort, siteRanges: [] });
  const facts = createFacts();
  const registration = await useRegistrationKey(key, { config, facts, clock, log, siteNames: [] });
  const { hubCaPem: caPem, applianceId } = registration;
  const topology = topologyOf(key, { config, siteNames: [] });
  const onGrant = (fresh: StorageGrant): void => writeGrant(facts, fresh);
  const identity = opening.use(
    new HubIdentity({
      ...{ registration, facts, hubPort, onGrant, clock, log },
      connect: (clientCertificate) => createConnector({ topology, clock, log, caPem, clientCertificate }),
    }),
  );
  const connector = opening.use(createConnector({ topology, clock, log, caPem }));
  const grant = (): NonNullable<ReturnType<typeof readGrant>> => {
    const present = readGrant(facts);
    if (present !== undefined) return present;
    throw new Fault("Internal", "a registered appliance has a storage grant");
  };
  const { accountUrl, container } = grant();
  const credential = { kind: "sas", sas: async (): Promise<string> => await Promise.resolve(grant().sas) } as const;
  const store = opening.use(openAzureBlobStore({ accountUrl, container, credential, agent: connector.httpsAgent }));
  const vault = opening.use(
    await openVault({
      store: withStoreRetry(store, { clock, log }),
      vaultId: registration.vault.vaultId,
      key: readVaultKeys(facts, registration),
      blockCacheBytesMax,
      entriesMax,
      clock,
      random,
      log,
    }),
  );
  const voice = createHttpsVoice({ applianceId, identity, grant, onGrant, clock, log });
  const journal = { append: () => undefined }; // Both sides of each machine are seen at the hub.
  const appliance = opening.use(new SimAppliance({ voice, vault, clock, random, journal, isAlive: true }));
  appliance.slownessMs = options.paceSeconds * 1000;
  await appliance.discover(options.sources ?? simFleet(options.machineCount, random, options.siteNumber));
  const closing = opening.move();
  return { [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
}

/** What the appliance keeps sealed on its disk, kept for the life of this process. */
function createFacts(): SealedFacts {
  const facts = new Map<FactName, string>();
  return {
    read: (name) => facts.get(name),
    write: (name, value) => void facts.set(name, value),
    remove: (name) => void facts.delete(name),
  };
}
