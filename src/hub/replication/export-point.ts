// Job ExportPoint: the disks of a recovery point become image files in the folder that the hub's configuration allows.

import { rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { definitionFileOf, formatFor, hardwareOf, platforms, renderDefinition } from "../../landing/definitions/definition.ts";
import type { DefinedMachine } from "../../landing/definitions/defined-machine.ts";
import { imageFormats, type ImageFormat } from "../../landing/qemu/write-images.ts";
import type { LandingDisk } from "../../landing/target.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type StepContext } from "../jobs/job.ts";
import { readItem, type Item, type ProtectionState } from "./item.ts";
import { addressingOf, findUnlockKeys } from "./launch-settings.ts";
import { nicsOf, openPoint } from "./launch-steps.ts";
import { toLandedName, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { ImageFolder, Replication } from "./world.ts";

export const exportDetailsShape = z.strictObject({
  recoveryPointId: z.string().max(2048).optional(),
  /** The platform's own unless told. */
  format: z.enum(imageFormats).optional(),
  /** Its definition is written beside the disks. */
  platform: z.enum(platforms).optional(),
  isHydrated: z.boolean().default(true),
});

/** Throws InputInvalid when neither says how disks are written, or one does not fit the other. */
export function exportWishOf({ format, platform, isHydrated }: z.infer<typeof exportDetailsShape>): Omit<Parameters, "itemId" | "pointId"> {
  if (platform !== undefined) return { format: formatFor(platform, format), platform, isHydrated };
  if (format !== undefined) return { format, isHydrated };
  throw new Fault("InputInvalid", "could not export: neither format nor platform is given", {
    evidence: { formats: imageFormats, platforms },
  });
}

const parametersShape = z.object({
  itemId: z.string(),
  /** The latest unless given. */
  pointId: pointIdShape.optional(),
  format: z.enum(imageFormats),
  platform: z.enum(platforms).optional(),
  isHydrated: z.boolean(),
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly pointId?: string;
  readonly folder?: string;
  readonly diskCount?: number;
  readonly files?: readonly { readonly path: string; readonly sizeBytes: number }[];
  readonly hydrationChanges?: readonly string[];
  /** Of the definition for the platform. */
  readonly definition?: string;
}
type Context = StepContext<Parameters, State>;

const changesMax = 500;
const exportable: ReadonlySet<ProtectionState> = new Set([
  "Protected",
  "UnplannedFailoverCommitPending",
  "CommitFailoverFailedOnRecovery",
  "CommitFailoverCompleted",
]);

/** Throws StateConflict unless the machine's points stand still enough to be read. */
export function requireExportable(item: Item): void {
  if (exportable.has(item.protectionState)) return;
  throw new Fault("StateConflict", `could not export ${item.machineName}: it is ${item.protectionState}`, {
    evidence: { protectionState: item.protectionState, exportableWhen: [...exportable] },
  });
}

export function defineExportPoint(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: "ExportPoint",
    title: "export a recovery point",
    parameters: parametersShape,
    steps: [
      {
        name: "choosePoint",
        title: "choose the recovery point and the folder",
        run: async (context) => await choose(world, context),
        undo: "choosing only reads",
      },
      {
        name: "write",
        title: "write the disks as files",
        weight: 20,
        run: async (context) => await write(world, context),
        undo: async ({ state, parameters: { format, platform } }) => {
          const { folder, diskCount = 0 } = state;
          if (folder !== undefined && platform !== undefined) await rm(join(folder, definitionFileOf(platform)), { force: true });
          if (folder !== undefined) await requireFolder(world).remove(folder, { format, count: diskCount });
        },
      },
    ],
    settle: async (db, { parameters: { itemId } }) => await presentAfter(world, db, itemId),
  });
}

function requireFolder({ images }: Replication): ImageFolder {
  if (images !== undefined) return images;
  throw new Fault("OperationNotSupported", "could not export a recovery point: this hub has no folder for image files", {
    action: "name one in the hub's configuration: landing.exportFolder",
  });
}

async function choose(world: Replication, { parameters }: Context): Promise<State> {
  const { folder } = requireFolder(world);
  const { itemId } = parameters;
  const item = await readItem(world.services.database.db, itemId);
  const machineId = parseMachineId(item.machineId ?? "");
  const vault = vaultOf(parseResourceId(itemId));
  const [latest] = parameters.pointId === undefined ? await world.services.points.list(vault.key, machineId, { countMax: 1 }) : [];
  const pointId = parameters.pointId ?? latest?.pointId;
  if (pointId === undefined) throw new Fault("ReplicationNotReady", `could not export ${item.machineName}: it has no recovery point`);
  const point = await openPoint(world, vault.text, parsePointId(pointId));
  if (point.machineId !== machineId)
    throw new Fault("InputInvalid", `could not export ${item.machineName}: the recovery point ${pointId} is another machine's`, {
      evidence: { pointId },
    });
  // The point's instant names the folder: the same point is written to the same place again.
  const instant = toTimestamp(point.timeMs).replaceAll(/[-:]|\.\d+/g, "");
  return { pointId, folder: join(folder, `${toLandedName(item.machineName, "")}-${instant}`), diskCount: point.disks.length };
}

async function write(world: Replication, context: Context): Promise<State> {
  const { itemId, format, isHydrated, platform } = context.parameters;
  const pointId = parsePointId(stored(context.state, "pointId"));
  const vault = vaultOf(parseResourceId(itemId));
  const { facts, machineName, settings } = await readItem(world.services.database.db, itemId);
  const point = await openPoint(world, vault.text, pointId);
  const reader = await world.openReader(vault.text);
  await using opened = new AsyncDisposableStack();
  const holdId = `export-${context.jobId}`;
  if (!(await reader.holdPoint(pointId, holdId)))
    throw new Fault("NotFound", `could not export the recovery point ${pointId}: it is gone, or retention removes it`, {
      evidence: { pointId },
      action: "choose a newer recovery point",
    });
  opened.defer(async () => await reader.releasePoint(pointId, holdId));
  const disks: LandingDisk[] = [];
  for (const { diskId, isBoot } of point.disks) disks.push({ diskId, isBoot, content: opened.use(await reader.openDisk(pointId, diskId)) });
  let told: Promise<void> = Promise.resolve();
  const onProgress = (percent: number): void => {
    // One report at a time; a failed one shows in the await below.
    told = told.then(async () => await context.progress(percent, `${Math.floor(percent)} % of the bytes`));
  };
  await context.confirm();
  const folder = stored(context.state, "folder");
  const nics = (facts === undefined ? [] : nicsOf(facts)).map(({ mac, guestName }) => {
    const addressing = addressingOf(guestName, settings.nicAddressing);
    return { mac, guestName, ...(addressing === undefined ? {} : { addressing }) };
  });
  const { hasSerialConsole = false, unlockKeyCount: ownCount } = settings;
  const unlockKeys = isHydrated ? await findUnlockKeys(world.services.secrets, { itemId, jobId: context.jobId, ownCount }) : [];
  const guest = { disks, nics, hasSerialConsole, unlockKeys };
  const hardware = platform === undefined ? undefined : hardwareOf(platform);
  const wish = { folder, format, isHydrated, ...guest, onProgress, ...(hardware === undefined ? {} : { hardware }) };
  const { files, changes } = await requireFolder(world).write(wish, context.signal);
  await told;
  const written = { files: [...files], hydrationChanges: changes.slice(0, changesMax) };
  if (platform === undefined) return written;
  const definition = join(folder, definitionFileOf(platform));
  await writeFileAtomic(definition, renderDefinition(platform, definedMachine(machineName, { facts, format, disks, nics })));
  return { ...written, definition };
}

/** As the landing would make it: the same processors, memory, firmware, disks and cards. */
function definedMachine(
  machineName: string,
  given: {
    readonly facts: Item["facts"];
    readonly format: ImageFormat;
    readonly disks: readonly LandingDisk[];
    readonly nics: readonly { readonly mac: string; readonly guestName: string }[];
  },
): DefinedMachine {
  const { facts, format, disks, nics } = given;
  if (facts === undefined)
    throw new Fault("ReplicationNotReady", `could not write a definition of ${machineName}: its agent has not told of it yet`);
  const { cpuCount, memoryBytes, firmware } = facts;
  const defined = disks.map(({ content, isBoot }, index) => ({ fileName: `disk${index}.${format}`, sizeBytes: content.sizeBytes, isBoot }));
  return { name: toLandedName(machineName, ""), cpuCount, memoryBytes, firmware, format, disks: defined, nics };
}
