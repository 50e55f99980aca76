// Takes hydration's edits off a clone that goes back to the old hardware: only where a file still is what hydration made of it.

import { nothing, type Edit } from "./edit.ts";
import { openGuest, surroundingsOf, type HydrateOptions } from "./hydrate.ts";
import { planCardNames, planRelabel, devicesFolder, devicesName, maskedLine, toolsUnits, unitsFolder } from "./system-edits.ts";
import type { GuestRoot } from "./survey.ts";
import { textRules, type RuleSurroundings, type TextRule } from "./text-rules.ts";
import { isPlainPath, type FileChange, type VolumeFiles } from "./volume-files.ts";

export interface UndoOptions extends HydrateOptions {
  /** What hydration told of its edits. */
  readonly told: readonly string[];
}

const kept = ".watari-orig";
const initrdName = /^(initrd\.img-|initramfs-|initrd-)/;

/** Answers a line for each change; one with `!` is what was left as the guest has it. Repeating it changes nothing more. */
export async function undoHydration(options: UndoOptions): Promise<readonly string[]> {
  await using opened = await openGuest(options);
  const { guest, volumes } = opened;
  const around = surroundingsOf(options, volumes.volumes);
  const planned: readonly Edit[] = [
    await undoInitrds(guest),
    ...(await undoTexts(guest, around)),
    await undoCardNames(guest.rootFiles, options),
    await undoMasks(guest.rootFiles, options.told),
    await undoDevices(guest.rootFiles),
    tellAgent(options.told),
  ];
  const isRootChanged = planned.some((edit) => (edit.rootChanges ?? []).length > 0);
  const edits = [...planned, await planRelabel(guest.rootFiles, isRootChanged)];
  options.signal?.throwIfAborted();
  const bootChanges = edits.flatMap((edit) => edit.bootChanges ?? []);
  const rootChanges = edits.flatMap((edit) => edit.rootChanges ?? []);
  if (bootChanges.length > 0) await guest.bootFiles.change(bootChanges);
  if (rootChanges.length > 0) await guest.rootFiles.change(rootChanges);
  await volumes.finish();
  return edits.flatMap((edit) => edit.changes);
}

/** The original under its name again. */
function putBack(path: string): readonly FileChange[] {
  return [
    { kind: "remove", path },
    { kind: "rename", from: `${path}${kept}`, to: path },
  ];
}

/** Names in a folder that have an original beside them. */
async function changedIn(files: VolumeFiles, folder: string): Promise<readonly string[]> {
  const present = (await files.list(folder || "/")) ?? [];
  return present.flatMap(({ name, kind }) => {
    const plain = name.slice(0, -kept.length);
    const hasBoth = kind === "file" && name.endsWith(kept) && present.some((file) => file.kind === "file" && file.name === plain);
    return hasBoth && isPlainPath(`/${plain}`) ? [plain] : [];
  });
}

/** Hydration only appends: what begins with the original and goes on is its work. */
async function undoInitrds({ bootFiles, bootPrefix }: GuestRoot): Promise<Edit> {
  const bootChanges: FileChange[] = [];
  const changes: string[] = [];
  for (const name of (await changedIn(bootFiles, bootPrefix)).filter((each) => initrdName.test(each))) {
    const path = `${bootPrefix}/${name}`;
    const found = await bootFiles.read([path, `${path}${kept}`]);
    const [present, original] = [found.get(path), found.get(`${path}${kept}`)];
    if (present === undefined || original === undefined) continue;
    if (present.length > original.length && present.subarray(0, original.length).equals(original)) {
      bootChanges.push(...putBack(path));
      changes.push(`/boot/${name}: the original again`);
    } else changes.push(`! /boot/${name}: made anew on the target; see that it has the drivers of the source's hardware`);
  }
  return { bootChanges, changes };
}

async function undoTexts(guest: GuestRoot, around: RuleSurroundings): Promise<readonly Edit[]> {
  const edits: Edit[] = [];
  for (const [place, rules] of Map.groupBy(textRules, ({ volume, folder }) => `${volume} ${folder}`)) {
    const isBoot = place.startsWith("boot ");
    const files = isBoot ? guest.bootFiles : guest.rootFiles;
    const inGuest = place.slice("boot ".length);
    const where = { folder: isBoot ? `${guest.bootPrefix}${inGuest}` : inGuest, shownFolder: isBoot ? `/boot${inGuest}` : inGuest };
    const { made, changes } = await undoFolder(files, { rules, ...where }, around);
    edits.push(isBoot ? { bootChanges: made, changes } : { rootChanges: made, changes });
  }
  return edits;
}

async function undoFolder(
  files: VolumeFiles,
  { rules, folder, shownFolder }: { readonly rules: readonly TextRule[]; readonly folder: string; readonly shownFolder: string },
  around: RuleSurroundings,
): Promise<{ readonly made: readonly FileChange[]; readonly changes: readonly string[] }> {
  const made: FileChange[] = [];
  const changes: string[] = [];
  for (const name of await changedIn(files, folder)) {
    const path = `${folder}/${name}`;
    const shown = `${shownFolder}/${name}`;
    const found = await files.read([path, `${path}${kept}`]);
    const [present, original] = [found.get(path)?.toString("latin1"), found.get(`${path}${kept}`)?.toString("latin1")];
    if (present === undefined || original === undefined) continue;
    const ofFile = rules.filter((rule) => (typeof rule.name === "string" ? rule.name === name : name.endsWith(rule.name.ending)));
    const isHydrations = ofFile.some((rule) =>
      [true, false].some((hasSerialConsole) => rule.rule(original, shown, { ...around, hasSerialConsole }).text === present),
    );
    if (isHydrations) {
      made.push(...putBack(path));
      changes.push(`${shown}: the original again`);
    } else changes.push(`! ${shown}: changed on the target; it stays, the source's is beside it as ${name}${kept}`);
  }
  return { made, changes };
}

/** Of the files that hydration writes for cards, those that nobody has changed. */
async function undoCardNames(rootFiles: VolumeFiles, { nics, hardware }: HydrateOptions): Promise<Edit> {
  const folder = "/etc/systemd/network";
  const present = ((await rootFiles.list(folder)) ?? []).map(({ name }) => name);
  // What it would still write is not as it wrote it.
  const missing = (await planCardNames(rootFiles, { nics, hardware })).rootChanges ?? [];
  const paths = nics
    .map(({ guestName }) => `10-watari-${guestName}.link`)
    .filter((name) => present.includes(name) && !missing.some((change) => "path" in change && change.path === `${folder}/${name}`))
    .map((name) => `${folder}/${name}`);
  return { rootChanges: paths.map((path) => ({ kind: "remove", path })), changes: paths.map((path) => `${path}: removed`) };
}

async function undoMasks(rootFiles: VolumeFiles, told: readonly string[]): Promise<Edit> {
  const own = (await rootFiles.list(unitsFolder)) ?? [];
  const paths = toolsUnits
    .filter((unit) => told.includes(maskedLine(unit)) && own.some(({ name, kind }) => name === unit && kind === "link"))
    .map((unit) => `${unitsFolder}/${unit}`);
  return { rootChanges: paths.map((path) => ({ kind: "remove", path })), changes: paths.map((path) => `${path}: unmasked`) };
}

async function undoDevices(rootFiles: VolumeFiles): Promise<Edit> {
  const names = ((await rootFiles.list(devicesFolder)) ?? []).map(({ name }) => name);
  const path = `${devicesFolder}/${devicesName}`;
  if (!names.includes(`${devicesName}${kept}`)) return nothing;
  if (names.includes(devicesName)) return { changes: [`! ${path}: made anew on the target; it names the target's disks`] };
  return { rootChanges: [{ kind: "rename", from: `${path}${kept}`, to: path }], changes: [`${path}: the original again`] };
}

function tellAgent(told: readonly string[]): Edit {
  const isGone = told.some((line) => line.startsWith("/opt/watari-agent"));
  return isGone ? { changes: ["! the agent is not put back; protect the machine anew"] } : nothing;
}
