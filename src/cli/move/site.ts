// One move's folder on this machine, and the choices that stay the same from call to call: addresses, ports, what was reached.

import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";
import { parseJson } from "../profile.ts";
import { folderNameOf, type MoveSource } from "./source.ts";

export const defaultStateFolder = "/var/lib/watari/move";

const portShape = z.number().int().min(1).max(65_535);

export const moveRecordShape = z.object({
  version: z.literal(1),
  source: z.object({ user: z.string(), host: z.string(), port: portShape }),
  /** Third octet of the hub's own loopback range 127.90.x.0/24. */
  hubOctet: z.number().int().min(0).max(255),
  hubPort: portShape,
  /** What the appliance dials, and the local address that faces it. */
  sourceAddress: z.string(),
  listenAddress: z.string(),
  advertiseAddress: z.string().optional(),
  controlPort: portShape,
  dataPort: portShape,
  network: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("user") }),
    z.object({ kind: z.literal("bridge"), bridge: z.string() }),
  ]),
  forwards: z.array(z.object({ hostPort: portShape, guestPort: portShape })),
  exportFolder: z.string().optional(),
  /** The hub has its project, storage account and vault; every private name with its address. */
  hubNames: z.array(z.object({ name: z.string(), addresses: z.array(z.string()) })).optional(),
  /** The source as the appliance knows it, once a login worked. */
  machine: z.object({ name: z.string(), infrastructureId: z.string(), credentialId: z.string() }).optional(),
  /** Files written, by recovery point. */
  exported: z
    .object({ pointId: z.string(), isFinal: z.boolean(), files: z.array(z.object({ path: z.string(), sizeBytes: z.number() })) })
    .optional(),
  completedAt: z.string().optional(),
});
export type MoveRecord = z.infer<typeof moveRecordShape>;

/** Paths of one move. */
export interface Site {
  readonly folder: string;
  readonly recordFile: string;
  readonly profile: string;
  readonly hubConfig: string;
  readonly hubState: string;
  readonly applianceState: string;
}

export function siteOf(stateFolder: string, source: MoveSource): Site {
  return siteAt(join(stateFolder, folderNameOf(source)));
}

function siteAt(folder: string): Site {
  return {
    folder,
    recordFile: join(folder, "move.json"),
    profile: join(folder, "profile.json"),
    hubConfig: join(folder, "hub.yaml"),
    hubState: join(folder, "hub"),
    applianceState: join(folder, "appliance"),
  };
}

/** The folder is passed through by the database's own account; what lies in it is closed. */
export async function makeSiteFolder(site: Site): Promise<void> {
  await mkdir(site.folder, { recursive: true, mode: 0o711 });
}

export async function readRecord(site: Site): Promise<MoveRecord | undefined> {
  const text = await readFile(site.recordFile, "utf8").catch(() => undefined); // Absent before the first call.
  return text === undefined ? undefined : parseJson(text, moveRecordShape, site.recordFile);
}

export async function writeRecord(site: Site, record: MoveRecord): Promise<void> {
  await writeFileAtomic(site.recordFile, `${JSON.stringify(record, undefined, 2)}\n`);
}

/** Every move of the state folder. */
export async function listSites(stateFolder: string): Promise<readonly { readonly site: Site; readonly record: MoveRecord }[]> {
  const names = await readdir(stateFolder).catch(() => []); // Absent before the first move.
  const found = await Promise.all(
    names.map(async (name) => {
      const site = siteAt(join(stateFolder, name));
      return { site, record: await readRecord(site) };
    }),
  );
  return found.flatMap(({ site, record }) => (record === undefined ? [] : [{ site, record }]));
}

/** The move that is meant: the one named, or the only one. Throws InputInvalid that lists the choices. */
export async function pickSite(
  stateFolder: string,
  source: MoveSource | undefined,
): Promise<{ readonly site: Site; readonly record: MoveRecord }> {
  const all = await listSites(stateFolder);
  const folder = source === undefined ? undefined : folderNameOf(source);
  const fitting = all.filter(({ site }) => folder === undefined || site.folder.endsWith(`/${folder}`));
  const [only] = fitting;
  if (only !== undefined && fitting.length === 1) return only;
  const choices = all.map(({ record }) => `${record.source.user}@${record.source.host}:${record.source.port}`);
  throw new Fault(fitting.length > 1 ? "InputInvalid" : "NotFound", "could not choose the move that is meant", {
    evidence: { stateFolder, choices },
    action: choices.length === 0 ? "nothing is left here; nothing has to be done" : "name the machine: root@HOST or root@HOST:PORT",
  });
}
