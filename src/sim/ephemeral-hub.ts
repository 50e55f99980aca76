// A whole hub with temporary state on loopback and a simulated site behind it; on close nothing of it is left.

import { readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { systemClock } from "../base/clock.ts";
import { systemRandom, type Random } from "../base/random.ts";
import { ArmClient } from "../cli/arm-client.ts";
import { operatorFileShape, parseJson } from "../cli/profile.ts";
import { registrationKeyShape } from "../contract/appliance-protocol.ts";
import { Fault } from "../contract/errors.ts";
import type { EphemeralFacts, EphemeralHub, EphemeralWish } from "../hub/hub-command.ts";
import { SimTarget, SimWorld } from "../landing/sim/sim-target.ts";
import { parseHubConfig } from "../hub/hub-config.ts";
import { startHub, type RunningHub } from "../hub/main.ts";
import { registerAlerts } from "../hub/alerts/register.ts";
import { registerReplication } from "../hub/replication/register.ts";
import { VaultReaders } from "../hub/vault-readers.ts";
import { createLandingZone } from "./landing-zone.ts";
import { makeTemporaryFolder, removeAbandoned } from "./temporary-folder.ts";
import { simFleet } from "../hub/replication/sim/sim-source.ts";
import { openSimulatedSite } from "./simulated-site.ts";
import { withPace } from "./with-pace.ts";

const resourceGroup = "watari";
const names = { network: "landing", subnet: "default", account: "watariephemeral", vault: "vault" } as const;
const address = "127.0.0.1";
const domain = "watari.test";
const region = "local";
/** The one name of the loopback that every machine resolves by itself. */
const localName = "localhost";
/** How often the workflows look at states that nothing tells of; a person would take 1000. */
const pollMs = 100;

/** Ready for calls on return. What was opened before a failure is closed again. */
export async function startEphemeralHub(wish: EphemeralWish): Promise<EphemeralHub> {
  await using opening = new AsyncDisposableStack();
  await removeAbandoned();
  const stateDir = await makeTemporaryFolder();
  opening.defer(async () => await rm(stateDir, { recursive: true, force: true }));
  const cidr = loopbackNetwork(systemRandom);
  const hub = opening.use(await startOwnHub(wish, { stateDir, cidr }));
  const caFile = join(stateDir, "ca.pem");
  await writeFileAtomic(caFile, hub.caPem, { mode: 0o644 });
  const operatorPath = join(stateDir, "operator.json");
  const operator = parseJson(await readFile(operatorPath, "utf8"), operatorFileShape, operatorPath);
  await using arm = new ArmClient({
    profile: { ...operator, resourceGroup, location: region },
    clock: systemClock,
  });
  const zone = await createLandingZone(arm, { names, cidr, random: systemRandom });
  const { machineCount, applianceCount = 1, paceSeconds, log } = wish;
  const sources = simFleet(machineCount, systemRandom);
  for (let number = 1; number <= applianceCount; number++) {
    const key = registrationKeyShape.parse(await arm.change("POST", `${zone.vaultId}/registrationKeys`, {}));
    const name = number === 1 ? "simulated-site" : `simulated-site-${number}`;
    const site = { key, hosts: zone.names, hubPort: hub.port, name, machineCount, sources, paceSeconds, log };
    opening.use(await openSimulatedSite({ ...site, clock: systemClock, random: systemRandom }));
  }
  const { managementUrl: endpoint, loginUrl: authority, tenantId, clientId, clientSecret, subscriptionId } = operator;
  const { vault } = names;
  const facts: EphemeralFacts = { endpoint, authority, caFile, tenantId, clientId, clientSecret, subscriptionId, resourceGroup, vault };
  const closing = opening.move();
  return { facts, [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
}

async function startOwnHub(wish: EphemeralWish, place: { readonly stateDir: string; readonly cidr: string }): Promise<RunningHub> {
  const { stateDir, cidr } = place;
  // One port for every door: their addresses differ.
  const port = await findFreePort(systemRandom);
  const config = parseHubConfig({
    domain,
    stateDir,
    localName,
    publicAddresses: [address],
    managementPort: port,
    endpointPort: port,
    networks: [{ virtualNetwork: names.network, subnet: names.subnet, cidr }],
    ...wish.sections,
  });
  const replication = registerReplication({
    openWorld: async (services) => {
      const readers = new VaultReaders(services);
      const simulated = new SimTarget({ world: new SimWorld(), clock: systemClock });
      const target = withPace(simulated, { clock: systemClock, paceMs: wish.paceSeconds * 1000 });
      return {
        target,
        upgradeFolder: join(services.stateDir, "upgrades"),
        openReader: async (vaultResourceId) => await readers.open(vaultResourceId),
        [Symbol.asyncDispose]: async () => {
          await target[Symbol.asyncDispose]();
          await readers[Symbol.asyncDispose]();
        },
      };
    },
    limits: { pollMs },
  });
  return await startHub(config, {
    clock: systemClock,
    random: systemRandom,
    log: wish.log,
    extensions: [replication, registerAlerts()],
    databaseLives: "as this program",
    answerWatch: wish.answerWatch,
  });
}

/** A network of this hub's own: 127.<a>.<b>.0/24, apart from 127.0.0.0/16, where people have their services. */
function loopbackNetwork(random: Random): string {
  const [first = 0, second = 0] = random.bytes(2);
  return `127.${64 + (first % 128)}.${second}.0/24`;
}

const portMin = 20_000;
/** Below the range from which systems take the ports of outgoing connections (ip(7), ip_local_port_range). */
const portMax = 32_000;
const portTriesMax = 50;

async function findFreePort(random: Random): Promise<number> {
  for (let attempt = 0; attempt < portTriesMax; attempt++) {
    const [high = 0, low = 0] = random.bytes(2);
    const port = portMin + ((high * 256 + low) % (portMax - portMin));
    if (await isFree(port)) return port;
  }
  throw new Fault("ListenFailed", "could not find a free port on the loopback", { evidence: { from: portMin, to: portMax } });
}

/** On every address of the machine, so that private endpoints find it free too. */
async function isFree(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "0.0.0.0", () => server.close(() => resolve(true)));
  });
}
