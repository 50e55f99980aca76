// The Disk interface: random-access bytes of a fixed size, whatever stands behind it.

/** A run of bytes that is all data or known to read as zeros. Offset and length in bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly kind: "data" | "zero";
}

/** A readable disk. Safe for parallel calls. */
export interface Disk extends AsyncDisposable {
  readonly sizeBytes: number;
  /**
   * Fills `into` from `offset`; the whole range must lie inside the disk.
   * Throws Fault DataDamaged rather than giving bytes that fail their digest.
   */
  read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Extents that cover exactly [offset, offset + length), in order. "data" may be said of zeros, never the reverse. */
  extents(offset: number, length: number, signal?: AbortSignal): Promise<readonly Extent[]>;
}

/** A disk that can be written. */
export interface WritableDisk extends Disk {
  write(offset: number, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** All writes acknowledged before the call are durable on return. */
  flush(signal?: AbortSignal): Promise<void>;
}
