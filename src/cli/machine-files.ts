// `watari machine files|fetch`: folders and files out of a recovery point, without starting the machine.

import { createWriteStream } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { once } from "node:events";
import type { Command } from "commander";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { listProtected, pickByName, recoveryPointShape } from "./machine-shapes.ts";
import { formatBytes, formatTable, openProgress, printAnswer, say } from "./output.ts";
import { openSession } from "./session.ts";

interface Options {
  readonly vault: string;
  readonly json?: boolean;
  readonly profile?: string;
  readonly point?: string;
}

const volumeShape = z.looseObject({
  name: z.string(),
  diskId: z.string(),
  sizeBytes: z.number(),
  filesystem: z.string(),
  isReadable: z.boolean(),
  label: z.string().optional(),
});
const entryShape = z.looseObject({
  name: z.string(),
  kind: z.string(),
  mode: z.string(),
  uid: z.number(),
  gid: z.number(),
  sizeBytes: z.number(),
  modifiedAt: z.string(),
  linkTarget: z.string().optional(),
});
const listShape = z.object({
  volumes: z.array(volumeShape).optional(),
  entries: z.array(entryShape).optional(),
  nextAfter: z.number().optional(),
});
const addressShape = z.object({ url: z.string(), expiresAt: z.string() });
const attemptsMax = 5;
const attemptWaitMs = 2000;

/** `verb` adds a command with the options that every command of a machine has. */
export function registerMachineFiles(verb: (usage: string, description: string) => Command): void {
  verb("files <name> [path]", "volumes of a recovery point, or what a folder of one holds, without starting the machine")
    .option("--point <id>", "recovery point (default: the newest)")
    .option("--volume <name>", "volume of the path, as the list of volumes names it (default: the only one that can be read)")
    .action(async (name: string, path: string | undefined, options: Options & { readonly volume?: string }) => {
      await using session = await openSession(options);
      const point = await findPoint(session.arm, name, options);
      const volumes = await listVolumes(session.arm, point);
      if (path === undefined) return printAnswer(session.style, volumes, () => volumeTable(volumes));
      const entries = await listFolder(session.arm, point, { volume: options.volume ?? onlyVolume(volumes), path });
      printAnswer(session.style, entries, () =>
        formatTable(
          ["MODE", "UID", "GID", "SIZE", "MODIFIED", "KIND", "NAME"],
          entries.map(({ mode, uid, gid, sizeBytes, modifiedAt, kind, name: own, linkTarget }) => [
            ...[mode, String(uid), String(gid), String(sizeBytes), modifiedAt, kind],
            linkTarget === undefined ? own : `${own} -> ${linkTarget}`,
          ]),
        ),
      );
    });
  verb("fetch <name> <path...>", "files and folders out of a recovery point as a tar archive, or one file as it is")
    .requiredOption("--out <file>", 'file to write; "-" for stdout')
    .option("--point <id>", "recovery point (default: the newest)")
    .option("--volume <name>", "volume of the paths (default: the only one that can be read)")
    .option("--plain", "the one file that is named, as it is, in place of an archive")
    .action(async (name: string, paths: readonly string[], options: FetchOptions) => {
      await using session = await openSession(options);
      const point = await findPoint(session.arm, name, options);
      const volume = options.volume ?? onlyVolume(await listVolumes(session.arm, point));
      const body = { volume, paths, format: options.plain === true ? "file" : "tar" };
      const bytes = await download(session.arm, `${point}/fileArchive`, body, options.out);
      if (options.out === "-") return say(`${formatBytes(bytes)} were written`);
      printAnswer(session.style, { file: options.out, bytes }, () => `${formatBytes(bytes)} in ${options.out}`);
    });
}

interface FetchOptions extends Options {
  readonly out: string;
  readonly volume?: string;
  readonly plain?: boolean;
}

async function findPoint(arm: ArmClient, name: string, { vault, point }: Options): Promise<string> {
  const { id } = pickByName(await listProtected(arm, vault), name, "protected machine");
  if (point !== undefined) return `${id}/recoveryPoints/${point}`;
  const [newest] = z.array(recoveryPointShape).parse(await arm.list(`${id}/recoveryPoints`));
  if (newest === undefined) throw new Fault("ReplicationNotReady", `could not read files of ${name}: it has no recovery point`);
  return `${id}/recoveryPoints/${newest.name}`;
}

async function listVolumes(arm: ArmClient, point: string): Promise<readonly z.infer<typeof volumeShape>[]> {
  return listShape.parse(await arm.change("POST", `${point}/listFiles`, {})).volumes ?? [];
}

async function listFolder(
  arm: ArmClient,
  point: string,
  wish: { readonly volume: string; readonly path: string },
): Promise<readonly z.infer<typeof entryShape>[]> {
  const entries: z.infer<typeof entryShape>[] = [];
  for (let after: number | undefined = 0; after !== undefined;) {
    const page: z.infer<typeof listShape> = listShape.parse(await arm.change("POST", `${point}/listFiles`, { ...wish, after }));
    entries.push(...(page.entries ?? []));
    after = page.nextAfter;
  }
  return entries;
}

function onlyVolume(volumes: readonly z.infer<typeof volumeShape>[]): string {
  const readable = volumes.filter(({ isReadable }) => isReadable);
  const [only] = readable;
  if (only !== undefined && readable.length === 1) return only.name;
  throw new Fault("InputInvalid", `${readable.length === 0 ? "no volume" : "more than one volume"} of the recovery point can be read`, {
    evidence: { volumes: volumes.map(({ name, filesystem }) => `${name} ${filesystem}`) },
    action: readable.length === 0 ? "files are read from ext2, ext3 and ext4" : "name one with --volume",
  });
}

function volumeTable(volumes: readonly z.infer<typeof volumeShape>[]): string {
  return formatTable(
    ["VOLUME", "DISK", "SIZE", "FILESYSTEM", "LABEL", "READABLE"],
    volumes.map(({ name, diskId, sizeBytes, filesystem, label, isReadable }) => [
      ...[name, diskId, formatBytes(sizeBytes), filesystem, label ?? ""],
      isReadable ? "yes" : "no",
    ]),
  );
}

/** A line that breaks is taken up where it broke, with a new address. The file has its name when all of it is there. */
async function download(arm: ArmClient, path: string, body: object, out: string): Promise<number> {
  const partPath = `${out}.part`;
  const target = out === "-" ? process.stdout : createWriteStream(partPath, { mode: 0o600 });
  const progress = openProgress("reading");
  let doneBytes = 0;
  let failure: Error | undefined;
  target.on("error", (error: Error) => void (failure = error));
  const write = async (piece: Uint8Array): Promise<void> => {
    if (!target.write(piece)) await once(target, "drain");
    if (failure !== undefined)
      throw new Fault("InputInvalid", `could not write ${out}`, { evidence: { file: out, reason: failure.message }, cause: failure });
    doneBytes += piece.length;
    if (process.stderr.isTTY) progress.update(0, formatBytes(doneBytes));
  };
  try {
    for (let attempt = 1; ; attempt++) {
      const { url } = addressShape.parse(await arm.change("POST", path, body));
      const before = doneBytes;
      try {
        await arm.download(doneBytes === 0 ? url : `${url}&from=${doneBytes}`, write);
        break;
      } catch (error) {
        const isLine = error instanceof Fault && error.code === "HubUnreachable";
        if (doneBytes > before) attempt = 1;
        if (!isLine || attempt >= attemptsMax) throw error;
        say(`the line broke after ${formatBytes(doneBytes)}; going on`);
        await systemClock.sleep(attemptWaitMs);
      }
    }
    if (out !== "-") {
      await new Promise<void>((resolve, reject) => void target.end((error?: Error | null) => (error ? reject(error) : resolve())));
      if ((await stat(partPath)).size !== doneBytes)
        throw new Fault("Internal", "the file that was written has another size than what was read");
      await rename(partPath, out);
    }
    return doneBytes;
  } catch (error) {
    if (out !== "-") await rm(partPath, { force: true });
    throw error;
  } finally {
    progress.finish();
  }
}
