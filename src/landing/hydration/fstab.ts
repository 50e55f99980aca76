// Rewrites names like /dev/sda1, which change with the hardware, into UUID=…, which does not. Pure.

export interface Rewriting {
  readonly text: string;
  readonly changes: readonly string[];
}

export interface FstabEntry {
  readonly source: string;
  readonly mountPoint: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** UUID of the filesystem that a name under /dev means. `type` is "" where nothing tells it. */
export type FindUuid = (source: string, type: string) => string | undefined;

export function parseFstab(text: string): readonly FstabEntry[] {
  return text.split("\n").flatMap((line) => {
    const [source, mountPoint, type, options] = line.trim().split(/\s+/);
    const isEntry = source !== undefined && !source.startsWith("#") && mountPoint !== undefined && type !== undefined;
    return isEntry ? [{ source, mountPoint, type, options: options?.split(",") ?? [] }] : [];
  });
}

/** Names that the hardware gives. */
const hardwareName = String.raw`/dev/(?:(?:sd|vd|hd|xvd)[a-z]{1,3}\d{0,3}|disk/by-(?:path|id)/[^\s"',/]+)`;
const fstabLine = new RegExp(String.raw`^(\s*)(${hardwareName})(\s+)(\S+)(\s+)(\S+)(.*)$`);
const kernelWord = new RegExp(String.raw`\b(root|resume)=(${hardwareName})(?=[\s"']|$)`, "g");

/** Every line stays as it is but for the device's name. A line that cannot be rewritten is told and left. */
export function rewriteFstab(text: string, findUuid: FindUuid): Rewriting {
  const changes: string[] = [];
  const lines = text.split("\n").map((line) => {
    const match = fstabLine.exec(line);
    if (match === null) return line;
    const [, indent = "", device = "", gap = "", mountPoint = "", nextGap = "", type = "", rest = ""] = match;
    const uuid = findUuid(device, type);
    if (uuid === undefined) {
      changes.push(`/etc/fstab: ! ${device} stays: no filesystem with a UUID was found there`);
      return line;
    }
    changes.push(`/etc/fstab: ${device} → UUID=${uuid}`);
    return `${indent}UUID=${uuid}${gap}${mountPoint}${nextGap}${type}${rest}`;
  });
  return { text: lines.join("\n"), changes };
}

/** The same for `root=/dev/…` and `resume=/dev/…` among the words that `isTheirs` finds in a line. */
export function rewriteKernelWords(
  text: string,
  where: { readonly path: string; readonly isTheirs: (line: string) => boolean },
  findUuid: FindUuid,
): Rewriting {
  const changes: string[] = [];
  const lines = text.split("\n").map((line) => {
    if (!where.isTheirs(line)) return line;
    return line.replaceAll(kernelWord, (whole, key: string, device: string) => {
      const uuid = findUuid(device, "");
      if (uuid === undefined) return whole;
      changes.push(`${where.path}: ${key}=${device} → ${key}=UUID=${uuid}`);
      return `${key}=UUID=${uuid}`;
    });
  });
  return { text: lines.join("\n"), changes: [...new Set(changes)] };
}

/** a is 0, z is 25, aa is 26. */
export function diskIndexOf(letters: string): number {
  let index = 0;
  for (const letter of letters) index = index * 26 + (letter.charCodeAt(0) - 96);
  return index - 1;
}
