// One machine in Azure: its disks, cards and virtual machine as calls that may each be repeated; all of it carries our tags, and goes by them.

import type { Disk as AzureDisk, VirtualMachine } from "@azure/arm-compute";
import type { NetworkInterface } from "@azure/arm-network";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { forEachParallel } from "../../base/semaphore.ts";
import type { LandingNic, LaunchSpec, StopMode } from "../target.ts";
import { absentAsUndefined, callAzure, statusOf, type AzureClients } from "./azure-clients.ts";
import { uploadSizeOf } from "./vhd-upload.ts";

/** Where machines land, and what they are given there. */
export interface AzurePlace {
  readonly resourceGroup: string;
  readonly location: string;
  /** Tells this installation's machines from those of others in the same group. */
  readonly owner: string;
  /** Ids of subnets by the names of networks. */
  readonly networks: Readonly<Record<string, string>>;
  /** Id of the subnet of isolated machines: one that leads nowhere. Absent: no machine lands isolated. */
  readonly isolatedSubnet?: string;
  readonly diskType: "Standard_LRS" | "StandardSSD_LRS" | "Premium_LRS";
  /** The smallest that fits, unless told. */
  readonly size?: string;
  readonly zone?: string;
  readonly availabilitySetId?: string;
  readonly licenceType?: string;
  readonly isTrustedLaunch: boolean;
  /** Uploads go by private endpoints of this Microsoft.Compute/diskAccesses. Absent: by the public names, through the connector. */
  readonly diskAccessId?: string;
  readonly tags: Readonly<Record<string, string>>;
}

export const ownerTag = "watari-owner";
export const machineTag = "watari-machine";
const guestNameTag = "watari-guest-name";
const addressSeconds = 24 * 3600;
const removalsAtOnce = 4;
/** Between two looks at a call that goes on; Azure's own wish counts more. */
const pollMs = 1000;
const erasePauseMs = 500;
/** A machine that is being made is let go of once it is made. */
const eraseMsMax = 15 * 60_000;

export interface AzureSurroundings {
  readonly azure: AzureClients;
  readonly place: AzurePlace;
  readonly clock: Clock;
}

type Tagged = Readonly<Record<string, string>> | undefined;

export class AzureMachine {
  readonly name: string;
  readonly #azure: AzureClients;
  readonly #place: AzurePlace;
  readonly #clock: Clock;

  constructor(name: string, { azure, place, clock }: AzureSurroundings) {
    this.name = name;
    this.#azure = azure;
    this.#place = place;
    this.#clock = clock;
  }

  get #tags(): Record<string, string> {
    return { ...this.#place.tags, [ownerTag]: this.#place.owner, [machineTag]: this.name };
  }

  /** Undefined when there is none; a machine of somebody else's with its name is StateConflict. */
  async find(): Promise<VirtualMachine | undefined> {
    const { compute } = this.#azure;
    const { resourceGroup } = this.#place;
    const vm = await callAzure(`look for the machine ${this.name}`, undefined, async () =>
      absentAsUndefined(async () => await compute.virtualMachines.get(resourceGroup, this.name, { expand: "instanceView" })),
    );
    if (vm !== undefined) this.#requireOurs(vm.tags, "machine", this.name);
    return vm;
  }

  diskName(index: number): string {
    return `${this.name}-disk${index}`;
  }

  /** Ready to be written, or written already. */
  async makeDisk(spec: LaunchSpec, index: number, signal?: AbortSignal): Promise<AzureDisk> {
    const { compute } = this.#azure;
    const { resourceGroup, location, diskType, zone, isTrustedLaunch, diskAccessId } = this.#place;
    const name = this.diskName(index);
    const disk = spec.disks[index];
    if (disk === undefined) throw new Error("assertion failed: the disk is one of the order");
    return await callAzure(`make the disk ${name}`, signal, async () => {
      const present = await absentAsUndefined(async () => await compute.disks.get(resourceGroup, name, withSignal(signal)));
      if (present !== undefined) {
        this.#requireOurs(present.tags, "disk", name);
        if (present.creationData?.uploadSizeBytes === uploadSizeOf(disk.content.sizeBytes)) return present;
        await this.#removeDisk(present);
      }
      const wish: AzureDisk = {
        location,
        tags: this.#tags,
        sku: { name: diskType },
        ...(zone === undefined ? {} : { zones: [zone] }),
        ...(disk.isBoot ? { osType: "Linux", hyperVGeneration: spec.firmware === "efi" ? "V2" : "V1" } : {}),
        ...(disk.isBoot && isTrustedLaunch ? { securityProfile: { securityType: "TrustedLaunch" } } : {}),
        ...(diskAccessId === undefined ? {} : { networkAccessPolicy: "AllowPrivate", diskAccessId }),
        creationData: { createOption: "Upload", uploadSizeBytes: uploadSizeOf(disk.content.sizeBytes) },
      };
      return await compute.disks.createOrUpdate(resourceGroup, name, wish, longOptions(signal));
    });
  }

  /** A signed address to write a disk at. It is a secret. */
  async openDisk(index: number, signal?: AbortSignal): Promise<string> {
    const { compute } = this.#azure;
    const name = this.diskName(index);
    const wish = { access: "Write", durationInSeconds: addressSeconds } as const;
    const { accessSAS } = await callAzure(`open the disk ${name}`, signal, async () =>
      compute.disks.grantAccess(this.#place.resourceGroup, name, wish, longOptions(signal)),
    );
    if (accessSAS !== undefined) return accessSAS;
    throw new Fault("LandingFailed", `could not open the disk ${name}: Azure gave no address`);
  }

  /** From here on the disk can be attached; nothing is written to it any more. */
  async closeDisk(index: number, signal?: AbortSignal): Promise<void> {
    const { compute } = this.#azure;
    const name = this.diskName(index);
    const state = await callAzure(`close the disk ${name}`, signal, async () => {
      await compute.disks.revokeAccess(this.#place.resourceGroup, name, longOptions(signal));
      return (await compute.disks.get(this.#place.resourceGroup, name, withSignal(signal))).diskState;
    });
    if (state === "Unattached") return;
    throw new Fault("LandingFailed", `could not close the disk ${name}: Azure does not take it as written`, {
      evidence: { diskState: state ?? "" },
    });
  }

  /** Answers the ids of its cards, in order, and what is to be told of them. */
  async makeCards(spec: LaunchSpec, signal?: AbortSignal): Promise<{ readonly ids: readonly string[]; readonly told: readonly string[] }> {
    const subnetId = this.subnetOf(spec);
    const prefix = await this.#prefixOf(subnetId, signal);
    const ids: string[] = [];
    const told: string[] = [];
    for (const [index, nic] of spec.nics.entries()) {
      const name = `${this.name}-nic${index}`;
      const address = nic.addressing?.kind === "dhcp" ? undefined : nic.address?.replace(/\/.*$/, "");
      const isKept = address !== undefined && prefix !== undefined && isInside(prefix, address);
      if (address !== undefined && !isKept && nic.addressing?.kind === "fixed")
        throw new Fault("InputInvalid", `could not make the card ${nic.guestName}: its address is not of the subnet it joins`, {
          evidence: { address, subnet: prefix ?? "unknown" },
          action: "choose an address of that subnet, or another network",
        });
      if (address !== undefined && !isKept)
        told.push(`! the card ${nic.guestName} gets another address than ${address}: its subnet is ${prefix ?? "unknown"}`);
      ids.push(await this.#makeCard(name, { nic, subnetId, ...(isKept ? { address } : {}) }, signal));
    }
    return { ids, told };
  }

  async #makeCard(
    name: string,
    { nic, subnetId, address }: { readonly nic: LandingNic; readonly subnetId: string; readonly address?: string },
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const { network } = this.#azure;
    const { resourceGroup, location } = this.#place;
    const method =
      address === undefined ? { privateIPAllocationMethod: "Dynamic" } : { privateIPAllocationMethod: "Static", privateIPAddress: address };
    const wish: NetworkInterface = {
      location,
      tags: { ...this.#tags, [guestNameTag]: nic.guestName },
      ipConfigurations: [{ name: "ipconfig1", subnet: { id: subnetId }, ...method }],
    };
    const { id } = await callAzure(`make the card ${name}`, signal, async () => {
      const present = await absentAsUndefined(async () => await network.networkInterfaces.get(resourceGroup, name, withSignal(signal)));
      if (present !== undefined) this.#requireOurs(present.tags, "card", name);
      return present?.virtualMachine === undefined
        ? await network.networkInterfaces.createOrUpdate(resourceGroup, name, wish, longOptions(signal))
        : present;
    });
    return id ?? "";
  }

  /** Throws InputInvalid for a network that the configuration does not name. */
  subnetOf({ network }: Pick<LaunchSpec, "network">): string {
    const { networks, isolatedSubnet } = this.#place;
    const subnetId = network.kind === "isolated" ? isolatedSubnet : networks[network.name];
    if (subnetId !== undefined) return subnetId;
    throw new Fault("InputInvalid", `could not land machine ${this.name}: there is no subnet for its network`, {
      evidence: { network: network.kind === "isolated" ? "isolated" : network.name, configured: Object.keys(networks) },
      action:
        network.kind === "isolated"
          ? "name the subnet of test machines in the hub's configuration: landing.azure.isolatedSubnet"
          : "name the network in the hub's configuration: landing.azure.networks",
    });
  }

  async #prefixOf(subnetId: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    const match = /\/resourceGroups\/([^/]+)\/.*\/virtualNetworks\/([^/]+)\/subnets\/([^/]+)$/i.exec(subnetId);
    const [, group = "", net = "", subnet = ""] = match ?? [];
    const found = await callAzure(`read the subnet ${subnet}`, signal, async () =>
      this.#azure.network.subnets.get(group, net, subnet, withSignal(signal)),
    );
    return found.addressPrefix ?? found.addressPrefixes?.[0];
  }

  /** The processor runs on return. One that a killed program had asked for is waited for; one that failed is asked for again. */
  async makeVirtualMachine(spec: LaunchSpec, interfaceIds: readonly string[], signal?: AbortSignal): Promise<void> {
    let present = await this.find();
    while (present?.provisioningState === "Creating" || present?.provisioningState === "Updating") {
      await this.#clock.sleep(pollMs, signal);
      present = await this.find();
    }
    if (present?.provisioningState === "Succeeded") return await this.#startUnlessOn(present);
    const { compute } = this.#azure;
    const { resourceGroup, location, zone, availabilitySetId, licenceType, isTrustedLaunch } = this.#place;
    const vmSize = await this.#sizeFor(spec, signal);
    const disks = await callAzure("look for the disks", signal, async () =>
      Promise.all(spec.disks.map(async (_, index) => await compute.disks.get(resourceGroup, this.diskName(index), withSignal(signal)))),
    );
    const attached = (index: number) =>
      ({ createOption: "Attach", deleteOption: "Detach", managedDisk: { id: disks[index]?.id ?? "" } }) as const;
    const boot = spec.disks.findIndex(({ isBoot }) => isBoot);
    const others = [...spec.disks.keys()].filter((index) => index !== boot);
    const wish: VirtualMachine = {
      location,
      tags: this.#tags,
      ...(zone === undefined ? {} : { zones: [zone] }),
      ...(availabilitySetId === undefined ? {} : { availabilitySet: { id: availabilitySetId } }),
      ...(licenceType === undefined ? {} : { licenseType: licenceType }),
      hardwareProfile: { vmSize },
      storageProfile: {
        osDisk: { ...attached(boot), osType: "Linux" },
        dataDisks: others.map((index, lun) => ({ ...attached(index), lun })),
      },
      networkProfile: { networkInterfaces: interfaceIds.map((id, index) => ({ id, primary: index === 0 })) },
      diagnosticsProfile: { bootDiagnostics: { enabled: true } },
      // Without secure boot: a guest that came from elsewhere may have a kernel that nobody signed.
      ...(isTrustedLaunch
        ? { securityProfile: { securityType: "TrustedLaunch", uefiSettings: { secureBootEnabled: false, vTpmEnabled: true } } }
        : {}),
    };
    await callAzure(`start the machine ${this.name}`, signal, async () =>
      compute.virtualMachines.createOrUpdate(resourceGroup, this.name, wish, longOptions(signal)),
    );
  }

  async #startUnlessOn({ instanceView }: VirtualMachine): Promise<void> {
    if (instanceView?.statuses?.some(({ code }) => code === "PowerState/running") !== true) await this.start();
  }

  /** The fewest processors, then the least memory, that are enough. */
  async #sizeFor(spec: LaunchSpec, signal: AbortSignal | undefined): Promise<string> {
    const { size, location } = this.#place;
    if (size !== undefined) return size;
    const memoryMB = Math.ceil(spec.memoryBytes / 2 ** 20);
    const fitting: { readonly name: string; readonly cores: number; readonly memoryMB: number }[] = [];
    await callAzure(`list the sizes of ${location}`, signal, async () => {
      for await (const each of this.#azure.compute.virtualMachineSizes.list(location, withSignal(signal))) {
        const { name = "", numberOfCores = 0, memoryInMB = 0, maxDataDiskCount = 0 } = each;
        const isEnough = numberOfCores >= spec.cpuCount && memoryInMB >= memoryMB && maxDataDiskCount >= spec.disks.length - 1;
        if (isEnough) fitting.push({ name, cores: numberOfCores, memoryMB: memoryInMB });
      }
    });
    const [first] = fitting.toSorted((one, other) => one.cores - other.cores || one.memoryMB - other.memoryMB);
    if (first !== undefined) return first.name;
    throw new Fault("LandingFailed", `could not land machine ${this.name}: no size of ${location} is large enough`, {
      evidence: { cpuCount: spec.cpuCount, memoryMB, dataDisks: spec.disks.length - 1 },
      retry: "never",
    });
  }

  async start(): Promise<void> {
    await callAzure(`start the machine ${this.name}`, undefined, async () =>
      this.#azure.compute.virtualMachines.start(this.#place.resourceGroup, this.name, longOptions(undefined)),
    );
  }

  /** Its processors are given back, so that it costs nothing while it is off. */
  async stop(how: StopMode): Promise<void> {
    const { virtualMachines } = this.#azure.compute;
    const { resourceGroup } = this.#place;
    await callAzure(`stop the machine ${this.name}`, undefined, async () => {
      if (how === "cut") await virtualMachines.powerOff(resourceGroup, this.name, { skipShutdown: true, ...longOptions(undefined) });
      await virtualMachines.deallocate(resourceGroup, this.name, longOptions(undefined));
    });
  }

  async addresses(): Promise<readonly string[]> {
    const cards = await this.#cards();
    return cards.flatMap(({ ipConfigurations }) => (ipConfigurations ?? []).flatMap(({ privateIPAddress }) => privateIPAddress ?? []));
  }

  /** Signed addresses of what boot diagnostics keeps. They are secrets. */
  async consoleAddresses(): Promise<{ readonly serialLog?: string | undefined; readonly screenshot?: string | undefined }> {
    const found = await callAzure(`look at the console of ${this.name}`, undefined, async () =>
      this.#azure.compute.virtualMachines.retrieveBootDiagnosticsData(this.#place.resourceGroup, this.name),
    );
    return { serialLog: found.serialConsoleLogBlobUri, screenshot: found.consoleScreenshotBlobUri };
  }

  /**
   * Everything that carries its tags: the machine first, then its cards and disks. May be repeated. Looks again until nothing is found, because
   * a call of a program that was killed may still be under way; doubtful: one more look even when nothing was found at first.
   */
  async erase(doubt: "none" | "doubtful" = "none"): Promise<void> {
    const deadlineMs = this.#clock.monotonicMs() + eraseMsMax;
    for (let isFirst = true; ; isFirst = false) {
      const left = await callAzure(`remove the machine ${this.name}`, undefined, async () => await this.#eraseOnce());
      if (left.length === 0 && !(isFirst && doubt === "doubtful")) return;
      if (this.#clock.monotonicMs() > deadlineMs)
        throw new Fault("LeftoverFound", `could not remove the machine ${this.name}: Azure does not let go of it`, { evidence: { left } });
      await this.#clock.sleep(erasePauseMs);
    }
  }

  /** Answers what was found; what Azure is busy with stays for the next look. */
  async #eraseOnce(): Promise<readonly string[]> {
    const { compute, network } = this.#azure;
    const { resourceGroup } = this.#place;
    const found: string[] = [];
    const remove = async (name: string, task: () => Promise<unknown>): Promise<void> => {
      found.push(name);
      await task().catch((error: unknown) => {
        if (statusOf(error) !== 409) throw error;
      });
    };
    for await (const { name = "", tags } of compute.virtualMachines.list(resourceGroup))
      if (this.#isOurs(tags))
        await remove(
          name,
          async () => await compute.virtualMachines.delete(resourceGroup, name, { forceDeletion: true, ...longOptions(undefined) }),
        );
    await forEachParallel(await this.#cards(), removalsAtOnce, async ({ name = "" }) => {
      await remove(name, async () => await network.networkInterfaces.delete(resourceGroup, name, longOptions(undefined)));
    });
    const disks: AzureDisk[] = [];
    for await (const disk of compute.disks.listByResourceGroup(resourceGroup)) if (this.#isOurs(disk.tags)) disks.push(disk);
    await forEachParallel(disks, removalsAtOnce, async (disk) => {
      await remove(disk.name ?? "", async () => await this.#removeDisk(disk));
    });
    return found;
  }

  async #removeDisk({ name = "", diskState }: AzureDisk): Promise<void> {
    const { disks } = this.#azure.compute;
    const { resourceGroup } = this.#place;
    if (diskState === "ActiveUpload" || diskState === "ActiveSAS") await disks.revokeAccess(resourceGroup, name, longOptions(undefined));
    await disks.delete(resourceGroup, name, longOptions(undefined));
  }

  async #cards(): Promise<readonly NetworkInterface[]> {
    const found: NetworkInterface[] = [];
    await callAzure(`look for the cards of ${this.name}`, undefined, async () => {
      for await (const nic of this.#azure.network.networkInterfaces.list(this.#place.resourceGroup))
        if (this.#isOurs(nic.tags)) found.push(nic);
    });
    return found.toSorted((one, other) => (one.name ?? "").localeCompare(other.name ?? ""));
  }

  #isOurs(tags: Tagged): boolean {
    return tags?.[ownerTag] === this.#place.owner && tags[machineTag] === this.name;
  }

  #requireOurs(tags: Tagged, what: string, name: string): void {
    if (this.#isOurs(tags)) return;
    throw new Fault("StateConflict", `could not land machine ${this.name}: another ${what} has the name ${name}`, {
      evidence: { name, resourceGroup: this.#place.resourceGroup },
      action: "choose another name for the landed machine",
      retry: "never",
    });
  }
}

function isInside(prefix: string, address: string): boolean {
  const [base = "", length = "32"] = prefix.split("/");
  const toNumber = (text: string): bigint => text.split(".").reduce((sum, part) => (sum << 8n) + BigInt(part), 0n);
  if (!/^\d+\.\d+\.\d+\.\d+$/.test(address) || !/^\d+\.\d+\.\d+\.\d+$/.test(base)) return false;
  const shift = BigInt(32 - Number(length));
  return toNumber(base) >> shift === toNumber(address) >> shift;
}

function withSignal(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal === undefined ? {} : { abortSignal: signal };
}

function longOptions(signal: AbortSignal | undefined): { readonly updateIntervalInMs: number; abortSignal?: AbortSignal } {
  return { updateIntervalInMs: pollMs, ...withSignal(signal) };
}
