// A hub's end, a storage account behind a door that misbehaves, appliances as real processes, and cables between them and agents.

import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { callAppliance } from "../../../src/appliance/admin/admin-client.ts";
import { createStateFolder, parseApplianceConfig, saveConfig } from "../../../src/appliance/config/config.ts";
import { createMachineRegistry } from "../../../src/appliance/control/machine-registry.ts";
import { openStateDatabase } from "../../../src/appliance/state/database.ts";
import { startFakeHub, storeCredential, type FakeHub } from "../../../src/appliance/testing/fake-hub.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLog } from "../../../src/base/log.ts";
import { systemRandom } from "../../../src/base/random.ts";
import type { AdminResponse } from "../../../src/contract/appliance-admin.ts";
import type { ApplianceOrder } from "../../../src/contract/appliance-protocol.ts";
import { parseOrderId } from "../../../src/contract/ids.ts";
import type { MachineFlow } from "../../../src/contract/machine-flow.ts";
import { findFreePort } from "../../../src/hub/test-client.ts";
import { openAzureBlobStore } from "../../../src/store/azure-blob-store.ts";
import { withStoreRetry } from "../../../src/store/wrappers.ts";
import { openVaultReader } from "../../../src/vault/open-vault.ts";
import type { RecoveryPoint, VaultReader } from "../../../src/vault/vault.ts";
import { plugCable, type Cable } from "./cable.ts";
import { proofDiskId, type ProofMachine, type Way } from "./machine.ts";
import { openStorageFront, type StorageFront } from "./storage-front.ts";

const childProgram = join(import.meta.dirname, "../../../src/appliance/testing/appliance-child.ts");
/** A point every two seconds of ours: the agents' time runs five times as fast. */
const policy = { pointIntervalSeconds: 10, freezeMsMax: 5000 };

type ForMachine = Extract<ApplianceOrder, { kind: "setPolicy" | "point" | "forget" }>;

export class ProofSite implements AsyncDisposable {
  readonly hub: FakeHub;
  readonly front: StorageFront;
  readonly folder: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(parts: {
    readonly hub: FakeHub;
    readonly front: StorageFront;
    readonly folder: string;
    readonly stack: AsyncDisposableStack;
  }) {
    this.hub = parts.hub;
    this.front = parts.front;
    this.folder = parts.folder;
    this.#stack = parts.stack;
  }

  static async open(): Promise<ProofSite> {
    await using stack = new AsyncDisposableStack();
    const folder = await mkdtemp(join(tmpdir(), "watari-faults-"));
    stack.defer(async () => await rm(folder, { recursive: true, force: true }));
    const fronts: StorageFront[] = [];
    const hub = await startFakeHub({
      front: async (accountUrl, identity) => {
        const opened = await openStorageFront(accountUrl, identity);
        fronts.push(opened);
        return opened.url;
      },
    });
    stack.use(hub);
    const [front] = fronts;
    if (front === undefined) throw new Error("assertion failed: the account has a door");
    stack.use(front);
    return new ProofSite({ hub, front, folder, stack: stack.move() });
  }

  async startAppliance(name: string, spoolFolder?: string): Promise<ProofAppliance> {
    return this.#stack.use(await ProofAppliance.start(this, name, spoolFolder));
  }

  /** What the vault holds, read past the door. */
  async withVault<T>(task: (reader: VaultReader) => Promise<T>): Promise<T> {
    const { accountUrl, container, caPem, vaultId, vaultKey } = this.hub;
    await using store = openAzureBlobStore({ accountUrl, container, credential: storeCredential, connection: { ca: caPem } });
    // An idle connection that the account closes at the wrong moment is no finding.
    const patient = withStoreRetry(store, { clock: systemClock, log: silentLog });
    await using reader = await openVaultReader({ store: patient, vaultId, key: vaultKey });
    return await task(reader);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

export async function digestOf(reader: VaultReader, point: RecoveryPoint): Promise<string> {
  await using disk = await reader.openDisk(point.pointId, proofDiskId);
  const bytes = new Uint8Array(disk.sizeBytes);
  await disk.read(0, bytes);
  return createHash("sha256").update(bytes).digest("hex");
}

/** One process, which may be killed and started again at any moment. */
export class ProofAppliance implements AsyncDisposable {
  readonly folder: string;
  readonly cables: { readonly control: Cable; readonly data: Cable };
  readonly #site: ProofSite;
  #child: ChildProcess | undefined;
  #applianceId = "";

  private constructor(site: ProofSite, folder: string, cables: ProofAppliance["cables"]) {
    this.#site = site;
    this.folder = folder;
    this.cables = cables;
  }

  static async start(site: ProofSite, name: string, spoolFolder?: string): Promise<ProofAppliance> {
    const folder = join(site.folder, name);
    const [controlPort, dataPort] = [await findFreePort(), await findFreePort()];
    await createStateFolder(folder);
    const ports = { controlPort, dataPort, hubPort: site.hub.port, hosts: [...site.hub.hosts], siteRanges: ["127.0.0.0/8"] };
    const spool = spoolFolder === undefined ? {} : { spoolFolder };
    await saveConfig(folder, parseApplianceConfig({ name, listenAddresses: ["127.0.0.1"], ...ports, ...spool }));
    const appliance = new ProofAppliance(site, folder, { control: await plugCable(controlPort), data: await plugCable(dataPort) });
    await appliance.run();
    const registrationKey = JSON.stringify(site.hub.createKey());
    appliance.#applianceId = (await callAppliance(folder, "register", { registrationKey })).applianceId;
    return appliance;
  }

  async run(): Promise<void> {
    const args = ["--disable-warning=ExperimentalWarning", childProgram, this.folder];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    this.#child = child;
    const lines = createInterface({ input: child.stdout });
    await Promise.race([once(lines, "line"), once(child, "exit").then(() => Promise.reject(new Error("the appliance did not start")))]);
    child.stdout.resume();
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async way(): Promise<Way> {
    const { passphrase, authorityPem } = await callAppliance(this.folder, "passphrase", {});
    return { controlPort: this.cables.control.port, dataPort: this.cables.data.port, authorityPem, passphrase };
  }

  pull(isPulled: boolean): void {
    this.cables.control.isPulled = isPulled;
    this.cables.data.isPulled = isPulled;
  }

  /** Takes the machine in, whoever had it before. */
  async adopt(machine: ProofMachine, before?: ProofAppliance): Promise<void> {
    await machine.leave();
    using database = openStateDatabase(join(this.folder, "state.sqlite"));
    const registry = createMachineRegistry({ database, clock: systemClock, random: systemRandom, log: silentLog });
    if (before !== undefined) registry.expect(machine.machineId, machine.facts);
    await machine.join(await this.way());
    const link = { infrastructureId: machine.facts.smbiosUuid, orderId: randomUUID(), policy, address: "127.0.0.1", credentialId: "none" };
    registry.protect(machine.machineId, link);
    await this.order({ kind: "setPolicy", machineId: machine.machineId, policy });
    await before?.order({ kind: "forget", machineId: machine.machineId });
  }

  /** Throws what the appliance or its agent says. */
  async order(wish: ForMachine extends infer T ? (T extends ForMachine ? Omit<T, "orderId"> : never) : never): Promise<string | undefined> {
    const order = { ...wish, orderId: parseOrderId(randomUUID()) } as ApplianceOrder; // The wish is an order but for its id.
    const result = await this.#site.hub.give(order, this.#applianceId);
    if (result.outcome === "failed") throw new Error(`${wish.kind}: ${result.fault.id}: ${result.fault.message}`);
    return result.pointId;
  }

  async status(): Promise<AdminResponse<"status">> {
    return await callAppliance(this.folder, "status", {});
  }

  async flowOf(machine: ProofMachine): Promise<MachineFlow | undefined> {
    return (await this.status()).machines.find(({ machineId }) => machineId === machine.machineId)?.flow;
  }

  async verify(): Promise<AdminResponse<"verifyPoints">> {
    return await callAppliance(this.folder, "verifyPoints", {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end("SIGTERM");
    await this.cables.control[Symbol.asyncDispose]();
    await this.cables.data[Symbol.asyncDispose]();
  }

  async #end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }
}
