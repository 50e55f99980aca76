// Copy-on-write overlays in qcow2 files: made over a recovery point, and asked whether they still need it.

import { z } from "zod";
import { runCommand } from "../../base/run-command.ts";

/** In an overlay's own file: the ranges that were written since it was made, by hydration and the guest, not by the fill. */
export const writesBitmap = "watari-writes";
const bitmapGranularityBytes = 65_536;

/** Makes an empty overlay. The header names the export, so that every tool sees on what it depends. */
export async function createOverlay(
  path: string,
  over: { readonly uri: string; readonly sizeBytes: number; readonly tracksWrites?: boolean },
): Promise<void> {
  await runCommand("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", over.uri, path, String(over.sizeBytes)]);
  if (over.tracksWrites === true)
    await runCommand("qemu-img", ["bitmap", "--add", "-g", String(bitmapGranularityBytes), path, writesBitmap]);
}

const bitmapsShape = z.object({
  "format-specific": z.object({
    data: z.object({ bitmaps: z.array(z.object({ name: z.string(), flags: z.array(z.string()) })).default([]) }),
  }),
});

/** Of an overlay that nobody has open for writing: whether its bitmap tells of every write. One that was in use when the power went does not. */
export async function hasSoundBitmap(path: string): Promise<boolean> {
  const { stdout } = await runCommand("qemu-img", ["info", "-U", "--output=json", path]);
  const { bitmaps } = bitmapsShape.parse(JSON.parse(stdout))["format-specific"].data;
  return bitmaps.some(({ name, flags }) => name === writesBitmap && flags.includes("auto") && !flags.includes("in-use"));
}

const infoShape = z.object({ "virtual-size": z.number(), "backing-filename": z.string().optional() });

/** Whether reads of the overlay may still need the recovery point; the file's own header tells. */
export async function needsPoint(path: string): Promise<boolean> {
  const { stdout } = await runCommand("qemu-img", ["info", "-U", "--output=json", path]);
  return infoShape.parse(JSON.parse(stdout))["backing-filename"] !== undefined;
}
