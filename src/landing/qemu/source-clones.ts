// Clones of a landed machine's disks, at rest, from which hydration's edits are taken: what goes back to the source.

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { runCommand } from "../../base/run-command.ts";
import { upgradeDiskId } from "../../contract/os-upgrade.ts";
import type { HelperImage } from "../helper/helper-image.ts";
import { openRawView } from "../hydration/raw-view.ts";
import { undoHydration } from "../hydration/undo-hydration.ts";
import type { MachinePaths } from "./machine-record.ts";
import { virtioHardware, type Machine } from "./machine.ts";

export interface SourceClones {
  /** One qcow2 file a disk, over the landed one. */
  readonly paths: readonly string[];
  readonly undone: readonly string[];
}

/** The landed disks stay as they are; the clones go with the folder of the view. */
export async function makeSourceClones(
  { record, paths }: Machine,
  options: { readonly clock: Clock; readonly helperImage?: () => Promise<HelperImage>; readonly signal?: AbortSignal },
): Promise<SourceClones> {
  const clones: string[] = [];
  for (const index of record.disks.keys()) {
    const clone = join(paths.viewFolder, `clone-${index}.qcow2`);
    await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", paths.overlay(index), clone]);
    clones.push(clone);
  }
  const scratchFolder = join(paths.viewFolder, "undo");
  await mkdir(scratchFolder, { mode: 0o700 });
  const { clock, helperImage, signal } = options;
  const common = { clock, ...(signal === undefined ? {} : { signal }) };
  let undone: readonly string[];
  {
    const graphs = clones.map((clone, index) => restingGraph(paths, { index, topNode: `clone${index}`, clone, access: "write" }));
    await using view = await openRawView({ graphs, folder: scratchFolder, ...common });
    undone = await undoHydration({
      imagePaths: view.paths.filter((_, index) => record.disks[index]?.diskId !== upgradeDiskId),
      bootDiskIndex: record.disks.findIndex(({ isBoot }) => isBoot),
      nics: record.nics,
      hardware: virtioHardware,
      scratchFolder,
      told: record.hydration.changes,
      ...(helperImage === undefined ? {} : { helperImage }),
      ...common,
    });
  }
  await rm(scratchFolder, { recursive: true });
  return { paths: clones, undone };
}

/** The landed disk alone, or a clone over it; the landed one is never opened for writing. */
export function restingGraph(
  paths: MachinePaths,
  given: { readonly index: number; readonly topNode: string; readonly clone: string | undefined; readonly access?: "read" | "write" },
): { readonly nodes: readonly object[]; readonly topNode: string } {
  const { index, topNode, clone, access = "read" } = given;
  const own = clone === undefined ? topNode : `landed${index}`;
  const landed = [
    { driver: "file", filename: paths.overlay(index), "read-only": true, "node-name": `file${index}` },
    { driver: "qcow2", file: `file${index}`, "read-only": true, backing: null, "node-name": own },
  ];
  if (clone === undefined) return { nodes: landed, topNode };
  const isRead = access === "read";
  const file = { driver: "file", filename: clone, "read-only": isRead, discard: "unmap", "node-name": `aside${index}` };
  const top = { driver: "qcow2", file: `aside${index}`, "read-only": isRead, discard: "unmap", backing: own, "node-name": topNode };
  return { nodes: [...landed, file, top], topNode };
}
