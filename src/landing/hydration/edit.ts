// One planned edit of a clone: changes of files by volume, and a line for people for each.

import type { FileChange, GuestFile, VolumeFiles } from "./volume-files.ts";

export interface Edit {
  readonly rootChanges?: readonly FileChange[];
  readonly bootChanges?: readonly FileChange[];
  readonly efiChanges?: readonly FileChange[];
  readonly changes: readonly string[];
}

export const nothing: Edit = { changes: [] };

export function isNamed(files: readonly GuestFile[], name: string): boolean {
  return files.some((file) => file.name === name);
}

/** New bytes under the old name and rights; the old file stays beside it. */
export async function replaceFile(
  files: VolumeFiles,
  given: { readonly folder: string; readonly name: string; /** Each character a byte. */ readonly text: string },
): Promise<readonly FileChange[]> {
  const inFolder = (await files.list(given.folder)) ?? [];
  const path = `${given.folder}/${given.name}`;
  const keep: readonly FileChange[] = isNamed(inFolder, `${given.name}.watari-orig`)
    ? [{ kind: "remove", path }]
    : [{ kind: "rename", from: path, to: `${path}.watari-orig` }];
  const mode = inFolder.find((file) => file.name === given.name)?.mode ?? 0o644;
  return [...keep, { kind: "write", path, content: Buffer.from(given.text, "latin1"), mode }];
}
