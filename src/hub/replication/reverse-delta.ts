// Job ReverseDelta: what the landed machine differs in from its source's final point becomes one signed file in the hub's export folder.

import { mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parsePointId } from "../../contract/ids.ts";
import { pointIdShape } from "../../contract/shapes.ts";
import { writeDelta } from "../reverse/write-delta.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineJob, type JobKind, type StepContext } from "../jobs/job.ts";
import { faultsOf, patchItem, type Item } from "./item.ts";
import { openPoint } from "./launch-steps.ts";
import { toLandedName, vaultOf } from "./names.ts";
import { presentAfter } from "./present-item.ts";
import type { Replication } from "./world.ts";

export const reverseDeltaKind = "ReverseDelta";

const parametersShape = z.object({
  itemId: z.string(),
  machineName: z.string(),
  basisPointId: pointIdShape,
  pointId: pointIdShape,
  /** Of the point; names the file. */
  pointTime: z.string(),
});
type Parameters = z.infer<typeof parametersShape>;

interface State {
  readonly files?: readonly { readonly path: string; readonly sizeBytes: number }[];
  readonly differingBlocks?: number;
}

/** Throws StateConflict unless the final point of the landed machine is made and the source has not come back. */
export function requireFinal({ reverse, busyWith, machineName, protectionState }: Item): Omit<Parameters, "itemId"> {
  const isFree = protectionState === "CommitFailoverCompleted" && busyWith === undefined && reverse?.returnedAt === undefined;
  const final = isFree ? reverse?.points.find(({ pointId }) => pointId === reverse.finalPointId) : undefined;
  if (final !== undefined && reverse !== undefined)
    return { machineName, basisPointId: reverse.basisPointId, pointId: reverse.returnPointId ?? final.pointId, pointTime: final.time };
  throw new Fault("StateConflict", `could not go back with ${machineName}: no final point of the landed machine waits for it`, {
    evidence: { protectionState, ...(busyWith === undefined ? {} : { busyWith }) },
    action: `watari machine reverse-point ${machineName} --final`,
  });
}

export function defineReverseDelta(world: Replication): JobKind {
  return defineJob<Parameters, State>({
    kind: reverseDeltaKind,
    title: "write the reverse delta",
    parameters: parametersShape,
    steps: [
      {
        name: "write",
        title: "write what differs from the source's disks, signed",
        run: async (context) => await write(world, context),
        undo: async ({ parameters }) => await rm(pathOf(world, parameters), { force: true }),
      },
    ],
    settle: async (db, { parameters: { itemId }, outcome }) => {
      await patchItem(db, itemId, { busyWith: undefined, faults: faultsOf(outcome) });
      return await presentAfter(world, db, itemId);
    },
  });
}

function pathOf({ images }: Replication, { machineName, pointTime }: Parameters): string {
  // The point's instant names the file: the same delta is written to the same place again.
  const instant = pointTime.replaceAll(/[-:]|\.\d+/g, "");
  if (images !== undefined) return join(images.folder, `${toLandedName(machineName, "")}-${instant}.delta`);
  throw new Fault("OperationNotSupported", "could not write a reverse delta: this hub has no folder for files", {
    action: "name one in the hub's configuration: landing.exportFolder",
  });
}

async function write(world: Replication, context: StepContext<Parameters, State>): Promise<State> {
  const { itemId, machineName, basisPointId, pointId } = context.parameters;
  const path = pathOf(world, context.parameters);
  const vaultId = vaultOf(parseResourceId(itemId)).text;
  const basis = await openPoint(world, vaultId, parsePointId(basisPointId));
  const point = await openPoint(world, vaultId, parsePointId(pointId));
  const reader = await world.openReader(vaultId);
  const { signer } = world.services;
  let told: Promise<void> = Promise.resolve();
  const onProgress = (percent: number): void => {
    // One report at a time; a failed one shows in the await below.
    told = told.then(async () => await context.progress(Math.min(99, percent), "writes the blocks that differ"));
  };
  const sign = async (type: string, document: object): Promise<string> => await signer.sign(type, document);
  await context.confirm();
  await mkdir(dirname(path), { recursive: true });
  const wish = { basis, point, vaultId, itemId, machineName, path };
  const { manifest, sizeBytes } = await writeDelta(wish, { reader, sign, onProgress, signal: context.signal });
  await told;
  return { files: [{ path, sizeBytes }], differingBlocks: manifest.entryCount };
}
