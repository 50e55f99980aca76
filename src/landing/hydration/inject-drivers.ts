// Gives every installed kernel's initramfs the drivers it lacks, by one more archive behind the bytes that are there.

import { Fault } from "../../contract/errors.ts";
import { cpioTypes, type CpioEntry } from "./cpio.ts";
import { findMissingDrivers, moduleNameOf, parseModuleIndex, type DriverNeeds, type MissingDrivers } from "./drivers.ts";
import { isPlainPath, type FileChange, type GuestFile, type VolumeFiles } from "./volume-files.ts";
import { digestOf, type DriverPlan, type DriverPlans } from "./driver-plans.ts";
import { appendArchive, packArchive, readInitrd, type InitrdContent } from "./initrd.ts";
import type { GuestRoot } from "./survey.ts";

export interface InjectOptions {
  readonly guest: GuestRoot;
  readonly needs: DriverNeeds;
  readonly scratchFolder: string;
  /** Absent: every initramfs is looked into. */
  readonly plans?: DriverPlans | undefined;
}

export interface Injection {
  /** To be made in the filesystem of /boot. */
  readonly bootChanges: readonly FileChange[];
  readonly changes: readonly string[];
}

const kernelsMax = 16;
/** What stays free in /boot after the original was kept beside the new file. */
const reserveBytes = 2 ** 20;
/** Parts of depmod's index that an initramfs may carry; taken over as they are, so that aliases lead to the new modules. */
const indexNames = ["dep", "alias", "symbols", "builtin", "builtin.alias"].map((name) => `modules.${name}.bin`);
const textIndexNames = ["modules.dep", "modules.alias", "modules.symbols", "modules.softdep", "modules.devname", "modules.order"];

interface Kernel {
  readonly release: string;
  readonly initrd: GuestFile;
  /** An earlier hydration has kept an original under this name. */
  readonly hasOriginal: boolean;
}

/** Plans the injection. Throws Fault HydrationUnsupported when no kernel could boot on the target. */
export async function planInjection(options: InjectOptions): Promise<Injection> {
  const { guest } = options;
  const kernels = await findKernels(guest);
  if (kernels.length === 0) {
    throw new Fault("HydrationUnsupported", "could not hydrate the clone: no kernel in /lib/modules has an initramfs in /boot");
  }
  const bootChanges: FileChange[] = [];
  const changes: string[] = [];
  const impossible: string[] = [];
  let freeBytes = guest.bootFreeBytes;
  for (const kernel of kernels) {
    const outcome = await planKernel(options, kernel);
    if (outcome.kind === "impossible") impossible.push(`${kernel.release}: no ${outcome.driver}`);
    if (outcome.kind !== "longer") continue;
    const placed = placeInitrd(guest, kernel, outcome.image, freeBytes);
    freeBytes -= placed.usedBytes;
    bootChanges.push(...placed.changes);
    changes.push(`/boot/${kernel.initrd.name}: + ${outcome.names.join(" ")}${placed.remark}`);
  }
  if (impossible.length === kernels.length) {
    throw new Fault("HydrationUnsupported", "could not hydrate the clone: its kernels have no drivers for the target", {
      evidence: { kernels: impossible },
    });
  }
  return { bootChanges, changes: [...changes, ...impossible.map((text) => `! kernel ${text}: left as it is`)] };
}

async function findKernels(guest: GuestRoot): Promise<readonly Kernel[]> {
  const inBoot = (await guest.bootFiles.list(guest.bootPrefix || "/")) ?? [];
  const releases = (await guest.moduleFiles.list("/lib/modules")) ?? [];
  return releases
    .filter(({ kind, name }) => kind === "folder" && isPlainPath(`/${name}`))
    .flatMap(({ name: release }) => {
      const names = [`initrd.img-${release}`, `initramfs-${release}.img`, `initrd-${release}`];
      const initrd = inBoot.find(({ name, kind }) => kind === "file" && names.includes(name));
      const hasOriginal = inBoot.some(({ name }) => name === `${initrd?.name}.watari-orig`);
      return initrd === undefined ? [] : [{ release, initrd, hasOriginal }];
    })
    .slice(-kernelsMax);
}

type KernelPlan =
  | { readonly kind: "complete" }
  | { readonly kind: "impossible"; readonly driver: string }
  | { readonly kind: "longer"; readonly image: Buffer; readonly names: readonly string[] };

async function planKernel({ guest, needs, scratchFolder, plans }: InjectOptions, kernel: Kernel): Promise<KernelPlan> {
  const { release, initrd } = kernel;
  const folder = `/lib/modules/${release}`;
  const initrdPath = `${guest.bootPrefix}/${initrd.name}`;
  const image = (await guest.bootFiles.read([initrdPath])).get(initrdPath);
  const found = await guest.moduleFiles.read([`${folder}/modules.dep`, `${folder}/modules.builtin`]);
  const dependencies = found.get(`${folder}/modules.dep`);
  if (image === undefined || dependencies === undefined) return { kind: "complete" }; // Left by a kernel that was removed.
  const builtin = found.get(`${folder}/modules.builtin`) ?? Buffer.alloc(0);
  const inputs = [release, JSON.stringify(needs), ...[image, dependencies, builtin].map(digestOf)];
  const kept = await plans?.find(inputs);
  if (kept !== undefined && (await holds(kept, guest.moduleFiles))) return toKernelPlan(kept, image);
  const index = parseModuleIndex({ dependencies: dependencies.toString("utf8"), builtin: builtin.toString("utf8") });
  const content = await readInitrd(image, { name: initrd.name, scratchFolder });
  const missing = findMissingDrivers(index, modulesIn(content, release), needs);
  if (missing.kind === "impossible") return missing;
  const plan =
    missing.kind === "complete" ? { names: [], files: [], tail: Buffer.alloc(0) } : await planTail(guest, release, { missing, content });
  await plans?.keep(inputs, plan);
  return toKernelPlan(plan, image);
}

/** Every file that the plan was made of is read again. */
async function holds({ files }: DriverPlan, moduleFiles: VolumeFiles): Promise<boolean> {
  const found = await moduleFiles.read(files.map(({ path }) => path));
  return files.every(({ path, digest }) => digestOrNull(found.get(path)) === digest);
}

function toKernelPlan({ names, tail }: DriverPlan, image: Buffer): KernelPlan {
  return names.length === 0 ? { kind: "complete" } : { kind: "longer", image: appendArchive(image, tail), names };
}

function modulesIn(content: InitrdContent, release: string): ReadonlySet<string> {
  const names = [...content.types.keys()].filter((name) => name.includes(`lib/modules/${release}/`) && /\.ko(\.\w+)?$/.test(name));
  return new Set(names.map(moduleNameOf));
}

interface Lack {
  readonly missing: Extract<MissingDrivers, { readonly kind: "missing" }>;
  readonly content: InitrdContent;
}

/** Modules and index as archive entries, under the real path that the image itself uses. */
async function planTail({ moduleFiles }: GuestRoot, release: string, { missing, content }: Lack): Promise<DriverPlan> {
  const isMerged =
    content.types.get("lib") === cpioTypes.link || [...content.types.keys()].some((name) => name.startsWith(`usr/lib/modules/${release}`));
  const prefix = `${isMerged ? "usr/" : ""}lib/modules/${release}`;
  const textNames = textIndexNames.filter((name) => content.types.has(`${prefix}/${name}`));
  const wanted = [...missing.paths, ...indexNames, ...textNames].map((path) => `/lib/modules/${release}/${path}`).filter(isPlainPath);
  const found = await moduleFiles.read(wanted);
  const lost = missing.paths.find((path) => !found.has(`/lib/modules/${release}/${path}`));
  if (lost !== undefined) throw new Fault("HydrationUnsupported", `could not read the module ${lost} of kernel ${release} in the clone`);
  const files = [...found].map(([path, bytes]) => {
    const name = `${prefix}${path.slice(`/lib/modules/${release}`.length)}`;
    return { name, mode: cpioTypes.file | 0o644, content: bytes };
  });
  return {
    names: missing.names,
    files: wanted.map((path) => ({ path, digest: digestOrNull(found.get(path)) })),
    tail: packArchive([...missingFolders(files, content), ...files], content.compression),
  };
}

function digestOrNull(bytes: Uint8Array | undefined): string | null {
  return bytes === undefined ? null : digestOf(bytes);
}

/** The kernel makes no parents by itself; a folder that is there, or is a link there, must not be listed again. */
function missingFolders(files: readonly CpioEntry[], content: InitrdContent): readonly CpioEntry[] {
  const folders = new Set<string>();
  for (const { name } of files) {
    const words = name.split("/").slice(0, -1);
    for (let depth = 1; depth <= words.length; depth++) folders.add(words.slice(0, depth).join("/"));
  }
  return [...folders]
    .filter((name) => !content.types.has(name))
    .sort()
    .map((name) => ({ name, mode: cpioTypes.folder | 0o755, content: new Uint8Array(0) }));
}

/** The new file takes the old one's name; the old one stays beside it where there is room. */
function placeInitrd(guest: GuestRoot, { initrd, hasOriginal }: Kernel, image: Buffer, freeBytes: number) {
  const path = `${guest.bootPrefix}/${initrd.name}`;
  const write = { kind: "write", path, content: image, mode: initrd.mode } as const;
  if (!hasOriginal && freeBytes > image.length + reserveBytes) {
    const changes: readonly FileChange[] = [{ kind: "rename", from: path, to: `${path}.watari-orig` }, write];
    return { changes, usedBytes: image.length, remark: "" };
  }
  if (freeBytes + initrd.sizeBytes <= image.length) {
    throw new Fault("HydrationUnsupported", `could not hydrate the clone: /boot has no room for ${initrd.name}`, {
      evidence: { freeBytes, neededBytes: image.length - initrd.sizeBytes },
      action: "free room in the machine's /boot, for example by removing old kernels, and make a new recovery point",
    });
  }
  const changes: readonly FileChange[] = [{ kind: "remove", path }, write];
  return { changes, usedBytes: image.length - initrd.sizeBytes, remark: hasOriginal ? "" : " (no room to keep the original)" };
}
