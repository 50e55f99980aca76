// Decides which kernel modules an initramfs lacks, with all that they need, from the guest's own module index. Pure.

export interface ModuleIndex {
  /** Path of each module under /lib/modules/<kernel>, by name. */
  readonly pathOf: ReadonlyMap<string, string>;
  /** Paths that must be loaded first, by path. */
  readonly needs: ReadonlyMap<string, readonly string[]>;
  readonly builtin: ReadonlySet<string>;
}

/** Parses modules.dep and modules.builtin. */
export function parseModuleIndex(texts: { readonly dependencies: string; readonly builtin: string }): ModuleIndex {
  const pathOf = new Map<string, string>();
  const needs = new Map<string, readonly string[]>();
  for (const line of texts.dependencies.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue;
    const path = line.slice(0, colon).trim();
    pathOf.set(moduleNameOf(path), path);
    needs.set(
      path,
      line
        .slice(colon + 1)
        .split(/\s+/)
        .filter((word) => word !== ""),
    );
  }
  const builtin = texts.builtin.split("\n").filter((line) => line !== "");
  return { pathOf, needs, builtin: new Set(builtin.map(moduleNameOf)) };
}

export interface DriverNeeds {
  /** Without these no disk appears. */
  readonly required: readonly string[];
  /** Taken along where the kernel has them. */
  readonly wished: readonly string[];
}

export type MissingDrivers =
  | { readonly kind: "missing"; /** In the order of their names. */ readonly paths: readonly string[]; readonly names: readonly string[] }
  | { readonly kind: "complete" }
  /** The kernel itself has no such driver. */
  | { readonly kind: "impossible"; readonly driver: string };

/** `present` holds the names of the modules in the initramfs. */
export function findMissingDrivers(index: ModuleIndex, present: ReadonlySet<string>, needs: DriverNeeds): MissingDrivers {
  const paths = new Set<string>();
  const names: string[] = [];
  for (const [position, driver] of [...needs.required, ...needs.wished].entries()) {
    const name = moduleNameOf(driver);
    if (index.builtin.has(name) || present.has(name)) continue;
    const path = index.pathOf.get(name);
    if (path === undefined) {
      if (position < needs.required.length) return { kind: "impossible", driver };
      continue;
    }
    names.push(name);
    for (const each of [path, ...(index.needs.get(path) ?? [])]) if (!present.has(moduleNameOf(each))) paths.add(each);
  }
  return paths.size === 0 ? { kind: "complete" } : { kind: "missing", paths: [...paths].sort(), names };
}

/** kernel/drivers/block/virtio-blk.ko.xz is virtio_blk. */
export function moduleNameOf(path: string): string {
  const file = path.slice(path.lastIndexOf("/") + 1);
  return file.replace(/\.ko(\.(gz|xz|zst))?$/, "").replaceAll("-", "_");
}
