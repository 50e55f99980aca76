// The replication appliance as a whole: state, agent ports, hub link and admin socket, started and stopped together.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Vault } from "../vault/vault.ts";
import { systemClock, type Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { systemRandom, type Random } from "../base/random.ts";
import type { OtherAppliance, RegistrationKey } from "../contract/appliance-protocol.ts";
import type { MachineFacts } from "../contract/agent-control.ts";
import { Fault } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import { createConnector, type Connector } from "../connectivity/connector.ts";
import type { CheckResult } from "../connectivity/probe.ts";
import { createStateFolder, loadConfig, type ApplianceConfig } from "./config/config.ts";
import { startAgentListener } from "./control/agent-listener.ts";
import { createAgentOrders, type AgentOrders } from "./control/agent-orders.ts";
import { createMachineRegistry, type MachineRegistry } from "./control/machine-registry.ts";
import { WayBook } from "./control/way-book.ts";
import { createCredentialStore, type CredentialStore } from "./credentials/credential-store.ts";
import { discoverAll, type DiscoveryParts } from "./discovery/discover.ts";
import { fenceMachine } from "./discovery/fence-machine.ts";
import { createVcenterStore, inventoryOf, type VcenterStore } from "./discovery/vcenter-store.ts";
import { measuresOf, telemetryOf } from "./figures.ts";
import { Health } from "./health.ts";
import { checkWays } from "./hub/check-ways.ts";
import { startHubLink, type HubLink } from "./hub/hub-link.ts";
import { createHubOrders } from "./hub/hub-orders.ts";
import { startOrderRunner } from "./hub/order-runner.ts";
import { carryOutSiteOrder, readAuthorities } from "./hub/site-orders.ts";
import { openSiteVault } from "./hub/vault-link.ts";
import {
  checkHops,
  readGrant,
  readRegistration,
  registerAtHub,
  siteTopologyOf,
  topologyOf,
  writeGrant,
  type HubRegistration,
  type RegistrationParts,
} from "./identity/hub-registration.ts";
import { readVaultKeys, takeVaultKeys } from "./identity/vault-keys.ts";
import { HubIdentity } from "./identity/hub-identity.ts";
import { openSiteAuthority, type SiteAuthority } from "./identity/site-authority.ts";
import { ServerIdentity } from "./identity/server-identity.ts";
import { findEndingCertificates } from "./identity/site-certificates.ts";
import { createGroupPoints } from "./ingest/group-points.ts";
import { startIngestListener, type IngestListener } from "./ingest/ingest-listener.ts";
import { createPointLedger, type PointLedger } from "./ingest/point-ledger.ts";
import { recoverWhenReached } from "./ingest/recover-when-reached.ts";
import { startPointKeeper } from "./ingest/point-keeper.ts";
import { CacheThrottle } from "./ingest/cache-throttle.ts";
import type { Spool } from "./ingest/spool.ts";
import { FlowBook } from "./flow/flow-book.ts";
import { createMetrics, startMetricsListener, type ApplianceMetrics, type ShownMachine } from "./flow/metrics.ts";
import { LineLimits } from "./limits/line-limits.ts";
import type { AgentFiles } from "./push/agent-archive.ts";
import { guestOrders } from "./push/guest-orders.ts";
import { Guests } from "./push/guests.ts";
import { createHostKeys, type HostKeys } from "./push/host-keys.ts";
import { openStateDatabase, type StateDatabase } from "./state/database.ts";
import { createSealedFacts, type SealedFacts } from "./state/facts.ts";
import { openSecretBox } from "./state/secret-box.ts";
import { SystemMeter } from "./system-meter.ts";
import { startAdminServer } from "./admin/admin-server.ts";

export interface ApplianceOptions {
  readonly stateFolder: string;
  /** Instead of those in the state folder, to try them. */
  readonly config?: ApplianceConfig;
  readonly agentFiles: () => Promise<AgentFiles>;
  readonly log: Log;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** The other appliances of the vault, and by the monotonic clock when that was heard. */
export interface OtherAppliances {
  readonly atMs: number;
  readonly appliances: readonly OtherAppliance[];
}

/** Opens the state folder and starts everything that can run: without a registration, all but replication. */
export async function startAppliance(options: ApplianceOptions): Promise<Appliance> {
  const { stateFolder, log, clock = systemClock, random = systemRandom } = options;
  const config = options.config ?? (await loadConfig(stateFolder));
  await createStateFolder(stateFolder);
  await using cleanup = new AsyncDisposableStack();
  const database = cleanup.use(openStateDatabase(join(stateFolder, "state.sqlite")));
  const box = await openSecretBox(join(stateFolder, "state.key"), random);
  const facts = createSealedFacts(database, box);
  const authority = await openSiteAuthority(facts, clock);
  const appliance = new Appliance({
    ...options,
    clock,
    random,
    config,
    database,
    facts,
    authority,
    credentials: createCredentialStore({ database, box, random }),
    identity: await ServerIdentity.open({
      authority,
      clock,
      addresses: [...config.listenAddresses, ...[config.advertiseAddress ?? []].flat()],
    }),
    log,
  });
  cleanup.use(appliance);
  await appliance.start();
  const owned = cleanup.move();
  appliance.own(owned);
  return appliance;
}

interface ApplianceParts extends ApplianceOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly config: ApplianceConfig;
  readonly database: StateDatabase;
  readonly facts: SealedFacts;
  readonly authority: SiteAuthority;
  readonly credentials: CredentialStore;
  readonly identity: ServerIdentity;
}

/** Owns everything that runs. */
export class Appliance implements AsyncDisposable {
  readonly config: ApplianceConfig;
  readonly authority: SiteAuthority;
  readonly credentials: CredentialStore;
  readonly vcenters: VcenterStore;
  readonly registry: MachineRegistry;
  readonly ledger: PointLedger;
  readonly guests: Guests;
  readonly hostKeys: HostKeys;
  readonly health = new Health();
  readonly limits: LineLimits;
  readonly flow: FlowBook;
  readonly metrics: ApplianceMetrics = createMetrics(async () => await measuresOf(this));
  readonly spool: Spool;
  readonly meter: SystemMeter;
  readonly facts: SealedFacts;
  readonly ways: WayBook;
  readonly #parts: ApplianceParts;
  readonly #orders: AgentOrders;
  readonly #stack = new AsyncDisposableStack();
  readonly #ending = new AbortController();
  #outer: AsyncDisposable | undefined;
  #siteConnector: { readonly names: string; readonly connector: Connector } | undefined;
  #ingest: IngestListener | undefined;
  #vault: Vault | undefined;
  #hubLink: HubLink | undefined;
  #storageConnector: Connector | undefined;
  #others: OtherAppliances = { atMs: 0, appliances: [] };
  #ports = { controlPort: 0, dataPort: 0 };

  constructor(parts: ApplianceParts) {
    const { database, clock, random, log, config, stateFolder } = parts;
    this.#parts = parts;
    this.config = config;
    this.authority = parts.authority;
    this.facts = parts.facts;
    this.credentials = parts.credentials;
    this.vcenters = createVcenterStore({ database, clock, random });
    this.registry = createMachineRegistry({ database, clock, random, log });
    this.ledger = createPointLedger({ database, clock });
    this.hostKeys = createHostKeys(database);
    this.limits = new LineLimits({ database, clock, log });
    this.flow = new FlowBook({ clock, ledger: this.ledger, limits: this.limits });
    // A folder of its own: the vault empties it when it opens.
    this.spool = { folder: join(config.spoolFolder ?? join(stateFolder, "spool"), "packs"), spoolBytesMax: config.spoolBytesMax };
    const { endsAtMs: authorityEndsAtMs } = this.authority;
    this.health.watch(() => findEndingCertificates({ nowMs: clock.nowMs(), authorityEndsAtMs, machines: this.registry.list() }));
    const address = config.advertiseAddress ?? config.listenAddresses[0] ?? "";
    this.meter = new SystemMeter({ clock, folder: this.spool.folder, address });
    this.#orders = createAgentOrders({ database, clock });
    this.ways = new WayBook({ ...parts, registry: this.registry, orders: this.#orders, ports: () => this.#ports });
    this.guests = new Guests({
      ...parts,
      registry: this.registry,
      vcenters: this.vcenters,
      hostKeys: this.hostKeys,
      connector: () => this.siteConnector(),
      sshPort: config.sshPort,
      appliance: () => ({ address, ...this.#ports }),
      discover: async (signal) => await this.discover(signal),
    });
    this.#stack.use(this.guests);
  }

  get registration(): HubRegistration | undefined {
    return readRegistration(this.#parts.facts);
  }

  get ports(): { readonly controlPort: number; readonly dataPort: number } {
    return this.#ports;
  }

  get isHubReached(): boolean {
    return this.#hubLink !== undefined && !this.health.has("hub");
  }

  /** What start has opened before this object was handed out. */
  own(outer: AsyncDisposable): void {
    this.#outer = outer;
  }

  async start(): Promise<void> {
    const { log, identity, stateFolder, config } = this.#parts;
    await mkdir(this.spool.folder, { recursive: true, mode: 0o700 });
    this.#ports = { controlPort: config.controlPort, dataPort: config.dataPort };
    const onIdentity = (facts: MachineFacts, fault: Fault | undefined): void => this.#noteIdentity(facts, fault);
    const control = await startAgentListener(
      {
        ...{ authority: this.authority, registry: this.registry, orders: this.#orders, log, onIdentity, clock: this.#parts.clock },
        dataPort: () => this.#ports.dataPort,
        ways: () => this.ways.ways(),
        onState: (machineId, state) => this.flow.noteState(machineId, state),
      },
      { addresses: config.listenAddresses, port: config.controlPort, identity },
    );
    this.#stack.use(control);
    this.#ports = { ...this.#ports, controlPort: control.listening[0]?.port ?? config.controlPort };
    const registration = this.registration;
    if (registration !== undefined) await this.#startReplication(registration);
    if (config.metricsListen !== undefined) this.#stack.use(await startMetricsListener(config.metricsListen, this.metrics, log));
    this.#stack.use(await startAdminServer(this, { stateFolder, log }));
    log.info("appliance started", { ...this.#ports, isRegistered: registration !== undefined });
  }

  /** A copy is one fault, however often it starts. It is settled when that hardware registers anew, or that boot is known as the machine's. */
  #noteIdentity({ smbiosUuid, bootId }: MachineFacts, fault: Fault | undefined): void {
    const prefix = `agent on ${smbiosUuid} `;
    if (fault !== undefined) this.health.clear(prefix);
    this.health.set(`${prefix}${bootId}`, fault);
  }

  /** The way to vCenters and guests; its topology always names the vCenters that were added. */
  siteConnector(extraHosts: readonly string[] = []): Connector {
    const hosts = [...new Set([...this.vcenters.list().map((vcenter) => vcenter.host), ...extraHosts])];
    const names = hosts.join(" ");
    if (this.#siteConnector?.names === names) return this.#siteConnector.connector;
    const connector = createConnector({
      ...this.#parts,
      topology: siteTopologyOf(this.registration, { config: this.config, siteNames: hosts }),
    });
    // Earlier ones stay open for what still uses them, and end with the appliance.
    this.#stack.use(connector);
    this.#siteConnector = { names, connector };
    return connector;
  }

  discovery(extraHosts: readonly string[] = []): DiscoveryParts {
    const { clock, log, config } = this.#parts;
    return {
      vcenters: this.vcenters,
      credentials: this.credentials,
      connector: () => this.siteConnector(extraHosts),
      authorities: async () => await readAuthorities(config.vcenterAuthoritiesFile),
      clock,
      log,
    };
  }

  async discover(signal?: AbortSignal): Promise<void> {
    await discoverAll(this.discovery(), signal);
    await this.#hubLink?.pushInventory(signal);
  }

  async checkHops(key: RegistrationKey | undefined, signal?: AbortSignal): Promise<readonly CheckResult[]> {
    const registration = this.registration;
    const from = key ?? (registration === undefined ? undefined : { ...registration.key, hubCaPem: registration.hubCaPem });
    if (from === undefined) {
      throw new Fault(
        "ApplianceNotRegistered",
        "could not check the way to the hub: it is known from a registration key, and none was given",
      );
    }
    return await checkHops(from, this.registrationParts, signal);
  }

  async register(
    key: RegistrationKey,
    signal?: AbortSignal,
  ): Promise<{ readonly registration: HubRegistration; readonly checks: readonly CheckResult[] }> {
    const before = this.registration;
    if (before !== undefined && before.key.keyId === key.keyId) {
      return { registration: before, checks: await this.checkHops(undefined, signal) };
    }
    const result = await registerAtHub(key, this.registrationParts, signal);
    if (before === undefined) await this.#startReplication(result.registration);
    return result;
  }

  /** What checks and the set-up page need to look around with these settings. */
  get registrationParts(): RegistrationParts {
    const { config, facts, clock, log } = this.#parts;
    return { config, facts, clock, log, siteNames: this.vcenters.list().map((vcenter) => vcenter.host) };
  }

  async #startReplication(registration: HubRegistration): Promise<void> {
    const { clock, log, config } = this.#parts;
    const way = { topology: topologyOf(registration.key, { config, siteNames: [] }), clock, log, caPem: registration.hubCaPem };
    const identity = this.#stack.use(
      new HubIdentity({
        ...{ registration, facts: this.#parts.facts, hubPort: config.hubPort, clock, log },
        connect: (clientCertificate) => createConnector({ ...way, clientCertificate }),
        onGrant: (grant) => writeGrant(this.#parts.facts, grant),
      }),
    );
    // Storage takes the grant's signature, not the certificate.
    const connector = this.#stack.use(createConnector(way));
    this.#storageConnector = connector;
    this.#startHub(registration, identity);
    // The storage account may be out of reach at the moment; agents are taken in as soon as it answers.
    const ingest = this.#startIngest(registration, connector);
    this.#stack.defer(async () => {
      this.#ending.abort();
      await ingest;
    });
  }

  /** Every way that it needs, hop by hop, and its rights on the storage account. */
  async checkWays(signal: AbortSignal): Promise<Awaited<ReturnType<typeof checkWays>>> {
    const applianceId = this.registration?.applianceId;
    if (applianceId !== undefined && this.#storageConnector !== undefined)
      return await checkWays(this.#waysParts(applianceId, this.#storageConnector), signal);
    throw new Fault("ApplianceNotRegistered", "could not check every way: the appliance is not registered");
  }

  #startHub(registration: HubRegistration, identity: HubIdentity): void {
    const { clock, log, database, facts } = this.#parts;
    const hubOrders = createHubOrders(database);
    const runner = this.#stack.use(
      startOrderRunner({
        hubOrders,
        orders: this.#orders,
        registry: this.registry,
        ledger: this.ledger,
        clock,
        log,
        discover: async (signal) => await this.discover(signal),
        fence: async (machineId, wanted, signal) => await fenceMachine(this, { machineId, wanted }, signal),
        ...guestOrders(this.guests),
        renewCertificate: async (signal) => await identity.renew(signal),
        takeVaultKeys: async (signal) => await takeVaultKeys({ hub: identity.client, facts, vault: this.#vault, log }, signal),
        changeLimits: (change) => this.limits.change(change),
        checkNetwork: async (signal) => await this.checkWays(signal),
        changeSite: async (order, signal) => await carryOutSiteOrder(this.#siteOrderParts(), order, signal),
        disconnect: async (machineId) => await this.#disconnect(machineId),
        removePoints: async (machineId) => await this.#removePoints(machineId),
      }),
    );
    this.#hubLink = this.#stack.use(
      startHubLink({
        applianceId: registration.applianceId,
        hub: identity.client,
        hubOrders,
        runner,
        ledger: this.ledger,
        registry: this.registry,
        flow: this.flow,
        clock,
        log,
        inventory: () => inventoryOf(this.vcenters, this.credentials),
        waitInventoryChange: async (signal) => await this.vcenters.waitChange(signal),
        telemetry: async () => await telemetryOf(this),
        grant: () => this.#grant(),
        onGrant: (grant) => writeGrant(this.#parts.facts, grant),
        onHubTime: (hubTime, asked) => this.meter.noteHubTime(hubTime, asked),
        onOthers: (appliances) => {
          this.#others = { atMs: clock.monotonicMs(), appliances };
        },
        renewWhenDue: async (signal) => await identity.renewWhenDue(signal),
        onReach: (fault) => this.health.set("hub", fault),
      }),
    );
  }

  /** Called when the machine leaves this appliance. */
  async #disconnect(machineId: MachineId): Promise<void> {
    await this.#ingest?.disconnect(machineId);
    this.flow.forgetMachine(machineId);
    this.limits.forgetMachine(machineId);
  }

  /** As the hub told last. */
  get others(): OtherAppliances {
    return this.#others;
  }

  get orders(): AgentOrders {
    return this.#orders;
  }

  /** How the machines' data flow, for people and for who watches. */
  flows(): readonly ShownMachine[] {
    return this.registry
      .list()
      .map(({ machineId, facts, state }) => ({ machineId, hostname: facts.hostname, flow: this.flow.flowOf(machineId, state) }));
  }

  #siteOrderParts(): Parameters<typeof carryOutSiteOrder>[0] {
    const { vcenters, registry, guests } = this;
    const pushInventory = async (signal: AbortSignal): Promise<void> => await this.#hubLink?.pushInventory(signal);
    return { vcenters, registry, guests, discovery: (extraHosts) => this.discovery(extraHosts), pushInventory };
  }

  #waysParts(applianceId: string, connector: Connector): Parameters<typeof checkWays>[0] {
    const vcenters = this.vcenters.list();
    return {
      ...{ applianceId, connector, vcenters, clock: this.#parts.clock, random: this.#parts.random },
      checkHops: async (signal) => await this.checkHops(undefined, signal),
      sitePath: { ...this.#parts, topology: siteTopologyOf(this.registration, this.registrationParts) },
      grant: () => this.#grant(),
    };
  }

  async #startIngest(registration: HubRegistration, connector: Connector): Promise<void> {
    const { clock, log, random, config, identity } = this.#parts;
    const { signal } = this.#ending;
    const openStack = this.#stack.use(new AsyncDisposableStack());
    const vault = await openSiteVault(
      {
        registration,
        keys: readVaultKeys(this.#parts.facts, registration),
        connector,
        grant: () => this.#grant(),
        spool: this.spool,
        onUploaded: (bytes) => this.meter.addUploaded(bytes),
        uploads: this.flow.uploads,
        pace: (bytes, abort) => this.limits.passStorage(bytes, abort),
        clock,
        random,
        log,
      },
      openStack,
    );
    await recoverWhenReached({ ledger: this.ledger, vault, health: this.health, clock, log }, signal);
    if (signal.aborted) return;
    this.#vault = vault;
    await vault.useKeys(readVaultKeys(this.#parts.facts, registration)); // Some may have come while it was opened.
    const throttle = openStack.use(new CacheThrottle({ spool: this.spool, limits: this.limits, clock, log }));
    this.health.watch(() => throttle.fault());
    const ingest = await startIngestListener(
      {
        vault,
        ledger: this.ledger,
        registry: this.registry,
        clock,
        log,
        checkSpace: async () => await throttle.checkSpace(),
        flow: this.flow,
        pass: (machineId, bytes, gone) => this.limits.passFromAgent(machineId, bytes, gone),
        groups: createGroupPoints({ registry: this.registry, ledger: this.ledger, orders: this.#orders, clock, random, log }),
        onOutcome: (peer, fault) => this.health.set(`machine ${peer.machineId}`, fault),
      },
      { addresses: config.listenAddresses, port: config.dataPort, identity, caPem: this.authority.caPem },
    );
    openStack.use(ingest);
    openStack.use(
      startPointKeeper({
        ...{ vault, ledger: this.ledger, registry: this.registry, clock, log },
        onOutcome: (fault) => this.health.set("retention", fault),
      }),
    );
    this.#ingest = ingest;
    this.#ports = { ...this.#ports, dataPort: ingest.listening[0]?.port ?? config.dataPort };
    log.info("agents are taken in", { dataPort: this.#ports.dataPort });
  }

  /** Throws while the vault is not reached. */
  vault(): Vault {
    if (this.#vault !== undefined) return this.#vault;
    throw new Fault("StoreUnavailable", "could not look into the vault: it is not reached yet");
  }

  /** Fails while the vault is not reached: the order is given again, and the points must not be said to be gone. */
  async #removePoints(machineId: MachineId): Promise<void> {
    if (this.#vault === undefined) throw new Fault("StoreUnavailable", "could not remove recovery points: the vault is not reached yet");
    const { freedBytes } = await this.#vault.removeMachine(machineId);
    this.#parts.log.info("recovery points removed", { machineId, freedBytes });
  }

  #grant(): NonNullable<ReturnType<typeof readGrant>> {
    const grant = readGrant(this.facts);
    if (grant !== undefined) return grant;
    throw new Fault("ApplianceNotRegistered", "the appliance has no storage grant");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#stack.disposeAsync();
    const outer = this.#outer;
    this.#outer = undefined;
    await outer?.[Symbol.asyncDispose]();
  }
}
