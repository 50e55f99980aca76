// The Target interface: where machines land. Small questions, one suite for all targets (target-suite.ts).

import type { Disk } from "../disk/disk.ts";
import type { ByteRange } from "../disk/excluded-disk.ts";
import type { DiskId } from "../contract/ids.ts";
import type { LandedDefinition } from "./definitions/defined-machine.ts";
import type { Authority } from "./fence-ledger.ts";

/** A network that a machine is attached to. Isolated networks reach nothing, and nothing reaches them but the target's probe. */
export type LandingNetwork = { readonly kind: "isolated" } | { readonly kind: "named"; readonly name: string };

export interface LandingDisk {
  readonly diskId: DiskId;
  readonly isBoot: boolean;
  /** Immutable content; the target never writes to it. */
  readonly content: Disk;
  /** Of the page tree of the content, where it is known: 64 hex digits. A target that copies the disk holds its copy against it. */
  readonly root?: string;
}

/** What becomes of a card's address. Addresses are IPv4 with a prefix, "10.0.0.5/24"; gateway and name servers without. */
export type NicAddressing =
  | { readonly kind: "keep" }
  | { readonly kind: "dhcp" }
  | { readonly kind: "fixed"; readonly address: string; readonly gateway?: string; readonly nameServers?: readonly string[] };

export interface LandingNic {
  readonly mac: string;
  /** Name inside the guest, kept by hydration. */
  readonly guestName: string;
  /** Address at the source, "10.10.0.20" or "10.10.0.20/24". An isolated network gives it the same one again; a probe tries it. */
  readonly address?: string;
  /** keep unless told. */
  readonly addressing?: NicAddressing;
}

export interface LaunchSpec {
  /** Name of the landed machine, unique in the target: [a-z0-9-]{1,60}. */
  readonly name: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly firmware: "bios" | "efi";
  /** In the source's order; exactly one is boot. */
  readonly disks: readonly LandingDisk[];
  readonly nics: readonly LandingNic[];
  readonly network: LandingNetwork;
  /** The guest's kernel talks on the serial console, too. */
  readonly hasSerialConsole?: boolean;
  /** What is written to its disks is remembered, so that a reader of them need not read all. */
  readonly tracksWrites?: boolean;
  /** Passphrases or key files of encrypted disks; used while the machine is hydrated, and kept nowhere. */
  readonly unlockKeys?: readonly Uint8Array[];
}

export interface HydrationReport {
  readonly seconds: number;
  /** One readable line per change: "/boot/initrd.img-6.1.0-42-amd64: + virtio_blk …". */
  readonly changes: readonly string[];
}

export interface LandedStatus {
  readonly name: string;
  readonly power: "running" | "stopped" | "gone";
  /** Addresses seen on the network (DHCP leases of its cards, or configured). */
  readonly addresses: readonly string[];
  /** Bytes that still depend on the recovery point; 0 when the machine stands by itself. */
  readonly bytesToFill: number;
  /** Last lines of the serial console. */
  readonly serialTail: string;
}

export interface HttpProbe {
  readonly kind?: "http";
  readonly port: number;
  readonly path: string;
}
/** What shows that a machine is up: it answers 200, takes a connection, speaks SSH, says a text on its serial console, or a program finds it well. */
export type Probe =
  | HttpProbe
  | { readonly kind: "tcp" | "ssh"; readonly port: number }
  | { readonly kind: "serial"; readonly text: string }
  /** A program of this host, by its path, run inside the machine's network; its exit code 0 is the answer. WATARI_ADDRESSES names the machine's. */
  | { readonly kind: "script"; readonly program: string };
export type ProbeOutcome =
  | {
      readonly kind: "answered";
      /** Of HTTP. */
      readonly status?: number;
      /** What was heard: the page, the banner, the line, the program's output. */
      readonly body: string;
      readonly seconds: number;
    }
  | { readonly kind: "silent"; readonly seconds: number; readonly reason: string };

export interface ConsoleView {
  /** The newest MiB of the serial console, what was said while a program before this one ran too. */
  readonly serialLog: string;
  /** The screen as PNG; absent while the machine does not run. */
  readonly screenshot?: Uint8Array;
}

export type ConsoleKind = "serial" | "screen";

export interface ConsoleWish {
  readonly kind: ConsoleKind;
  /** One at a time writes to a serial console. A screen (RFB, RFC 6143) takes its viewer's input always. */
  readonly access: "read" | "write";
}

/** A line to a running machine's console. Closing it ends it for this caller alone; closing twice is fine. */
export interface ConsoleLine extends AsyncDisposable {
  /** Read once, in pieces of at most 64 KiB; of a serial console from 64 KiB back. Who reads slowly holds up neither guest nor others. Ends when the machine stops. */
  readonly output: AsyncIterable<Uint8Array>;
  /** Returns when there is room for more. */
  write(bytes: Uint8Array): Promise<void>;
}

export type StopMode = "orderly" | "cut";

/** A disk of a landed machine as it was at one moment. */
export interface LandedDisk {
  readonly diskId: DiskId;
  readonly isBoot: boolean;
  readonly content: Disk;
  /**
   * All that was written since the machine was made lies in these ranges, hydration's edits too; in order, without overlap. unknown: it was
   * not tracked, or the tracking was lost with the power: anything may have changed.
   */
  readonly written: readonly ByteRange[] | "unknown";
}

/** All disks of a machine at the same moment. Closing it lets the machine go on without a copy of what it overwrites. */
export interface LandedDisks extends AsyncDisposable {
  readonly disks: readonly LandedDisk[];
  /** Of the moment; milliseconds since 1970. */
  readonly timeMs: number;
  /** The machine was off and cannot write while this is open. */
  readonly isAtRest: boolean;
  /** What was undone of hydration, a line each; with `!` what was left as the guest has it. */
  readonly undone: readonly string[];
}

export interface LandedReading {
  /**
   * asLanded unless told. forSource: of a machine that is off, a clone of its disks from which hydration's edits were taken, as its old
   * hardware wants them; HydrationUnsupported when the guest cannot be opened.
   */
  readonly shape?: "asLanded" | "forSource";
  readonly signal?: AbortSignal;
}

/** What changes a machine, on behalf of one authority. All calls may be repeated; one for what is already so is no fault. */
export interface TargetCommands {
  /** Clones, hydrates the clone, starts it. Returns when the machine's processor runs. On failure or abort nothing is left. */
  launch(spec: LaunchSpec, signal?: AbortSignal): Promise<{ readonly hydration: HydrationReport }>;
  /** Copies what still depends on the recovery point until the machine stands by itself; the guest runs on. */
  fill(name: string, onProgress: (bytesLeft: number) => void, signal?: AbortSignal): Promise<void>;
  start(name: string): Promise<void>;
  /** orderly, unless told: the guest is asked, and cut off when it does not listen. cut: at once, as by the plug. */
  stop(name: string, how?: StopMode): Promise<void>;
  /** Ends the machine and removes every trace of it but the highest fencing number. */
  remove(name: string): Promise<void>;
  /** A machine that is off is not started any more, by nobody and over restarts, until it is allowed again. Absent: this target cannot. */
  bar?(name: string): Promise<void>;
  allow?(name: string): Promise<void>;
}

export interface Target extends AsyncDisposable {
  readonly kind: string;
  /** Commands of an older authority than one that commanded the same machine before are refused with StaleOrder and change nothing. */
  under(authority: Authority): TargetCommands;
  status(name: string): Promise<LandedStatus>;
  /** Asks again and again, from inside the machine's network, until it answers as the probe wants or timeoutSeconds have passed. */
  probe(name: string, probe: Probe, timeoutSeconds: number, signal?: AbortSignal): Promise<ProbeOutcome>;
  /** What its console shows; looking does not disturb the guest. */
  look(name: string): Promise<ConsoleView>;
  /** Absent: this target's machines are not of this host. Fault StateConflict for one that still depends on its recovery point. */
  define?(name: string): Promise<LandedDefinition>;
  /** Absent: this target's machines have no consoles to type at. Fault StateConflict where the machine does not run or another one writes. */
  openConsole?(name: string, wish: ConsoleWish): Promise<ConsoleLine>;
  /**
   * After a restart of this program: serves the contents again that a machine still depends on. A running guest goes on where its
   * reads wait. The disks are those of launch, in the same order.
   */
  reattach(name: string, disks: readonly LandingDisk[]): Promise<void>;
  /**
   * The disks of a machine that stands by itself, for reading while it runs on; of one that is off, as they are. A second call ends
   * what a killed process left of the one before. Absent: this target's disks cannot be read.
   */
  openLanded?(name: string, options?: LandedReading): Promise<LandedDisks>;
  /** Names of all machines here. */
  list(): Promise<readonly string[]>;
  /** One readable line for everything here that belongs to no machine; absent: this target cannot leave any. */
  leftovers?(): Promise<readonly string[]>;
}

/** Serves a disk over NBD on a unix socket until closed; given to targets by whoever composes them. */
export type ExportDisk = (disk: Disk, where: { readonly socketPath: string; readonly exportName: string }) => Promise<AsyncDisposable>;
