// Mounted filesystems, from /proc/self/mountinfo (proc_pid_mountinfo(5)), and active swaps from /proc/swaps.

export interface Mount {
  /** "254:1"; major 0 for filesystems without a device of their own, btrfs among them. */
  readonly device: string;
  readonly path: string;
  readonly kind: string;
  readonly source: string;
  readonly isWritable: boolean;
}

export function parseMountinfo(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const [front, back] = line.split(" - ");
    const [, , device, , path] = (front ?? "").split(" ");
    const [kind, source, superOptions] = (back ?? "").split(" ");
    if (device === undefined || path === undefined || kind === undefined || source === undefined) return [];
    const isWritable = !(superOptions ?? "").split(",").includes("ro");
    return [{ device, path: unescape(path), kind, source: unescape(source), isWritable }];
  });
}

/** Space, tab, newline and backslash are written as octal escapes. */
function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** One mount a filesystem, in the order in which to freeze: what was mounted last first, the root last. */
export function freezeOrder(mounts: readonly Mount[]): Mount[] {
  const first = new Map<string, Mount>();
  for (const mount of mounts) if (!first.has(mount.device)) first.set(mount.device, mount);
  const depth = (mount: Mount): number => (mount.path === "/" ? 0 : mount.path.split("/").length);
  return [...first.values()].reverse().sort((a, b) => depth(b) - depth(a));
}

export interface Swap {
  readonly path: string;
  readonly kind: string;
}

export function parseSwaps(text: string): Swap[] {
  return text
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [path, kind] = line.trim().split(/\s+/);
      return path === undefined || kind === undefined ? [] : [{ path: unescape(path), kind }];
    });
}
