// The lab: a closed network with real machines on this one, brought up, looked at, and taken down without a trace.

import { mkdir, readdir, readFile, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../src/base/atomic-file.ts";
import { systemClock } from "../src/base/clock.ts";
import { Fault } from "../src/contract/errors.ts";
import { chooseAccelerator } from "./accelerator.ts";
import { domain, internet, landing, onprem, siteDomain } from "./addresses.ts";
import { createAuthority } from "./certificates.ts";
import { forbiddenPackets, type ForbiddenPackets } from "./firewall.ts";
import { guestImage, type GuestImage } from "./image.ts";
import { takeLock } from "./lock.ts";
import {
  copyDisks,
  defineMachines,
  type LabMachine,
  machineProcess,
  type MachineRequest,
  makeDisks,
  startMachine,
  writeMachineFiles,
} from "./machine.ts";
import { startNames } from "./names.ts";
import { addTap, buildNetwork, labNamespaces, removeNetwork, resolvers } from "./network.ts";
import { missingPackages } from "./packages.ts";
import { diskRoot, labPlace, type LabPlace, namespaceOf, stateRoot, type Zone, zones } from "./place.ts";
import { daemonProcess, endProcesses, labExec, processesIn, waitUntil } from "./processes.ts";
import { isProxyUp, proxyUser, startProxy } from "./proxy.ts";
import { createSecrets, type LabSecrets } from "./secrets.ts";
import { startVcenter, vcenterName, vcenterProgram, vcenterUser } from "./vcenter.ts";

export interface LabOptions {
  /** Names everything of this lab; `wtr` unless told. Several labs with different prefixes may run at once. */
  readonly prefix?: string | undefined;
  /** `ledger-01` alone unless told; an empty list makes a network without machines and without vCenter. */
  readonly machines?: readonly MachineRequest[];
  readonly progress?: (text: string) => void;
  readonly signal?: AbortSignal;
}

/** What a caller needs to use a lab; kept in <state>/lab.json. Secrets are named by file, never by value. */
export interface LabFacts {
  readonly prefix: string;
  readonly domain: string;
  readonly siteDomain: string;
  readonly stateFolder: string;
  readonly diskFolder: string;
  /** The lab's authority, which signed the vCenter's certificate. */
  readonly caFile: string;
  readonly zones: Readonly<Record<Zone, { readonly namespace: string; readonly resolver: string }>>;
  readonly applianceAddress: string;
  readonly proxy: {
    readonly url: string;
    readonly withPasswordUrl: string;
    readonly user: string;
    readonly passwordFile: string;
  };
  readonly vcenter: {
    readonly url: string;
    readonly name: string;
    readonly address: string;
    readonly user: string;
    readonly passwordFile: string;
  };
  readonly guest: { readonly user: string; readonly passwordFile: string; readonly rootKeyFile: string };
  readonly hub: { readonly publicAddress: string; readonly endpointsFirst: string; readonly dns: string; readonly bridge: string };
  readonly machines: readonly LabMachine[];
  readonly image: GuestImage | undefined;
  readonly accelerator: "kvm" | "tcg";
  readonly upSeconds: number;
}

export interface LabStatus {
  readonly state: "down" | "up" | "broken";
  readonly facts: LabFacts | undefined;
  readonly isProxyUp: boolean;
  readonly machines: readonly { readonly name: string; readonly isOn: boolean }[];
  readonly forbidden: ForbiddenPackets | undefined;
  /** What is there although the lab is not whole. */
  readonly leftovers: readonly string[];
}

const lockWaitMaxMs = 15 * 60_000;
const ledgerWaitMaxMs = 5 * 60_000;
const defaultMachines: readonly MachineRequest[] = [{ name: "ledger-01" }];

/** Brings the lab up and returns when every ledger answers. Whatever an earlier run left under this prefix is removed first. */
export async function labUp(options: LabOptions = {}): Promise<LabFacts> {
  const place = labPlace(options);
  const progress = options.progress ?? (() => undefined);
  const startMs = systemClock.monotonicMs();
  requirePackages();
  const wanted = options.machines ?? defaultMachines;
  const image = wanted.length === 0 ? undefined : await guestImage({ cacheFolder: place.cacheFolder, progress, signal: options.signal });
  await using _lock = await labLock(place, options.signal);
  await removeEverything(place);
  try {
    await mkdir(place.stateFolder, { recursive: true, mode: 0o711 });
    await mkdir(place.diskFolder, { recursive: true, mode: 0o700 });
    const facts = await bringUp({ place, progress, wanted, image, signal: options.signal });
    const upSeconds = Math.round((systemClock.monotonicMs() - startMs) / 100) / 10;
    await writeFileAtomic(join(place.stateFolder, "lab.json"), JSON.stringify({ ...facts, upSeconds }, undefined, 2));
    progress(`lab: up after ${upSeconds} s`);
    return { ...facts, upSeconds };
  } catch (error) {
    const kept = await lastLines(place);
    await removeEverything(place);
    if (error instanceof Fault && kept.length > 0) {
      throw new Fault(error.code, error.message, { cause: error, evidence: { ...error.evidence, lastLines: kept } });
    }
    throw error;
  }
}

/** Takes the lab down: ends its processes and removes its namespaces, disks and files. Does nothing when there is none. */
export async function labDown(options: { readonly prefix?: string | undefined; readonly signal?: AbortSignal } = {}): Promise<void> {
  const place = labPlace(options);
  await using _lock = await labLock(place, options.signal);
  await removeEverything(place);
  const left = await leftovers(options);
  if (left.length > 0) throw new Fault("Internal", `could not take the lab ${place.prefix} down whole`, { evidence: { left } });
}

export async function labStatus(options: { readonly prefix?: string | undefined } = {}): Promise<LabStatus> {
  const place = labPlace(options);
  const facts = await readFacts(place);
  const left = await leftovers(options);
  if (facts === undefined) {
    const state = left.length === 0 ? "down" : "broken";
    return { state, facts: undefined, isProxyUp: false, machines: [], forbidden: undefined, leftovers: left };
  }
  const names = await labNamespaces(place);
  if (!zones.every((zone) => names.includes(namespaceOf(place, zone)))) {
    return { state: "broken", facts, isProxyUp: false, machines: [], forbidden: undefined, leftovers: left };
  }
  const machines = await Promise.all(
    facts.machines.map(async (machine) => ({ name: machine.name, isOn: (await machineProcess(place, machine)) !== undefined })),
  );
  return { state: "up", facts, isProxyUp: await isProxyUp(place), machines, forbidden: await forbiddenPackets(place), leftovers: [] };
}

/** Everything on this machine that belongs to the lab of this prefix: empty after labDown. */
export async function leftovers(options: { readonly prefix?: string | undefined } = {}): Promise<readonly string[]> {
  const place = labPlace(options);
  const namespaces = await labNamespaces(place);
  const processes = new Set([...(await processesIn(namespaces)), ...(await daemons(place))]);
  const folders = await presentFolders(place);
  return [...[...processes].map((id) => `process ${id}`), ...namespaces.map((name) => `namespace ${name}`), ...folders];
}

/** Returns when the machine's ledger answers at its site address. */
export async function awaitLedger(place: LabPlace, machine: LabMachine, waitMaxMs: number, signal?: AbortSignal): Promise<void> {
  const asked = async (): Promise<boolean> => {
    const answer = await labExec(place, "onprem", ["curl", "-sf", "--noproxy", "*", "--max-time", "2", `${machine.ledgerUrl}/`]);
    return answer.exitCode === 0;
  };
  await waitUntil(`the ledger of ${machine.name}`, waitMaxMs, asked, signal);
}

interface BringUp {
  readonly place: LabPlace;
  readonly progress: (text: string) => void;
  readonly wanted: readonly MachineRequest[];
  readonly image: GuestImage | undefined;
  readonly signal: AbortSignal | undefined;
}

async function bringUp(options: BringUp): Promise<Omit<LabFacts, "upSeconds">> {
  const { place, progress, image } = options;
  progress("lab: zones, cables and filters");
  await buildNetwork(place);
  const secrets = await createSecrets(place);
  const authority = await createAuthority(join(place.stateFolder, "ca.crt"));
  const accelerator = image && (await chooseAccelerator({ kernel: image.kernelFile, cacheFolder: place.cacheFolder }));
  const machines = accelerator === undefined ? [] : defineMachines({ place, accelerator, requests: options.wanted });
  progress("lab: names, leases and the proxy");
  await startNames(place, machines);
  await startProxy(place, secrets.proxyPasswordFile);
  if (image !== undefined) await startMachines(options, image, machines);
  if (machines.length > 0) {
    const program = await vcenterProgram(place.cacheFolder, progress);
    progress("lab: vCenter");
    await startVcenter({ place, program, authority, passwordFile: secrets.vcenterPasswordFile, machines });
  }
  for (const machine of machines.filter(isTakenNow)) await awaitLedger(place, machine, ledgerWaitMaxMs, options.signal);
  return toFacts({ place, secrets, machines, image, accelerator: accelerator?.kind ?? "tcg", caFile: authority.caFile });
}

/** Originals first; a clone is taken from its original only after the original's own first boot has given it its identity. */
async function startMachines(options: BringUp, image: GuestImage, machines: readonly LabMachine[]): Promise<void> {
  const { place, progress } = options;
  for (const machine of machines) await writeMachineFiles(place, machine);
  for (const machine of machines.filter(isTakenNow)) {
    const original = machines.find((other) => other.name === machine.cloneOf);
    if (original === undefined) {
      await makeDisks(machine, image);
    } else {
      await awaitLedger(place, original, ledgerWaitMaxMs, options.signal);
      await copyDisks(original, machine);
    }
    progress(`lab: starting ${machine.name}${original === undefined ? "" : `, a clone of ${original.name}`}`);
    await plugAndStart(place, machine);
  }
}

function isTakenNow(machine: LabMachine): boolean {
  return machine.isTakenLater !== true;
}

/** Copies the original of a machine that was put off, as it is at this moment, and starts the copy. Returns when its ledger answers. */
export async function takeClone(facts: LabFacts, name: string, signal?: AbortSignal): Promise<LabMachine> {
  const place = labPlace(facts);
  const machine = facts.machines.find((each) => each.name === name);
  const original = facts.machines.find((each) => each.name === machine?.cloneOf);
  if (machine === undefined || original === undefined || isTakenNow(machine))
    throw new Fault("NotFound", `could not take the clone ${name}: the lab put none of this name off`);
  await copyDisks(original, machine);
  await plugAndStart(place, machine);
  await awaitLedger(place, machine, ledgerWaitMaxMs, signal);
  return machine;
}

async function plugAndStart(place: LabPlace, machine: LabMachine): Promise<void> {
  await addTap(place, "onprem", machine.tap);
  await startMachine(place, machine);
}

interface FactSources {
  readonly place: LabPlace;
  readonly secrets: LabSecrets;
  readonly machines: readonly LabMachine[];
  readonly image: GuestImage | undefined;
  readonly accelerator: "kvm" | "tcg";
  readonly caFile: string;
}

function toFacts(sources: FactSources): Omit<LabFacts, "upSeconds"> {
  const { place, secrets } = sources;
  const zoneFact = (zone: Zone): LabFacts["zones"][Zone] => ({ namespace: namespaceOf(place, zone), resolver: resolvers[zone] });
  return {
    prefix: place.prefix,
    domain,
    siteDomain,
    stateFolder: place.stateFolder,
    diskFolder: place.diskFolder,
    caFile: sources.caFile,
    zones: { onprem: zoneFact("onprem"), dmz: zoneFact("dmz"), internet: zoneFact("internet"), landing: zoneFact("landing") },
    applianceAddress: onprem.appliance,
    proxy: {
      url: `http://${onprem.gateway}:${onprem.proxyPort}`,
      withPasswordUrl: `http://${onprem.gateway}:${onprem.proxyWithPasswordPort}`,
      user: proxyUser,
      passwordFile: secrets.proxyPasswordFile,
    },
    vcenter: {
      url: `https://${vcenterName}/sdk`,
      name: vcenterName,
      address: onprem.vcenter,
      user: vcenterUser,
      passwordFile: secrets.vcenterPasswordFile,
    },
    guest: { user: "operator", passwordFile: secrets.operatorPasswordFile, rootKeyFile: secrets.administratorKeyFile },
    hub: { publicAddress: internet.hub, endpointsFirst: "10.200.0.4", dns: landing.dns, bridge: "br-land" },
    machines: sources.machines,
    image: sources.image,
    accelerator: sources.accelerator,
  };
}

/** Safe at any moment of a half-made lab, and when there is none. */
async function removeEverything(place: LabPlace): Promise<void> {
  const ids = new Set([...(await processesIn(await labNamespaces(place))), ...(await daemons(place))]);
  await endProcesses([...ids]);
  await removeNetwork(place);
  for (const folder of [place.stateFolder, place.diskFolder]) await rm(folder, { recursive: true, force: true });
  for (const folder of [stateRoot, diskRoot]) await rmdir(folder).catch(() => undefined); // Other labs may live in it.
}

async function daemons(place: LabPlace): Promise<readonly number[]> {
  const files: string[] = [];
  for (const folder of [place.stateFolder, join(place.stateFolder, "machines")]) {
    const names = await readdir(folder).catch(() => []); // No lab, or not that far yet.
    files.push(...names.filter((name) => name.endsWith(".pid")).map((name) => join(folder, name)));
  }
  const ids = await Promise.all(files.map(async (file) => await daemonProcess(place, file)));
  return ids.filter((id) => id !== undefined);
}

async function presentFolders(place: LabPlace): Promise<readonly string[]> {
  const candidates = [place.stateFolder, place.diskFolder, ...zones.map((zone) => `/etc/netns/${namespaceOf(place, zone)}`)];
  const found: string[] = [];
  for (const folder of candidates) {
    const isPresent = await readdir(folder).then(
      () => true,
      () => false,
    );
    if (isPresent) found.push(`folder ${folder}`);
  }
  return found;
}

async function readFacts(place: LabPlace): Promise<LabFacts | undefined> {
  const text = await readFile(join(place.stateFolder, "lab.json"), "utf8").catch(() => undefined); // Written only when up.
  return text === undefined ? undefined : (JSON.parse(text) as LabFacts);
}

async function labLock(place: LabPlace, signal: AbortSignal | undefined): Promise<AsyncDisposable> {
  return await takeLock({ name: place.prefix, waitMaxMs: lockWaitMaxMs, signal });
}

function requirePackages(): void {
  const missing = missingPackages();
  if (missing.length === 0) return;
  const names = missing.map((entry) => entry.name);
  throw new Fault("MissingProgram", "could not bring the lab up: Debian packages are missing", {
    action: `apt-get install -y --no-install-recommends ${names.join(" ")}`,
    evidence: { missing: names },
  });
}

/** The ends of the lab's logs, for the fault that is about to remove them. */
async function lastLines(place: LabPlace): Promise<readonly string[]> {
  const lines: string[] = [];
  for (const folder of [place.stateFolder, join(place.stateFolder, "machines")]) {
    const names = await readdir(folder).catch(() => []); // Not that far yet.
    for (const name of names.filter((entry) => entry.endsWith(".log"))) {
      const text = await readFile(join(folder, name), "utf8");
      const rows = text.split(/\r?\n/).filter((row) => row.trim() !== "");
      lines.push(...rows.slice(-3).map((row) => `${name}: ${row.slice(0, 200)}`));
    }
  }
  return lines;
}
