// lseek(2) with SEEK_DATA and SEEK_HOLE, which Node does not offer: called through node:ffi.

const seekData = 3;
const seekHole = 4;

/** Offsets of the next data and the next hole. Moves the descriptor's position. */
export interface HoleSeeker {
  /** Next data at or after `offset`; infinity when only holes follow. */
  nextData(fd: number, offset: number): number;
  /** Next hole at or after `offset`; the end of the file is one. */
  nextHole(fd: number, offset: number): number;
}

type Lseek = (fd: number, offset: bigint, whence: number) => bigint;

/** Undefined where the platform has no such call: then every byte counts as data. */
export async function loadHoleSeeker(): Promise<HoleSeeker | undefined> {
  if (process.platform !== "linux") return undefined;
  const lseek = await loadLseek();
  if (lseek === undefined) return undefined;
  return {
    nextData: (fd, offset) => {
      // Fails with ENXIO when only holes follow, with EINVAL where holes are unknown; the second asks for a hole and fails too.
      const at = Number(lseek(fd, BigInt(offset), seekData));
      if (at >= 0) return at;
      return Number(lseek(fd, BigInt(offset), seekHole)) < 0 ? offset : Number.POSITIVE_INFINITY;
    },
    nextHole: (fd, offset) => {
      const at = Number(lseek(fd, BigInt(offset), seekHole));
      return at < 0 ? Number.POSITIVE_INFINITY : at;
    },
  };
}

async function loadLseek(): Promise<Lseek | undefined> {
  try {
    const { dlopen } = await import("node:ffi");
    return dlopen("libc.so.6", { lseek: { arguments: ["i32", "i64", "i32"], return: "i64" } }).functions.lseek;
  } catch {
    return undefined; // No FFI or another C library: holes are then read as data, which is slower and right.
  }
}
