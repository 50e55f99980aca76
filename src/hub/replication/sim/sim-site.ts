// A simulated site for tests: an appliance registered in the vault of a SimHub, with sources in its inventory.

import { silentLog } from "../../../base/log.ts";
import { parseApplianceId } from "../../../contract/ids.ts";
import { openDirectoryStore } from "../../../store/directory-store.ts";
import { openVault } from "../../../vault/open-vault.ts";
import { createServicesVoice } from "./services-voice.ts";
import { SimAppliance } from "./sim-appliance.ts";
import { simVault, simVaultSecret, vaultFolder, type SimHub } from "./sim-hub.ts";
import { simDiscovered, SimSource } from "./sim-source.ts";

export interface SimSite extends AsyncDisposable {
  /** The one that runs now. */
  readonly appliance: SimAppliance;
  readonly sources: readonly SimSource[];
  /** Path of the appliance's protection container. */
  readonly container: string;
  /** Another appliance of the vault that sees the same machines; answers its id. Closed with the site. */
  addNeighbour(): Promise<string>;
  /** Starts the appliance again, once its process has ended. */
  restartAppliance(): Promise<void>;
}

export async function openSimSite(hub: SimHub, folder: string, machineNames: readonly string[]): Promise<SimSite> {
  const { clock, random } = hub.services;
  const applianceId = parseApplianceId(random.uuid());
  const registration = { applianceId, vaultKey: simVault, name: "site", version: "sim", certificateDigest: random.uuid() };
  await hub.services.appliances.add({ ...registration, usingKey: async () => undefined });
  const store = await openDirectoryStore(vaultFolder(folder));
  const vault = await openVault({ store, ...simVaultSecret, clock, random, log: silentLog });
  const vaultKey = simVault.toLowerCase();
  const voice = createServicesVoice({ services: hub.services, applianceId, vaultKey });
  let appliance = new SimAppliance({ voice, vault, clock, random, journal: hub.journal });
  const sources = machineNames.map((name) => new SimSource(simDiscovered(name, random), `hello from ${name}`));
  await appliance.discover(sources);
  const neighbours = new AsyncDisposableStack();
  const addNeighbour = async (): Promise<string> => {
    const id = parseApplianceId(random.uuid());
    await hub.services.appliances.add({
      ...registration,
      ...{ applianceId: id, name: "neighbour", certificateDigest: random.uuid(), usingKey: async () => undefined },
    });
    const own = neighbours.use(await openVault({ store, ...simVaultSecret, clock, random, log: silentLog }));
    const ownVoice = createServicesVoice({ services: hub.services, applianceId: id, vaultKey });
    const neighbour = neighbours.use(new SimAppliance({ voice: ownVoice, vault: own, clock, random, journal: hub.journal }));
    await neighbour.discover(sources);
    return id;
  };
  const container = `${simVault}/replicationFabrics/${applianceId}/replicationProtectionContainers/cloud_${applianceId}`;
  const close = async (): Promise<void> => {
    await neighbours.disposeAsync();
    await appliance[Symbol.asyncDispose]();
    await vault[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
  };
  const restartAppliance = async (): Promise<void> => {
    await appliance.killed;
    const next = new SimAppliance({ voice, vault, clock, random, journal: hub.journal });
    next.replace(appliance);
    appliance = next;
  };
  return {
    get appliance() {
      return appliance;
    },
    ...{ sources, container, addNeighbour, restartAppliance },
    [Symbol.asyncDispose]: close,
  };
}
