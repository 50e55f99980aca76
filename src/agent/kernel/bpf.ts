// The few commands of bpf(2) and perf_event_open(2) that tracking needs. Structures: linux/bpf.h and linux/perf_event.h.

import { KernelRefused, type SystemCalls } from "./system-calls.ts";

const command = { mapCreate: 0, progLoad: 5, objectPin: 6, objectGet: 7, linkCreate: 28 } as const;
const arrayMap = 2;
const mmapableFlag = 1 << 10;
const tracepointProgram = 5;
const perfEventAttach = 41;
const perfTypeTracepoint = 2;
const closeOnExec = 8;
const setBpfRequest = 0x4004_2408;
const enableRequest = 0x2400;
const verifierLogBytes = 1 << 20;

function attributes(byteCount: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(byteCount);
  fill(new DataView(bytes.buffer));
  return bytes;
}

function bpf(calls: SystemCalls, number: number, bytes: Uint8Array): number {
  return Number(calls.call("bpf", number, calls.addressOf(bytes), bytes.length));
}

export function createArrayMap(calls: SystemCalls, options: { readonly valueBytes: number; readonly count: number }): number {
  const bytes = attributes(72, (view) => {
    view.setUint32(0, arrayMap, true);
    view.setUint32(4, 4, true);
    view.setUint32(8, options.valueBytes, true);
    view.setUint32(12, options.count, true);
    view.setUint32(16, mmapableFlag, true);
  });
  return bpf(calls, command.mapCreate, bytes);
}

/** Loads a tracepoint program. When the verifier refuses, the error's message ends with its last words. */
export function loadProgram(calls: SystemCalls, code: Uint8Array): number {
  const licence = new TextEncoder().encode("Apache-2.0\0");
  const load = (log?: Uint8Array): number => {
    const bytes = attributes(120, (view) => {
      view.setUint32(0, tracepointProgram, true);
      view.setUint32(4, code.length / 8, true);
      view.setBigUint64(8, calls.addressOf(code), true);
      view.setBigUint64(16, calls.addressOf(licence), true);
      if (log === undefined) return;
      view.setUint32(24, 1, true);
      view.setUint32(28, log.length, true);
      view.setBigUint64(32, calls.addressOf(log), true);
    });
    return bpf(calls, command.progLoad, bytes);
  };
  try {
    return load();
  } catch (error) {
    if (!(error instanceof KernelRefused) || error.errorName === "EPERM") throw error;
    const log = new Uint8Array(verifierLogBytes);
    try {
      return load(log);
    } catch (refusal) {
      const text = new TextDecoder("latin1").decode(log.subarray(0, log.indexOf(0))).trim();
      throw new Error(`the kernel's verifier refused the program: ${text.slice(-300)}`, { cause: refusal });
    }
  }
}

export interface Attachment {
  readonly eventFd: number;
  /** Present when the kernel has links for it (5.15 on); only then it can be pinned. */
  readonly linkFd: number | undefined;
}

/** Runs the program at each event of a tracepoint, on all processors: one open event is enough for that. */
export function attachToTracepoint(calls: SystemCalls, options: { readonly eventId: number; readonly programFd: number }): Attachment {
  const event = attributes(128, (view) => {
    view.setUint32(0, perfTypeTracepoint, true);
    view.setUint32(4, 128, true);
    view.setBigUint64(8, BigInt(options.eventId), true);
    view.setBigUint64(16, 1n, true);
    view.setUint32(48, 1, true);
  });
  const eventFd = Number(calls.call("perf_event_open", calls.addressOf(event), -1, 0, -1, closeOnExec));
  try {
    const link = attributes(48, (view) => {
      view.setUint32(0, options.programFd, true);
      view.setUint32(4, eventFd, true);
      view.setUint32(8, perfEventAttach, true);
    });
    const linkFd = bpf(calls, command.linkCreate, link);
    calls.call("ioctl", eventFd, enableRequest, 0);
    return { eventFd, linkFd };
  } catch (error) {
    if (!(error instanceof KernelRefused) || error.errorName !== "EINVAL") throw error;
    calls.call("ioctl", eventFd, setBpfRequest, options.programFd);
    calls.call("ioctl", eventFd, enableRequest, 0);
    return { eventFd, linkFd: undefined };
  }
}

function pathAttributes(calls: SystemCalls, path: Uint8Array, fd: number): Uint8Array {
  return attributes(16, (view) => {
    view.setBigUint64(0, calls.addressOf(path), true);
    view.setUint32(8, fd, true);
  });
}

export function pinObject(calls: SystemCalls, path: string, fd: number): void {
  const text = new TextEncoder().encode(`${path}\0`);
  bpf(calls, command.objectPin, pathAttributes(calls, text, fd));
}

/** The pinned object's descriptor; undefined when nothing is pinned there. */
export function getPinned(calls: SystemCalls, path: string): number | undefined {
  const text = new TextEncoder().encode(`${path}\0`);
  try {
    return bpf(calls, command.objectGet, pathAttributes(calls, text, 0));
  } catch (error) {
    if (error instanceof KernelRefused && error.errorName === "ENOENT") return undefined;
    throw error;
  }
}

/** Maps an array map's values into memory, shared with the kernel. */
export function mapMemory(calls: SystemCalls, fd: number, byteCount: number): { readonly bytes: Uint8Array; readonly unmap: () => void } {
  const rounded = Math.ceil(byteCount / 4096) * 4096;
  const readWrite = 3;
  const shared = 1;
  const address = calls.call("mmap", 0, rounded, readWrite, shared, fd, 0);
  return {
    bytes: new Uint8Array(calls.memoryAt(address, byteCount)),
    unmap: () => void calls.call("munmap", address, rounded),
  };
}
