// System calls that Node has no word for, through the C library by node:ffi. Errors carry the number the kernel gave.

import { constants } from "node:os";
import ffi from "node:ffi";
import { assert } from "../../base/assert.ts";

/** The kernel refused a call. */
export class KernelRefused extends Error {
  readonly errorNumber: number;
  /** Name of the number, "EPERM". */
  readonly errorName: string;
  constructor(what: string, errorNumber: number) {
    const name = Object.entries(constants.errno).find(([, value]) => value === errorNumber)?.[0] ?? `error ${errorNumber}`;
    super(`${what}: ${name}`);
    this.name = "KernelRefused";
    this.errorNumber = errorNumber;
    this.errorName = name;
  }
}

const numbersByArchitecture: Readonly<Record<string, Readonly<Record<CallName, number>>>> = {
  x64: {
    bpf: 321,
    perf_event_open: 298,
    ioctl: 16,
    mmap: 9,
    mprotect: 10,
    munmap: 11,
    membarrier: 324,
    close: 3,
    sync: 162,
    syncfs: 306,
    prctl: 157,
    futex: 202,
    io_setup: 206,
    io_submit: 209,
    io_getevents: 208,
  },
  arm64: {
    bpf: 280,
    perf_event_open: 241,
    ioctl: 29,
    mmap: 222,
    mprotect: 226,
    munmap: 215,
    membarrier: 283,
    close: 57,
    sync: 81,
    syncfs: 267,
    prctl: 167,
    futex: 98,
    io_setup: 0,
    io_submit: 2,
    io_getevents: 4,
  },
};

export type CallName =
  | "bpf"
  | "perf_event_open"
  | "ioctl"
  | "mmap"
  | "mprotect"
  | "munmap"
  | "membarrier"
  | "close"
  | "sync"
  | "syncfs"
  | "prctl"
  | "futex"
  | "io_setup"
  | "io_submit"
  | "io_getevents";

export interface SystemCalls {
  /** Makes the call; blocks the thread. Throws KernelRefused when it answers less than 0. */
  call(name: CallName, ...values: readonly (bigint | number)[]): bigint;
  /** The kernel's number of the call on this processor. */
  numberOf(name: CallName): number;
  /** Address of a buffer's bytes; the caller keeps the buffer alive during the call. */
  addressOf(bytes: Uint8Array): bigint;
  /** The memory at an address, not copied. */
  memoryAt(address: bigint, byteCount: number): ArrayBuffer;
}

/** Throws when the C library or the processor is not one the agent knows. */
export function openSystemCalls(): SystemCalls {
  const numbers = numbersByArchitecture[process.arch];
  assert(numbers !== undefined, `system call numbers of ${process.arch} are known`);
  const { functions } = ffi.dlopen("libc.so.6", {
    syscall: { arguments: ["int64", "int64", "int64", "int64", "int64", "int64", "int64"], return: "int64" },
    __errno_location: { arguments: [], return: "pointer" },
  });
  const { syscall, __errno_location: errorLocation } = functions;
  return {
    call: (name, ...values) => {
      const given = (index: number): bigint => BigInt.asIntN(64, BigInt(values[index] ?? 0));
      const answer: unknown = syscall(BigInt(numbers[name]), given(0), given(1), given(2), given(3), given(4), given(5));
      assert(typeof answer === "bigint", "a system call answers a number");
      if (answer >= 0n || answer < -4096n) return answer;
      const location: unknown = errorLocation();
      assert(typeof location === "bigint", "the error location is an address");
      throw new KernelRefused(name, ffi.getInt32(location));
    },
    numberOf: (name) => numbers[name],
    addressOf: (bytes) => ffi.getRawPointer(bytes),
    memoryAt: (address, byteCount) => ffi.toArrayBuffer(address, byteCount, false),
  };
}
