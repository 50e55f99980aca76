// System calls made at once, each in a thread that knows nothing of Node: those that wait for disks take no longer together than the longest.

import ffi from "node:ffi";
import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { KernelRefused, type CallName, type SystemCalls } from "./system-calls.ts";

export interface Call {
  readonly name: CallName;
  readonly values: readonly (bigint | number)[];
}

export interface CallOutcome {
  /** undefined: the kernel did what it was asked. */
  readonly refused: KernelRefused | undefined;
  /** From the begin of all, to within a millisecond or two. */
  readonly tookMs: number;
}

export interface CallThreads {
  /** Outcomes in the order of the calls, when all have ended. This thread goes on meanwhile. What the calls point to must stay where it is. */
  callTogether(calls: readonly Call[]): Promise<CallOutcome[]>;
}

/** More calls than that are made in turns. */
const threadsMax = 16;
/** Seven words that go in, number first, and one that comes out. */
const recordWords = 8;
const answerWord = 7;
/** No answer of the kernel's. */
const unanswered = 1n << 62n;
const pageBytes = 4096;
const lookMs = 1;

/**
 * A thread's whole program: the system call that the record at its argument asks for, its answer into the record's last word.
 * A thread that runs it needs a stack and nothing else: a thread of Node's would take some megabytes.
 */
const programs: Readonly<Record<string, readonly number[]>> = {
  x64: [
    ...[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
    ...[0x53, 0x48, 0x89, 0xfb], // push rbx; mov rbx, rdi
    ...[0x48, 0x8b, 0x03, 0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10], // mov rax, [rbx]; mov rdi, [rbx+8]; mov rsi, [rbx+16]
    ...[0x48, 0x8b, 0x53, 0x18, 0x4c, 0x8b, 0x53, 0x20], // mov rdx, [rbx+24]; mov r10, [rbx+32]
    ...[0x4c, 0x8b, 0x43, 0x28, 0x4c, 0x8b, 0x4b, 0x30], // mov r8, [rbx+40]; mov r9, [rbx+48]
    ...[0x0f, 0x05, 0x48, 0x89, 0x43, 0x38], // syscall; mov [rbx+56], rax
    ...[0x31, 0xc0, 0x5b, 0xc3], // xor eax, eax; pop rbx; ret
  ],
  arm64: [
    ...[0xd503245f, 0xaa0003e9, 0xf9400128], // bti c; mov x9, x0; ldr x8, [x9]
    ...[0xf9400520, 0xf9400921, 0xf9400d22, 0xf9401123, 0xf9401524, 0xf9401925], // ldr x0…x5, [x9, #8…#48]
    ...[0xd4000001, 0xf9001d20, 0xd2800000, 0xd65f03c0], // svc #0; str x0, [x9, #56]; mov x0, #0; ret
  ].flatMap((word) => [word & 0xff, (word >>> 8) & 0xff, (word >>> 16) & 0xff, word >>> 24]),
};

/** Where the machine allows no such threads (a policy against memory that becomes a program), the calls are made one after the other. */
export function openCallThreads(calls: SystemCalls, clock: Clock): CallThreads {
  const start = prepare(calls);
  return {
    callTogether: async (wanted) => {
      const outcomes: CallOutcome[] = [];
      const startMs = clock.monotonicMs();
      for (let first = 0; first < wanted.length; first += threadsMax) {
        const turn = wanted.slice(first, first + threadsMax);
        outcomes.push(...(await callTurn({ calls, clock, start, startMs }, turn)));
      }
      return outcomes;
    },
  };
}

/** Begins a call in a thread; undefined when there can be none. */
type Start = (record: BigInt64Array<ArrayBuffer>) => { readonly join: () => void } | undefined;

interface Turn {
  readonly calls: SystemCalls;
  readonly clock: Clock;
  readonly start: Start;
  readonly startMs: number;
}

async function callTurn({ calls, clock, start, startMs }: Turn, wanted: readonly Call[]): Promise<CallOutcome[]> {
  const records = wanted.map(({ name, values }) => recordOf(calls.numberOf(name), values));
  const threads = records.map(start);
  const endedMs = new Map<number, number>();
  for (const [index, { name, values }] of wanted.entries()) {
    const record = records[index];
    if (threads[index] !== undefined || record === undefined) continue;
    Atomics.store(record, answerWord, callHere(calls, name, values));
  }
  for (;;) {
    for (const [index, record] of records.entries())
      if (Atomics.load(record, answerWord) !== unanswered && !endedMs.has(index)) endedMs.set(index, clock.monotonicMs() - startMs);
    if (endedMs.size === records.length) break;
    await clock.sleep(lookMs);
  }
  for (const thread of threads) thread?.join();
  return wanted.map(({ name }, index) => {
    const answer = records[index]?.[answerWord] ?? unanswered;
    const isRefused = answer < 0n && answer >= -4096n;
    return { refused: isRefused ? new KernelRefused(name, Number(-answer)) : undefined, tookMs: endedMs.get(index) ?? 0 };
  });
}

function recordOf(number: number, values: readonly (bigint | number)[]): BigInt64Array<ArrayBuffer> {
  const record = new BigInt64Array(recordWords);
  record[0] = BigInt(number);
  for (const [index, value] of values.entries()) record[index + 1] = BigInt.asIntN(64, BigInt(value));
  record[answerWord] = unanswered;
  return record;
}

function callHere(calls: SystemCalls, name: CallName, values: readonly (bigint | number)[]): bigint {
  try {
    return calls.call(name, ...values);
  } catch (error) {
    if (error instanceof KernelRefused) return BigInt(-error.errorNumber);
    throw error;
  }
}

function prepare(calls: SystemCalls): Start {
  const program = mapProgram(calls);
  if (program === undefined) return () => undefined;
  const { functions } = ffi.dlopen(null, {
    pthread_create: { arguments: ["pointer", "pointer", "pointer", "pointer"], return: "int32" },
    pthread_join: { arguments: ["uint64", "pointer"], return: "int32" },
  });
  const { pthread_create: create, pthread_join: join } = functions;
  return (record) => {
    const handle = new BigUint64Array(1);
    if (create(addressOf(handle), 0n, program, addressOf(record)) !== 0) return undefined;
    return {
      join: () => {
        assert(join(handle[0] ?? 0n, 0n) === 0, "a thread that was started can be waited for");
        assert(record.length === recordWords, "the record outlives its thread");
      },
    };
  };

  function addressOf(words: BigInt64Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>): bigint {
    return calls.addressOf(new Uint8Array(words.buffer));
  }
}

/** The address of the program; undefined where memory that was written may not become one. Mapped once, for good. */
function mapProgram(calls: SystemCalls): bigint | undefined {
  const [read, write, execute] = [1, 2, 4];
  const privateAnonymous = 0x22;
  const bytes = programs[process.arch];
  if (bytes === undefined) return undefined;
  const address = calls.call("mmap", 0, pageBytes, read | write, privateAnonymous, -1, 0);
  new Uint8Array(calls.memoryAt(address, pageBytes)).set(bytes);
  try {
    calls.call("mprotect", address, pageBytes, read | execute);
    return address;
  } catch (error) {
    if (!(error instanceof KernelRefused)) throw error;
    calls.call("munmap", address, pageBytes);
    return undefined;
  }
}
