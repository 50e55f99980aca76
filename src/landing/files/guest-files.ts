// Files of a guest's filesystem, read where they lie: nothing is mounted and nothing of the guest runs.

/** Fills `into` from `offset`. */
export type ReadAt = (offset: number, into: Buffer) => Promise<void>;

export type NodeKind = "file" | "folder" | "link" | "device" | "pipe" | "socket";

export interface GuestNode {
  /** What makes it the same file under several names. */
  readonly serial: number;
  readonly kind: NodeKind;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Seconds since 1970. */
  readonly modifiedAt: number;
  readonly linkCount: number;
  /** Of a device. */
  readonly device?: { readonly kind: "block" | "character"; readonly major: number; readonly minor: number };
}

export interface NamedNode {
  /** As it stands in the folder; any bytes but NUL and "/". */
  readonly name: Buffer;
  readonly node: GuestNode;
}

/** One filesystem. Links are never followed: their text is the guest's. */
export interface GuestFiles {
  readonly root: GuestNode;
  /** Entries of a folder but "." and "..", as they stand there. */
  list(folder: GuestNode): AsyncIterable<NamedNode>;
  /** Undefined when the folder has no such entry. */
  find(folder: GuestNode, name: Buffer): Promise<GuestNode | undefined>;
  /** Content from `offset` on, in bounded pieces; holes are zeros. */
  read(file: GuestNode, offset?: number): AsyncIterable<Uint8Array>;
  readLink(link: GuestNode): Promise<Buffer>;
}
