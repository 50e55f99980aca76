// Makes a clone boot on other hardware by file edits alone: drivers, device names, boot loader, cards, the old hypervisor's service.

import type { Clock } from "../../base/clock.ts";
import { openHelperVolumes } from "../helper/helper-volumes.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import type { HydrationReport, LandingNic } from "../target.ts";
import { planAddressing } from "./addressing.ts";
import type { DriverPlans } from "./driver-plans.ts";
import type { DriverNeeds } from "./drivers.ts";
import { replaceFile, type Edit } from "./edit.ts";
import { planEfiFallback } from "./efi-fallback.ts";
import { planInjection } from "./inject-drivers.ts";
import { planUpgrade } from "./plan-upgrade.ts";
import { planAgentRemoval } from "./remove-agent.ts";
import { findGuestRoot, findVolume, unsupported, type GuestRoot } from "./survey.ts";
import { planCardNames, planGuestTools, planLvmDevices, planRelabel, type CardHardware } from "./system-edits.ts";
import { textRules, type RuleSurroundings, type TextRule } from "./text-rules.ts";
import { isPlainPath, type FileChange, type VolumeFiles } from "./volume-files.ts";
import { plainVolumes, surveyPartitions, type GuestVolumes, type Volume } from "./volumes.ts";

/** What the target's machines are made of. */
export interface TargetHardware extends CardHardware {
  readonly drivers: DriverNeeds;
}

export interface HydrateOptions {
  /** The clone's disks as raw files, in the source's order. They are written to. */
  readonly imagePaths: readonly string[];
  readonly bootDiskIndex: number;
  readonly nics: readonly Pick<LandingNic, "mac" | "guestName" | "addressing">[];
  readonly hardware: TargetHardware;
  /** A disk beside it upgrades the operating system. */
  readonly upgradesSystem?: boolean;
  readonly hasSerialConsole?: boolean;
  /** An own, empty folder of the host. */
  readonly scratchFolder: string;
  /** Asked for only when the guest needs the helper machine; absent: such guests are refused. */
  readonly helperImage?: () => Promise<HelperImage>;
  /** What was found out of kernels before; absent: nothing is kept. */
  readonly plans?: DriverPlans;
  /** Passphrases and key files of encrypted volumes; each is tried at each. */
  readonly unlockKeys?: readonly Uint8Array[];
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

/** Repeating it changes nothing more. Throws Fault HydrationUnsupported for what it does not know yet; then nothing was edited. */
export async function hydrate(options: HydrateOptions): Promise<HydrationReport> {
  const startedMs = options.clock.monotonicMs();
  await using opened = await openGuest(options);
  const { guest, volumes } = opened;
  const injection = await planInjection({
    guest,
    needs: options.hardware.drivers,
    scratchFolder: options.scratchFolder,
    plans: options.plans,
  });
  const { nics, hardware } = options;
  const planned: readonly Edit[] = [
    injection,
    ...(await planTexts(guest, surroundingsOf(options, volumes.volumes))),
    ...(guest.efiFiles === undefined ? [] : [await planEfiFallback(guest.efiFiles)]),
    await planCardNames(guest.rootFiles, { nics, hardware }),
    await planAddressing(
      guest.rootFiles,
      nics.flatMap(({ guestName, addressing = { kind: "keep" } }) => (addressing.kind === "keep" ? [] : [{ guestName, addressing }])),
    ),
    await planLvmDevices(guest.rootFiles),
    await planGuestTools(guest.rootFiles),
    await planAgentRemoval(guest.rootFiles),
    ...(options.upgradesSystem === true ? [await planUpgrade(guest.rootFiles)] : []),
  ];
  const isRootChanged = planned.some((edit) => (edit.rootChanges ?? []).length > 0);
  const edits = [...planned, await planRelabel(guest.rootFiles, isRootChanged)];
  options.signal?.throwIfAborted();
  const places = [
    { files: guest.bootFiles, changes: edits.flatMap((edit) => edit.bootChanges ?? []) },
    { files: guest.efiFiles, changes: edits.flatMap((edit) => edit.efiChanges ?? []) },
    { files: guest.rootFiles, changes: edits.flatMap((edit) => edit.rootChanges ?? []) },
  ];
  for (const { files, changes } of places) if (changes.length > 0) await files?.change(changes);
  await volumes.finish();
  const changes = [...volumes.remarks, ...edits.flatMap((edit) => edit.changes)];
  return { seconds: (options.clock.monotonicMs() - startedMs) / 1000, changes };
}

export function surroundingsOf({ hardware, nics, hasSerialConsole = false }: HydrateOptions, volumes: readonly Volume[]): RuleSurroundings {
  return {
    findUuid: (source, type) => {
      const volume = findVolume(volumes, { source, type });
      return volume !== undefined && "uuid" in volume.filesystem ? volume.filesystem.uuid : undefined;
    },
    cardDriver: hardware.cardDriver,
    macs: nics.map(({ mac }) => mac),
    hasSerialConsole,
  };
}

async function planTexts(guest: GuestRoot, around: RuleSurroundings): Promise<readonly Edit[]> {
  const edits: Edit[] = [];
  for (const rule of textRules) {
    const isBoot = rule.volume === "boot";
    const files = isBoot ? guest.bootFiles : guest.rootFiles;
    const folder = isBoot ? `${guest.bootPrefix}${rule.folder}` : rule.folder;
    const edit = await planText(files, { rule, folder, shownFolder: isBoot ? `/boot${rule.folder}` : folder }, around);
    edits.push(isBoot ? { bootChanges: edit.made, changes: edit.changes } : { rootChanges: edit.made, changes: edit.changes });
  }
  return edits;
}

async function planText(
  files: VolumeFiles,
  { rule, folder, shownFolder }: { readonly rule: TextRule; readonly folder: string; readonly shownFolder: string },
  around: RuleSurroundings,
) {
  const isTheirs = (name: string): boolean => (typeof rule.name === "string" ? name === rule.name : name.endsWith(rule.name.ending));
  const inFolder = (await files.list(folder)) ?? [];
  const names = inFolder.flatMap(({ name, kind }) => (kind === "file" && isTheirs(name) && isPlainPath(`/${name}`) ? [name] : []));
  const texts = await files.read(names.map((name) => `${folder}/${name}`));
  const made: FileChange[] = [];
  const changes: string[] = [];
  for (const name of names) {
    const old = texts.get(`${folder}/${name}`)?.toString("latin1");
    if (old === undefined) continue;
    const rewriting = rule.rule(old, `${shownFolder}/${name}`, around);
    changes.push(...rewriting.changes);
    if (rewriting.text !== old) made.push(...(await replaceFile(files, { folder, name, text: rewriting.text })));
  }
  return { made, changes };
}

interface OpenedGuest extends AsyncDisposable {
  readonly volumes: GuestVolumes;
  readonly guest: GuestRoot;
}

/** By this host's own tools where they suffice; else in the helper machine. */
export async function openGuest(options: HydrateOptions): Promise<OpenedGuest> {
  const partitions = await surveyPartitions(options.imagePaths);
  const plain = plainVolumes(partitions, options);
  const near = await findGuestRoot(plain, options.bootDiskIndex);
  if (near.kind === "found") return { volumes: plain, guest: near.guest, [Symbol.asyncDispose]: async () => undefined };
  if (options.helperImage === undefined || !partitions.some(needsHelper)) throw unsupported(plain, near.reason);
  const graphs = options.imagePaths.map((filename, index) => ({
    nodes: [
      { driver: "file", filename, locking: "off", "node-name": `file${index}`, discard: "unmap" },
      { driver: "raw", file: `file${index}`, "node-name": `disk${index}`, discard: "unmap" },
    ],
    topNode: `disk${index}`,
  }));
  const image = await options.helperImage();
  const helped = await openHelperVolumes({ ...options, image, graphs, partitions, keys: options.unlockKeys ?? [], access: "write" });
  try {
    const far = await findGuestRoot(helped, options.bootDiskIndex);
    if (far.kind === "missing") throw unsupported(helped, far.reason);
    return { volumes: helped, guest: far.guest, [Symbol.asyncDispose]: async () => await helped[Symbol.asyncDispose]() };
  } catch (error) {
    await helped[Symbol.asyncDispose]();
    throw error;
  }
}

function needsHelper({ filesystem: { kind } }: Volume): boolean {
  return kind === "xfs" || kind === "btrfs" || kind === "lvm" || kind === "luks" || kind === "raid";
}
