// Job ExportPoint: the disks of a recovery point become image files in the folder that the hub's configuration allows.

import { join } from "node:path";
import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { imageFormats } from "../../landing/qemu/write-images.ts";
import type { LandingDisk } from "../../landing/target.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, stored, type JobKind, type StepContext } from "../jobs/job.ts";
import { readItem, type Item, type ProtectionState } from "./item.ts";
import { nicsOf, openPoint } from "./launch-steps.ts";
import { toLandedName, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { ImageFolder, Replication } from "./world.ts";

export const exportDetailsShape = z.strictObject({
  recoveryPointId: z.string().max(2048).optional(),
  format: z.enum(imageFormats),
  isHydrated: z.boolean().default(true),
});

const parametersShape = z.object({
  itemId: z.string(),
  /** The latest unless given. */
  pointId: pointIdShape.optional(),
  format: z.enum(imageFormats),
  isHydrated: z.boolean(),
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly pointId?: string;
  readonly folder?: string;
  readonly diskCount?: number;
  readonly files?: readonly { readonly path: string; readonly sizeBytes: number }[];
  readonly hydrationChanges?: readonly string[];
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
        undo: async ({ state, parameters: { format } }) => {
          const { folder, diskCount = 0 } = state;
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
  const { itemId, format, isHydrated } = context.parameters;
  const pointId = parsePointId(stored(context.state, "pointId"));
  const vault = vaultOf(parseResourceId(itemId));
  const { facts } = await readItem(world.services.database.db, itemId);
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
  const nics = (facts === undefined ? [] : nicsOf(facts)).map(({ mac, guestName }) => ({ mac, guestName }));
  const { files, changes } = await requireFolder(world).write({ folder, format, isHydrated, disks, nics, onProgress }, context.signal);
  await told;
  return { files: [...files], hydrationChanges: changes.slice(0, changesMax) };
}
