// What the replication needs beside the hub's services: a place to land, a reader of vaults, the job engine.

import type { Disk } from "../../disk/disk.ts";
import type { HelpedFiles } from "../../landing/files/helped-files.ts";
import type { GuestVolume } from "../../landing/files/guest-volumes.ts";
import type { ImagesWish, WrittenImages } from "../../landing/qemu/write-images.ts";
import type { Target } from "../../landing/target.ts";
import type { Vault, VaultReader } from "../../vault/vault.ts";
import type { JobEngine } from "../jobs/job-engine.ts";
import type { HubServices } from "../services.ts";
import type { Landings } from "./landed.ts";

export interface HostStart {
  /** Since this was asked to be remembered. */
  readonly isStartedAnew: boolean;
  /** This start is no news any more. */
  remember(): Promise<void>;
}

/** Where image files of recovery points may be written. */
export interface ImageFolder {
  readonly folder: string;
  write(wish: ImagesWish, signal?: AbortSignal): Promise<WrittenImages>;
  /** Takes back what write wrote or began. */
  remove(folder: string, names: { readonly format: string; readonly count: number }): Promise<void>;
}

/** Opened once for the extension's life, closed with it. */
export interface ReplicationWorld {
  readonly target: Target;
  /** Tells this target from those of other hubs of the database; absent: all hubs have the same one. */
  readonly place?: string;
  /** The reader of a vault, by resource id; the same one is answered again. StorageRoleMissing and StateConflict as VaultAccess.open. */
  readonly openReader: (vaultResourceId: string) => Promise<VaultReader>;
  /** The writer of a vault, for points of landed machines, in an area of this host's own; the same one is answered again. Absent: none are made. */
  readonly openWriter?: (vaultResourceId: string) => Promise<Vault>;
  /** Programs of this host that may be run to ask a landed machine, by the names that calls use. */
  readonly probePrograms?: ReadonlyMap<string, string>;
  /** Opens volumes of a guest that this host does not read by itself; absent: they are named, and not read. */
  readonly openHelped?: (disks: readonly Disk[], volumes: readonly GuestVolume[], signal: AbortSignal) => Promise<HelpedFiles>;
  /** The start of the host that landed machines run on; absent where they run elsewhere. */
  readonly host?: HostStart;
  /** Origins of pages besides the hub's own that may open consoles. */
  readonly consoleOrigins?: readonly string[];
  /** Absent where the configuration allows no export. */
  readonly images?: ImageFolder;
  /** Where disks lie that upgrade operating systems. */
  readonly upgradeFolder: string;
}

/** What the workflows' steps work with. */
export interface Replication extends ReplicationWorld {
  readonly services: HubServices;
  readonly landings: Landings;
  readonly limits: ReplicationLimits;
}

/** What the resource types' hooks work with. */
export interface ReplicationFront extends Replication {
  readonly engine: JobEngine;
}

/** Waits and limits of the workflows; tests give shorter ones. */
export interface ReplicationLimits {
  /** Longest wait for an order of a few commands (release, fence, unprotect). */
  readonly shortOrderSeconds: number;
  /** Longest wait for a push install. */
  readonly installSeconds: number;
  /** Longest wait for an order that may read whole disks (verify, quiesce, point). */
  readonly longOrderSeconds: number;
  readonly initialReplicationSeconds: number;
  /** Time for which a source is held frozen. Roots, fence and its confirmation must fit in it. */
  readonly holdSeconds: number;
  /** A delta round that sent less than this is the last. */
  readonly roundBytesSmall: number;
  readonly roundsMax: number;
  readonly probeSeconds: number;
  /** For so long the agent of a source that a person switched off must not be heard of. */
  readonly handFenceSeconds: number;
  /** Longest wait for a guest that upgrades its operating system. */
  readonly upgradeSeconds: number;
  /** A site that was not heard of for so long counts as lost, when a person says so too. */
  readonly silentSeconds: number;
  /** Looks at what falls due by the clock: rehearsals, commits. */
  readonly watchMs: number;
  /** Looks at states that nothing tells of. */
  readonly pollMs: number;
}

export const replicationLimits: ReplicationLimits = {
  shortOrderSeconds: 300,
  installSeconds: 1200,
  longOrderSeconds: 24 * 3600,
  initialReplicationSeconds: 30 * 24 * 3600,
  holdSeconds: 300,
  roundBytesSmall: 4 << 20,
  roundsMax: 6,
  probeSeconds: 600,
  handFenceSeconds: 20,
  upgradeSeconds: 4 * 3600,
  silentSeconds: 900,
  watchMs: 30_000,
  pollMs: 1000,
};
