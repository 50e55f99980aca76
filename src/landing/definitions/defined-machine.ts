// What a definition needs to know of an exported machine, and the units that platforms count in.

import type { ImageFormat } from "../qemu/write-images.ts";

export interface DefinedDisk {
  /** Beside the definition. */
  readonly fileName: string;
  readonly sizeBytes: number;
  readonly isBoot: boolean;
}

/** What a definition needs to know; names are such that no shell and no markup has to be told to leave them alone. */
export interface DefinedMachine {
  /** [a-z0-9-]{1,60} */
  readonly name: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly firmware: "bios" | "efi";
  readonly format: ImageFormat;
  readonly disks: readonly DefinedDisk[];
  readonly nics: readonly { readonly mac: string; readonly guestName: string }[];
}

/** A landed machine by the things on this host that it is made of. */
export interface LandedDefinition {
  /** [a-z0-9-]{1,60} */
  readonly name: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  /** Of an EFI machine: the host's firmware, and the machine's own variables. */
  readonly efi?: { readonly codePath: string; readonly variablesPath: string };
  /** qcow2 files that need no other. */
  readonly disks: readonly { readonly path: string; readonly isBoot: boolean; readonly serial: string }[];
  readonly nics: readonly {
    readonly mac: string;
    readonly guestName: string;
    /** none: an isolated network, which is this target's own. */
    readonly wire: { readonly kind: "bridge"; readonly bridge: string } | { readonly kind: "user" } | { readonly kind: "none" };
  }[];
}

/** The boot disk first: platforms start from the first. */
export function bootFirst(disks: readonly DefinedDisk[]): readonly DefinedDisk[] {
  return [...disks.filter(({ isBoot }) => isBoot), ...disks.filter(({ isBoot }) => !isBoot)];
}

export function toMebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}

export function toGibibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 30);
}
