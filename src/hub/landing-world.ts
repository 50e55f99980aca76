// Where this hub lands machines, and how it reads vaults: the QEMU target over NBD exports, and one open reader for each vault.

import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { readBootTime } from "../base/boot-time.ts";
import type { Random } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import { detachUnder } from "../landing/hydration/raw-view.ts";
import { openHelpedFiles } from "../landing/files/helped-files.ts";
import { ensureHelperImage } from "../landing/helper/helper-image.ts";
import { openQemuTarget } from "../landing/qemu/qemu-target.ts";
import { removeImages, writeImages } from "../landing/qemu/write-images.ts";
import type { ExportDisk } from "../landing/target.ts";
import { openNbdServer } from "../nbd/server.ts";
import { azureLandingShape, openAzureLanding } from "./azure-landing.ts";
import { parseInput } from "./api/arm-errors.ts";
import type { HostStart, ImageFolder, ReplicationWorld } from "./replication/world.ts";
import type { HubServices } from "./services.ts";
import { VaultReaders } from "./vault-readers.ts";
import { VaultWriters } from "./vault-writers.ts";

const portShape = z.number().int().min(1).max(65_535);
const forwardsShape = z.array(z.strictObject({ hostPort: portShape, guestPort: portShape })).max(64);

/** The configuration's landing section. Machines may always land in an isolated network. */
const landingShape = z
  .strictObject({
    /** By the name of the virtual network. */
    networks: z
      .record(
        z.string().max(80),
        z.discriminatedUnion("kind", [
          z.strictObject({ kind: z.literal("bridge"), bridge: z.string().max(15), leasesFile: z.string().max(4096).optional() }),
          z.strictObject({ kind: z.literal("user"), forwards: forwardsShape.default([]), isSealed: z.boolean().default(false) }),
        ]),
      )
      .default({}),
    /** Machines land in Azure, or at another hub, in place of this host. */
    azure: azureLandingShape.optional(),
    /** Recovery points may be exported into this folder; absent: not at all. */
    exportFolder: z.string().startsWith("/").max(4096).optional(),
    /** Programs of this host that rehearsals and migrations may run to ask a landed machine: paths by name. They run as the hub does. */
    probePrograms: z.record(z.string().regex(/^[a-z0-9-]{1,80}$/), z.string().startsWith("/").max(4096)).default({}),
    /** Pages besides the hub's own that may open consoles with a ticket: "https://novnc.example.com". */
    consoleOrigins: z
      .array(z.string().regex(/^https:\/\/[^/\s]+$/))
      .max(16)
      .default([]),
    /** Holds what is made once from Debian packages: the helper machine of hydration. */
    cacheFolder: z.string().startsWith("/").max(4096).default("/var/cache/watari"),
    /** Disks that upgrade operating systems (`watari upgrade-disk build`); the folder "upgrades" of the hub's state unless told. */
    upgradeFolder: z.string().startsWith("/").max(4096).optional(),
  })
  .prefault({});

/** Opens the world of the replication; closing it closes the readers, the exports and the target, and leaves landed machines running. */
export async function openLandingWorld(services: HubServices, landing: unknown): Promise<ReplicationWorld & AsyncDisposable> {
  const { networks, exportFolder, upgradeFolder, cacheFolder, probePrograms, consoleOrigins, azure } = parseInput(
    landingShape,
    landing,
    "the configuration's landing section",
  );
  const { clock, log } = services;
  await using opening = new AsyncDisposableStack();
  const exportDisk: ExportDisk = async (disk, { socketPath, exportName }) =>
    await openNbdServer({
      listen: { kind: "unix", path: socketPath },
      exports: [{ name: exportName, access: "read-only", disk }],
      clock,
      log,
    });
  const place = await openPlace(join(services.stateDir, "landing", "place"), services.random);
  const stateFolder = join(services.stateDir, "landing");
  const target =
    azure === undefined
      ? opening.use(await openQemuTarget({ stateFolder, cacheFolder, exportDisk, networks: namedNetworks(networks), clock, log }))
      : opening.use(await openAzureLanding(services, azure, { exportDisk, cacheFolder, owner: place })).target;
  const readers = opening.use(new VaultReaders(services, { indexFolder: join(services.stateDir, "vault-index") }));
  const writers = opening.use(new VaultWriters(services, { indexFolder: join(services.stateDir, "vault-writing"), area: place }));
  const closing = opening.move();
  const images =
    exportFolder === undefined ? undefined : await openImageFolder(services, { folder: exportFolder, cacheFolder }, exportDisk);
  return {
    openHelped: helpedOpener(services, { stateFolder, cacheFolder }, exportDisk),
    ...(images === undefined ? {} : { images }),
    target,
    probePrograms: new Map(Object.entries(probePrograms)),
    consoleOrigins,
    ...(azure === undefined ? { host: await readHostStart(join(stateFolder, "host-start")) } : {}),
    upgradeFolder: upgradeFolder ?? join(services.stateDir, "upgrades"),
    place,
    openReader: async (vaultResourceId) => await readers.open(vaultResourceId),
    openWriter: async (vaultResourceId) => await writers.open(vaultResourceId),
    [Symbol.asyncDispose]: async () => await closing.disposeAsync(),
  };
}

/** Each is a machine of half a gigabyte. */
const helpersMax = 2;

function helpedOpener(
  { clock, random }: HubServices,
  { stateFolder, cacheFolder }: { readonly stateFolder: string; readonly cacheFolder: string },
  exportDisk: ExportDisk,
): NonNullable<ReplicationWorld["openHelped"]> {
  let count = 0;
  return async (disks, volumes, signal) => {
    if (count >= helpersMax)
      throw new Fault("TooManyRequests", "could not open the guest's volumes: as many helper machines as may be are at work", {
        evidence: { helpersMax },
        retry: "later",
      });
    count += 1;
    await using opening = new AsyncDisposableStack();
    opening.defer(() => void (count -= 1));
    const scratchFolder = join(stateFolder, "f", random.uuid().slice(0, 8));
    const helperImage = async () => await ensureHelperImage(cacheFolder);
    const files = opening.use(await openHelpedFiles({ disks, volumes, exportDisk, clock, signal, scratchFolder, helperImage }));
    const closing = opening.move();
    return { ...files, [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
  };
}

/** The kernel gives each start an id. A hub that never ran here has nothing to start again. */
async function readHostStart(path: string): Promise<HostStart> {
  const { bootId } = await readBootTime();
  const known = await readFile(path, "utf8").catch(() => undefined); // None yet.
  return {
    isStartedAnew: known !== undefined && known.trim() !== bootId,
    remember: async () => await writeFileAtomic(path, `${bootId}\n`),
  };
}

/** The name of this host's landing folder, made once: machines that landed in it are commanded by hubs that have it. */
async function openPlace(path: string, random: Random): Promise<string> {
  const present = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (present !== undefined) return present.trim();
  const place = random.uuid();
  await writeFileAtomic(path, `${place}\n`);
  return place;
}

/** What a killed hub left of exports is taken away first. */
async function openImageFolder(
  { stateDir, clock, random }: HubServices,
  { folder, cacheFolder }: { readonly folder: string; readonly cacheFolder: string },
  exportDisk: ExportDisk,
): Promise<ImageFolder> {
  const scratch = join(stateDir, "landing", "x");
  await detachUnder(scratch);
  await rm(scratch, { recursive: true, force: true });
  return {
    folder,
    write: async (wish, signal) => {
      const scratchFolder = join(scratch, random.uuid().slice(0, 8));
      return await writeImages(wish, { exportDisk, scratchFolder, clock, random, cacheFolder }, signal);
    },
    remove: removeImages,
  };
}

type NamedNetworks = Parameters<typeof openQemuTarget>[0]["networks"];

/** Drops absent optional fields, which the target's types tell from undefined ones. */
function namedNetworks(networks: z.infer<typeof landingShape>["networks"]): NamedNetworks {
  return Object.fromEntries(
    Object.entries(networks).map(([name, network]) => {
      if (network.kind === "user") return [name, network];
      const { kind, bridge, leasesFile } = network;
      return [name, { kind, bridge, ...(leasesFile === undefined ? {} : { leasesFile }) }];
    }),
  );
}
