// Files out of a recovery point: folders are listed, files and folders are read by a signed address, and nothing is mounted or started.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parsePointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import type { GuestFiles, GuestNode, NamedNode } from "../../landing/files/guest-files.ts";
import type { HelpedFiles } from "../../landing/files/helped-files.ts";
import { findNode, findVolumes, openVolume, pathBytesMax, type GuestVolume } from "../../landing/files/guest-volumes.ts";
import { writeTar } from "../../landing/files/tar.ts";
import type { Disk } from "../../disk/disk.ts";
import { parseInput } from "../api/arm-errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { parseItem } from "./item.ts";
import { openPoint } from "./launch-steps.ts";
import { vaultOf } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

const kind = "files";
const pageMax = 500;
const pathsMax = 32;
/** An address is good for as long; a download that has begun goes on. */
const lifeSeconds = 3600;
/** Downloads at once: each reads the vault as quickly as it can. */
const downloadsMax = 8;

const volumeShape = z.string().regex(/^[A-Za-z0-9._+-]{1,128}$/, 'a volume, as "1.1": first disk, first partition; or "vg-lv"');
const pathShape = z.string().startsWith("/").max(pathBytesMax);
const listBody = z.strictObject({
  /** Without one the volumes are answered. */
  volume: volumeShape.optional(),
  path: pathShape.default("/"),
  /** Entries to pass over, as the answer before says. */
  after: z.number().int().nonnegative().default(0),
});
const archiveBody = z.strictObject({
  volume: volumeShape,
  paths: z.array(pathShape).min(1).max(pathsMax),
  /** file: the bytes of the one file that is named. */
  format: z.enum(["tar", "file"]).default("tar"),
});
const wishShape = archiveBody.extend({ vaultId: z.string().max(2048), pointId: pointIdShape });
type Wish = z.infer<typeof wishShape>;

export function pointFileActions(front: ReplicationFront): Readonly<Record<string, ActionDefinition>> {
  const { services } = front;
  return {
    listFiles: defineAction({
      body: listBody,
      run: async ({ id, signal }, body) => {
        await requirePoint(front, id);
        await using opened = await openDisks(front, vaultOf(id).text, id.name, signal);
        return { kind: "done", body: await answerList(opened, body, signal) };
      },
    }),
    fileArchive: defineAction({
      body: archiveBody,
      run: async ({ id, origin, signal }, body) => {
        await requirePoint(front, id);
        const wish: Wish = { ...body, vaultId: vaultOf(id).text, pointId: parsePointId(id.name.toLowerCase()) };
        {
          // What is not there is told now, not by a download that breaks.
          await using opened = await openDisks(front, wish.vaultId, wish.pointId, signal);
          await findWished(opened, wish, signal);
        }
        const name = `/${Buffer.from(JSON.stringify(wish)).toString("base64url")}`;
        const url = await services.signedReads.addressOf({ origin, kind, name, lifeSeconds });
        return { kind: "done", body: { url, expiresAt: toTimestamp(services.clock.nowMs() + lifeSeconds * 1000) } };
      },
    }),
  };
}

/** Without this the signed addresses of files are not served. */
export function offerPointFiles(front: ReplicationFront): void {
  let openCount = 0;
  front.services.signedReads.offerStream(kind, async (name, from, signal) => {
    const wish = parseInput(wishShape, JSON.parse(Buffer.from(name.slice(1), "base64url").toString("utf8")), "the address");
    if (openCount >= downloadsMax)
      throw new Fault("TooManyRequests", "could not read files: as many downloads as may be are under way", {
        evidence: { downloadsMax },
        retry: "later",
      });
    openCount += 1;
    await using opening = new AsyncDisposableStack();
    opening.defer(() => void (openCount -= 1));
    const opened = opening.use(await openDisks(front, wish.vaultId, wish.pointId, signal));
    const found = await findWished(opened, wish, signal);
    signal.throwIfAborted();
    const cleanup = opening.move();
    // The signal ends with the connection, however it ends; a stream that nobody began would never end by itself.
    signal.addEventListener("abort", () => void cleanup.disposeAsync(), { once: true });
    return streamOf(found, { wish, from, signal });
  });
}

async function* streamOf(
  { files, entries }: Found,
  { wish, from, signal }: { readonly wish: Wish; readonly from: number; readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array, void, undefined> {
  const [first] = entries;
  if (wish.format === "tar" || first === undefined) yield* writeTar({ files, entries }, from, signal);
  else
    for await (const piece of files.read(first.node, from)) {
      signal.throwIfAborted();
      yield piece;
    }
}

async function requirePoint({ services }: ReplicationFront, id: ResourceId): Promise<void> {
  const item = parseItem((await services.resources.get(parseResourceId(id.parentText))).properties);
  const pointId = pointIdShape.safeParse(id.name.toLowerCase());
  const point = pointId.success ? await services.points.find(vaultOf(id).key, pointId.data) : undefined;
  if (point !== undefined && point.machineId === item.machineId) return;
  throw new Fault("NotFound", `could not find the recovery point ${id.name}`, { evidence: { resourceId: id.text } });
}

interface OpenedDisks extends AsyncDisposable {
  readonly hasHelper: boolean;
  /** The helper machine, started when it is first asked for. */
  helped(signal: AbortSignal): Promise<HelpedFiles | undefined>;
  readonly disks: readonly Disk[];
  readonly diskIds: readonly string[];
}

/** The boot disk first, then the others as the point has them. */
async function openDisks(front: ReplicationFront, vaultId: string, pointText: string, signal: AbortSignal): Promise<OpenedDisks> {
  const pointId = parsePointId(pointText.toLowerCase());
  const point = await openPoint(front, vaultId, pointId);
  const reader = await front.openReader(vaultId);
  await using opening = new AsyncDisposableStack();
  const disks: Disk[] = [];
  const sorted = point.disks.toSorted((one, other) => Number(other.isBoot) - Number(one.isBoot));
  for (const { diskId } of sorted) {
    signal.throwIfAborted();
    disks.push(opening.use(await reader.openDisk(pointId, diskId)));
  }
  const closing = opening.move();
  let helped: Promise<HelpedFiles | undefined> | undefined;
  return {
    disks,
    hasHelper: front.openHelped !== undefined,
    diskIds: sorted.map(({ diskId }) => diskId),
    helped: async (asked) => {
      helped ??= findVolumes(disks, asked).then(async (volumes) => {
        const started = await front.openHelped?.(disks, volumes, signal);
        return started === undefined ? undefined : closing.use(started);
      });
      return await helped;
    },
    [Symbol.asyncDispose]: async () => await closing.disposeAsync(),
  };
}

async function answerList(
  opened: OpenedDisks,
  { volume, path, after }: z.infer<typeof listBody>,
  signal: AbortSignal,
): Promise<JsonObject> {
  const volumes = await volumesOf(opened, volume, signal);
  if (volume === undefined) return { volumes: volumes.map((each) => showVolume(opened, each)) };
  const files = await openFiles(opened, pickVolume(volumes, volume), signal);
  const folder = await findNode(files, path);
  if (folder.kind !== "folder") return { entries: [await showNode(files, { name: Buffer.from(path.replace(/^.*\//, "")), node: folder })] };
  const entries: JsonObject[] = [];
  let seen = 0;
  for await (const entry of files.list(folder)) {
    signal.throwIfAborted();
    seen += 1;
    if (seen <= after) continue;
    if (entries.length === pageMax) return { entries, nextAfter: seen - 1 };
    entries.push(await showNode(files, entry));
  }
  return { entries };
}

/** What lies on several partitions is found by the helper machine; it is started only where there may be such. */
async function volumesOf(opened: OpenedDisks, wanted: string | undefined, signal: AbortSignal): Promise<readonly GuestVolume[]> {
  const near = await findVolumes(opened.disks, signal);
  const isNear = wanted !== undefined && near.some(({ name }) => name === wanted);
  if (isNear || !near.some(({ filesystem: { kind } }) => kind === "lvm" || kind === "raid")) return near;
  return (await opened.helped(signal))?.volumes ?? near;
}

async function openFiles(opened: OpenedDisks, volume: GuestVolume, signal: AbortSignal): Promise<GuestFiles> {
  const isHere = volume.filesystem.kind === "ext" && volume.diskIndex >= 0;
  const helped = isHere ? undefined : await opened.helped(signal);
  return helped === undefined ? await openVolume(opened.disks, volume, signal) : await helped.open(volume);
}

const readableKinds: readonly string[] = ["ext", "xfs", "btrfs", "vfat"];

function pickVolume(volumes: readonly GuestVolume[], name: string): GuestVolume {
  const found = volumes.find((each) => each.name === name);
  if (found !== undefined) return found;
  throw new Fault("NotFound", `could not find the volume ${name} in the recovery point`, {
    evidence: { volumes: volumes.map((each) => `${each.name} ${each.filesystem.kind}`).slice(0, 60) },
  });
}

function showVolume({ diskIds, hasHelper }: OpenedDisks, { name, diskIndex, partition, sizeBytes, filesystem }: GuestVolume): JsonObject {
  return {
    ...{
      name,
      diskId: diskIds[diskIndex] ?? "",
      partition,
      sizeBytes,
      filesystem: filesystem.kind,
      isReadable: filesystem.kind === "ext" || (hasHelper && readableKinds.includes(filesystem.kind)),
    },
    ...("uuid" in filesystem && filesystem.uuid !== undefined ? { uuid: filesystem.uuid } : {}),
    ...("label" in filesystem && filesystem.label !== "" ? { label: filesystem.label } : {}),
  };
}

async function showNode(files: GuestFiles, { name, node }: NamedNode): Promise<JsonObject> {
  return {
    name: name.toString("utf8"),
    kind: node.kind,
    mode: node.mode.toString(8).padStart(4, "0"),
    ...{ uid: node.uid, gid: node.gid, sizeBytes: node.sizeBytes, modifiedAt: toTimestamp(node.modifiedAt * 1000) },
    ...(node.kind === "link" ? { linkTarget: (await files.readLink(node)).toString("utf8") } : {}),
  };
}

interface Found {
  readonly files: GuestFiles;
  readonly entries: readonly NamedNode[];
}

async function findWished(opened: OpenedDisks, { volume, paths, format }: Wish, signal: AbortSignal): Promise<Found> {
  const files = await openFiles(opened, pickVolume(await volumesOf(opened, volume, signal), volume), signal);
  const entries: { readonly name: Buffer; readonly node: GuestNode }[] = [];
  for (const path of paths)
    entries.push({
      name: Buffer.from(
        path
          .split("/")
          .filter((part) => part !== "" && part !== ".")
          .join("/"),
      ),
      node: await findNode(files, path),
    });
  if (format === "tar" || (entries.length === 1 && entries[0]?.node.kind === "file")) return { files, entries };
  throw new Fault("InputInvalid", "could not give one file: the paths are several, or the path is of a folder or link", {
    evidence: { paths: [...paths] },
    action: "ask for a tar archive",
  });
}
