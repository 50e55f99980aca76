// Copy-on-write overlays in qcow2 files: made over a recovery point, and asked whether they still need it.

import { z } from "zod";
import { runCommand } from "../../base/run-command.ts";

/** Makes an empty overlay. The header names the export, so that every tool sees on what it depends. */
export async function createOverlay(path: string, over: { readonly uri: string; readonly sizeBytes: number }): Promise<void> {
  await runCommand("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", over.uri, path, String(over.sizeBytes)]);
}

const infoShape = z.object({ "virtual-size": z.number(), "backing-filename": z.string().optional() });

/** Whether reads of the overlay may still need the recovery point; the file's own header tells. */
export async function needsPoint(path: string): Promise<boolean> {
  const { stdout } = await runCommand("qemu-img", ["info", "-U", "--output=json", path]);
  return infoShape.parse(JSON.parse(stdout))["backing-filename"] !== undefined;
}
