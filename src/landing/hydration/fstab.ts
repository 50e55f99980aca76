// Rewrites names like /dev/sda1, which change with the hardware, into UUID=…, which does not. Pure.

export interface Rewriting {
  readonly text: string;
  readonly changes: readonly string[];
}

export interface FstabEntry {
  readonly source: string;
  readonly mountPoint: string;
  readonly type: string;
}

/** UUID of the partition `number` (0: whole disk) of the disk at `diskIndex` in the source's order. */
export type FindUuid = (diskIndex: number, number: number) => string | undefined;

export function parseFstab(text: string): readonly FstabEntry[] {
  return text.split("\n").flatMap((line) => {
    const [source, mountPoint, type] = line.trim().split(/\s+/);
    const isEntry = source !== undefined && !source.startsWith("#") && mountPoint !== undefined && type !== undefined;
    return isEntry ? [{ source, mountPoint, type }] : [];
  });
}

/** Every line stays as it is but for the device's name. A line that cannot be rewritten is told and left. */
export function rewriteFstab(text: string, findUuid: FindUuid): Rewriting {
  const changes: string[] = [];
  const lines = text.split("\n").map((line) => {
    const match = /^(\s*)(\/dev\/(?:sd|vd|hd|xvd)[a-z]+\d*)(\s.*)$/.exec(line);
    if (match === null) return line;
    const [, indent = "", device = "", rest = ""] = match;
    const uuid = uuidOfDevice(device, findUuid);
    if (uuid === undefined) {
      changes.push(`/etc/fstab: ! ${device} stays: no filesystem with a UUID was found there`);
      return line;
    }
    changes.push(`/etc/fstab: ${device} → UUID=${uuid}`);
    return `${indent}UUID=${uuid}${rest}`;
  });
  return { text: lines.join("\n"), changes };
}

/** The same for `root=/dev/…` and `resume=/dev/…` on the kernel lines of GRUB's menu. */
export function rewriteKernelLines(text: string, path: string, findUuid: FindUuid): Rewriting {
  const changes: string[] = [];
  const lines = text.split("\n").map((line) => {
    if (!/^\s*linux(16|efi)?\s/.test(line)) return line;
    return line.replaceAll(/\b(root|resume)=(\/dev\/(?:sd|vd|hd|xvd)[a-z]+\d*)(?=\s|$)/g, (whole, key: string, device: string) => {
      const uuid = uuidOfDevice(device, findUuid);
      if (uuid === undefined) return whole;
      changes.push(`${path}: ${key}=${device} → ${key}=UUID=${uuid}`);
      return `${key}=UUID=${uuid}`;
    });
  });
  return { text: lines.join("\n"), changes: [...new Set(changes)] };
}

function uuidOfDevice(device: string, findUuid: FindUuid): string | undefined {
  const match = /^\/dev\/(?:sd|vd|hd|xvd)([a-z]+)(\d*)$/.exec(device);
  if (match === null) return undefined;
  const [, letters = "", number = ""] = match;
  return findUuid(diskIndexOf(letters), Number(number || 0));
}

/** a is 0, z is 25, aa is 26. */
function diskIndexOf(letters: string): number {
  let index = 0;
  for (const letter of letters) index = index * 26 + (letter.charCodeAt(0) - 96);
  return index - 1;
}
