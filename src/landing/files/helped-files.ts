// Files of volumes that this host does not read by itself (XFS, btrfs, LVM, RAID): read in the helper machine, on an overlay that is thrown away.

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { Disk } from "../../disk/disk.ts";
import { damagedAnswer, parseEntries, parseNode, type HelperNode } from "../helper/helper-frames.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import type { HelperMachine } from "../helper/helper-machine.ts";
import { openHelperVolumes } from "../helper/helper-volumes.ts";
import type { Volume } from "../hydration/volumes.ts";
import { createOverlay } from "../qemu/overlay.ts";
import type { ExportDisk } from "../target.ts";
import type { GuestFiles, GuestNode, NamedNode, NodeKind } from "./guest-files.ts";
import type { GuestVolume } from "./guest-volumes.ts";

export interface HelpedOptions {
  readonly disks: readonly Disk[];
  /** As findVolumes found them. */
  readonly volumes: readonly GuestVolume[];
  readonly exportDisk: ExportDisk;
  readonly helperImage: () => Promise<HelperImage>;
  /** An own, new folder with a short path: sockets lie in it. Removed at the end. */
  readonly scratchFolder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

export interface HelpedFiles extends AsyncDisposable {
  /** Those of the partitions, and those that lie on several: a logical volume is named as "vg-lv", an array as "md-root". */
  readonly volumes: readonly GuestVolume[];
  /** Throws OperationNotSupported for what holds no filesystem that can be read. */
  open(volume: GuestVolume): Promise<GuestFiles>;
}

const pieceBytesMax = 1 << 20;

/** Starts the machine; it ends with the value that is answered, which must be closed. */
export async function openHelpedFiles(options: HelpedOptions): Promise<HelpedFiles> {
  const { disks, exportDisk, scratchFolder } = options;
  await using opening = new AsyncDisposableStack();
  await mkdir(scratchFolder, { recursive: true, mode: 0o700 });
  opening.defer(async () => await rm(scratchFolder, { recursive: true, force: true }));
  const graphs: { readonly nodes: readonly object[]; readonly topNode: string }[] = [];
  for (const [index, disk] of disks.entries()) {
    const socketPath = join(scratchFolder, `${index}.sock`);
    opening.use(await exportDisk(disk, { socketPath, exportName: "disk" }));
    const overlay = join(scratchFolder, `${index}.qcow2`);
    await createOverlay(overlay, { uri: `nbd+unix:///disk?socket=${socketPath}`, sizeBytes: disk.sizeBytes });
    const server = { type: "unix", path: socketPath };
    const nodes = [
      { driver: "nbd", server, export: "disk", "read-only": true, "node-name": `point${index}` },
      { driver: "file", filename: overlay, "node-name": `file${index}` },
      { driver: "qcow2", file: `file${index}`, backing: `point${index}`, "node-name": `disk${index}` },
    ];
    graphs.push({ nodes, topNode: `disk${index}` });
  }
  const image = await options.helperImage();
  const partitions = options.volumes.map(volumeOf);
  const helped = opening.use(await openHelperVolumes({ ...options, image, graphs, partitions, keys: [], access: "write" }));
  const mapped = helped.volumes.flatMap((volume) =>
    volume.place.kind === "mapped" ? [{ volume, shown: shownOf(volume, volume.place) }] : [],
  );
  const known = [...options.volumes.map((shown, index) => ({ shown, volume: partitions[index] })), ...mapped];
  const closing = opening.move();
  return {
    volumes: known.map(({ shown }) => shown),
    open: async (wanted) => {
      const volume = known.find(({ shown }) => shown.name === wanted.name)?.volume;
      const mount = volume === undefined ? undefined : await helped.mountOf(volume, volume.filesystem.kind === "btrfs" ? "subvolid=5" : "");
      if (mount === undefined)
        throw new Fault("OperationNotSupported", `could not read the files of volume ${wanted.name}: no filesystem could be opened there`, {
          evidence: { volume: wanted.name, filesystem: wanted.filesystem.kind },
          retry: "never",
        });
      return await openReader(helped.helper, mount);
    },
    [Symbol.asyncDispose]: async () => await closing.disposeAsync(),
  };
}

function volumeOf({ name, diskIndex, partition, offset, sizeBytes, filesystem }: GuestVolume): Volume {
  return { title: name, place: { kind: "partition", diskIndex, partition: { number: partition, offset, sizeBytes } }, filesystem };
}

function shownOf({ title, filesystem }: Volume, { sizeBytes }: { readonly sizeBytes: number }): GuestVolume {
  const name = title.replace(/^\/dev\/(?:mapper\/)?/, "").replaceAll(/[^A-Za-z0-9._+-]/g, "-");
  return { name, diskIndex: -1, partition: 0, offset: 0, sizeBytes, filesystem };
}

async function openReader(helper: HelperMachine, mount: string): Promise<GuestFiles> {
  const paths = new WeakMap<GuestNode, Buffer>();
  const filesystems = new Map<number, number>();
  const pathOf = (node: GuestNode): Buffer => paths.get(node) ?? Buffer.from("/");
  const made = (parsed: HelperNode, path: Buffer): GuestNode => {
    const index = filesystems.getOrInsert(parsed.filesystem, filesystems.size);
    const node = guestNode({ ...parsed, serial: serialOf(parsed.serial, index) });
    paths.set(node, path);
    return node;
  };
  const below = (folder: GuestNode, name: Buffer): Buffer => Buffer.concat([pathOf(folder), Buffer.from("/"), name]);
  const root = made(parseNode((await helper.ask(["stat", mount, "/"])).body), Buffer.from(""));
  return {
    root,
    list: async function* list(folder): AsyncGenerator<NamedNode, void, undefined> {
      for (let after = 0; ;) {
        const { state, words, body } = await helper.ask(["list", mount, pathOf(folder), String(after)]);
        if (state === "absent") return;
        for (const { name, node } of parseEntries(body)) yield { name, node: made(node, below(folder, name)) };
        const [next] = words;
        if (next === undefined || next === "") return;
        if (!(Number(next) > after)) throw damagedAnswer();
        after = Number(next);
      }
    },
    find: async (folder, name) => {
      const path = below(folder, name);
      const { state, body } = await helper.ask(["stat", mount, path]);
      return state === "absent" ? undefined : made(parseNode(body), path);
    },
    read: async function* read(file, offset = 0): AsyncGenerator<Uint8Array, void, undefined> {
      for (let at = offset; at < file.sizeBytes;) {
        const wanted = Math.min(pieceBytesMax, file.sizeBytes - at);
        const { state, body } = await helper.ask(["read", mount, pathOf(file), String(at), String(wanted)]);
        if (state === "absent" || body.length === 0 || body.length > wanted) throw damagedAnswer();
        yield body;
        at += body.length;
      }
    },
    readLink: async (link) => {
      const { state, body } = await helper.ask(["readlink", mount, pathOf(link)]);
      if (state === "absent") throw damagedAnswer();
      return body;
    },
  };
}

const serialMax = 2 ** 44;
const filesystemsMax = 2 ** 9;

/** One number for a file in one of several filesystems. */
function serialOf(serial: number, filesystemIndex: number): number {
  if (serial < serialMax && filesystemIndex < filesystemsMax) return filesystemIndex * serialMax + serial;
  throw new Fault(
    "OperationNotSupported",
    "could not read the guest's files: there are more filesystems below this one, or more files in it, than are told apart",
    {
      evidence: { filesystemsMax, serialMax },
      retry: "never",
    },
  );
}

const kinds: Readonly<Record<number, NodeKind>> = {
  0o100000: "file",
  0o040000: "folder",
  0o120000: "link",
  0o060000: "device",
  0o020000: "device",
  0o010000: "pipe",
  0o140000: "socket",
};

function guestNode({ serial, mode, uid, gid, sizeBytes, modifiedAt, linkCount, major, minor }: HelperNode): GuestNode {
  const type = mode & 0o170000;
  const kind = kinds[type];
  if (kind === undefined || !Number.isSafeInteger(sizeBytes) || !Number.isSafeInteger(modifiedAt)) throw damagedAnswer();
  const device =
    kind === "device" ? { device: { kind: type === 0o060000 ? ("block" as const) : ("character" as const), major, minor } } : {};
  return { ...{ serial, kind, mode: mode & 0o7777, uid, gid, sizeBytes, modifiedAt, linkCount }, ...device };
}
