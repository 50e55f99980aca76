// Volumes of a clone as the helper machine puts them together: RAID, encryption, LVM, and the filesystems in them.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Fault } from "../../contract/errors.ts";
import { headBytes, parseHead, type Filesystem } from "../hydration/filesystem.ts";
import type { GuestVolumes, OpenedVolume, Volume } from "../hydration/volumes.ts";
import { HelperFiles } from "./helper-files.ts";
import { damagedAnswer, encodeKeys } from "./helper-frames.ts";
import type { HelperImage } from "./helper-image.ts";
import { startHelperMachine, type HelperMachine, type HelperOptions } from "./helper-machine.ts";

export interface HelperVolumesOptions extends Omit<HelperOptions, "memory" | "image"> {
  readonly image: HelperImage;
  /** As the partitions say. */
  readonly partitions: readonly Volume[];
  /** Tried at each encrypted volume. */
  readonly keys: readonly Uint8Array[];
  readonly access: "read" | "write";
}

const devicesMax = 512;
const mountTypes: Readonly<Partial<Record<Filesystem["kind"], string>>> = { ext: "ext4", xfs: "xfs", btrfs: "btrfs", vfat: "vfat" };

/** Starts the machine; closing it without `finish` leaves on the disks what was written so far. */
export async function openHelperVolumes(
  options: HelperVolumesOptions,
): Promise<GuestVolumes & { readonly helper: HelperMachine; mountOf(volume: Volume, words?: string): Promise<string | undefined> }> {
  const { keys, partitions } = options;
  const scratchFolder = join(options.scratchFolder, "helper");
  await mkdir(scratchFolder, { recursive: true, mode: 0o700 });
  const isEncrypted = partitions.some(
    ({ filesystem }) => filesystem.kind === "luks" || filesystem.kind === "lvm" || filesystem.kind === "raid",
  );
  const helper = await startHelperMachine({ ...options, scratchFolder, memory: isEncrypted && keys.length > 0 ? "large" : "small" });
  try {
    const locks = (await helper.ask(["assemble"], encodeKeys(keys))).body.toString("utf8");
    const devices = parseDevices((await helper.ask(["blocks"])).body.toString("utf8"));
    const found = await identifyAll(helper, devices, partitions);
    const mounts = new Map<string, Promise<OpenedMount | undefined>>();
    const mountOnce = async (volume: Volume, words = ""): Promise<OpenedMount | undefined> => {
      const device = found.find((each) => each.volume === volume)?.device;
      if (device === undefined) return undefined;
      const key = `${device.name} ${words}`;
      const made = mounts.get(key) ?? mount(helper, { device, words, id: String(mounts.size + 1), access: options.access, found });
      mounts.set(key, made);
      return await made;
    };
    return {
      helper,
      volumes: found.map(({ volume }) => volume),
      remarks: locks.split("\n").flatMap((line) => remarkOn(line, found)),
      open: async (volume, words) => (await mountOnce(volume, words))?.opened,
      mountOf: async (volume, words) => (await mountOnce(volume, words))?.id,
      finish: async () => void (await helper.ask(["finish"])),
      [Symbol.asyncDispose]: async () => await helper[Symbol.asyncDispose](),
    };
  } catch (error) {
    await helper[Symbol.asyncDispose]();
    throw error;
  }
}

interface OpenedMount {
  readonly id: string;
  readonly opened: OpenedVolume;
}

interface Device {
  readonly name: string;
  readonly sizeBytes: number;
  /** Of a whole disk or its partition. */
  readonly diskIndex: number | undefined;
  readonly partition: number;
  readonly mapperName: string;
  readonly mapperUuid: string;
  readonly arrayName: string;
}

interface FoundDevice {
  readonly device: Device;
  readonly volume: Volume;
}

function parseDevices(text: string): readonly Device[] {
  const lines = text.split("\n").filter((line) => line !== "");
  if (lines.length > devicesMax) throw damagedAnswer();
  return lines.map((line) => {
    const [name = "", size = "", serial = "", partition = "", mapperName = "", mapperUuid = "", arrayName = ""] = line.split("\t");
    if (!/^[a-z0-9-]{1,32}$/.test(name) || !/^\d{1,16}$/.test(size)) throw damagedAnswer();
    const index = /^d(\d{1,2})$/.exec(serial)?.[1];
    const diskIndex = name.startsWith("vd") && index !== undefined ? Number(index) : undefined;
    return { name, sizeBytes: Number(size), diskIndex, partition: Number(partition || 0), mapperName, mapperUuid, arrayName };
  });
}

async function identifyAll(
  helper: HelperMachine,
  devices: readonly Device[],
  partitions: readonly Volume[],
): Promise<readonly FoundDevice[]> {
  const found: FoundDevice[] = [];
  for (const device of devices) {
    if (device.diskIndex !== undefined) {
      const volume = partitions.find(
        ({ place }) => place.kind === "partition" && place.diskIndex === device.diskIndex && place.partition.number === device.partition,
      );
      if (volume !== undefined) found.push({ device, volume });
      continue;
    }
    const names = namesOf(device);
    const { body } = await helper.ask(["head", device.name, "0", String(Math.min(headBytes, device.sizeBytes))]);
    const head = Buffer.alloc(headBytes);
    body.copy(head);
    const filesystem = parseHead(head);
    found.push({
      device,
      volume: { title: names[0] ?? device.name, place: { kind: "mapped", names, sizeBytes: device.sizeBytes }, filesystem },
    });
  }
  return found;
}

/** As the guest calls it, whatever its hardware. */
function namesOf({ name, mapperName, mapperUuid, arrayName }: Device): readonly string[] {
  if (mapperUuid.startsWith("LVM-")) {
    const [group = "", logical = ""] = mapperName
      .replaceAll("--", "\0")
      .split("-")
      .map((part) => part.replaceAll("\0", "-"));
    return [`/dev/mapper/${mapperName}`, `/dev/${group}/${logical}`];
  }
  if (arrayName !== "") return [`/dev/md/${arrayName}`, ...(/^\d+$/.test(arrayName) ? [`/dev/md${arrayName}`] : [])];
  return name.startsWith("md") ? [`/dev/${name}`] : [];
}

interface MountWish {
  readonly device: Device;
  readonly words: string;
  readonly id: string;
  readonly access: "read" | "write";
  readonly found: readonly FoundDevice[];
}

async function mount(helper: HelperMachine, { device, words, id, access, found }: MountWish): Promise<OpenedMount | undefined> {
  const { filesystem } = found.find((each) => each.device === device)?.volume ?? {};
  const type = filesystem === undefined ? undefined : mountTypes[filesystem.kind];
  if (type === undefined || filesystem === undefined) return undefined;
  const others = found.flatMap(({ device: { name }, volume }) =>
    filesystem.kind === "btrfs" && volume.filesystem.kind === "btrfs" && volume.filesystem.uuid === filesystem.uuid
      ? [`device=/dev/${name}`]
      : [],
  );
  const options = [words, ...(filesystem.kind === "xfs" ? ["nouuid"] : []), ...(others.length > 1 ? others : [])];
  try {
    await helper.ask(["mount", id, device.name, type, access, options.filter((word) => word !== "").join(",")]);
  } catch (error) {
    // What the helper itself says of one volume does not condemn the others; a helper that is gone does.
    if (error instanceof Fault && error.code === "DataDamaged") return undefined;
    throw error;
  }
  const free = Number((await helper.ask(["free", id])).words[0]);
  if (!Number.isSafeInteger(free)) throw damagedAnswer();
  return { id, opened: { files: new HelperFiles(helper, id), freeBytes: free } };
}

function remarkOn(line: string, found: readonly FoundDevice[]): readonly string[] {
  const [name, state] = line.split("\t");
  if (state !== "locked") return [];
  const volume = found.find(({ device }) => device.name === name)?.volume;
  return [`! ${volume?.title ?? "a volume"} is encrypted, and no key that was given opens it`];
}
