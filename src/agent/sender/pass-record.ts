// What a pass over a whole disk has read so far: the digests, in a file, so that a pass that was broken off need not read it again.

import { hash } from "node:crypto";
import { mkdir, open, readdir, rm, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { blocksPerUnit } from "./lanes.ts";
import { blockCountOf, digestBytes } from "../../disk/geometry.ts";

const recordFolder = "passes";
const headBytes = 4096;
const flagged = Uint8Array.of(1);
const frameDigestBytes = blocksPerUnit * digestBytes;

/** Of what the record speaks: any other value begins a new one. */
export interface PassSubject {
  readonly diskId: string;
  readonly session: string;
  readonly sizeBytes: number;
  /** The excluded ranges, as text. */
  readonly excluded: string;
}

/**
 * Good only together with a tracker that has seen every change since the record was begun: what it calls changed is read
 * again. Kept without flushing, because no tracker sees across a restart of the machine.
 */
export class PassRecord implements AsyncDisposable {
  readonly #file: FileHandle;
  /** One byte a frame: 1 when its digests stand in the file. */
  readonly #flags: Uint8Array;
  readonly subject: PassSubject;
  #isFull = false;

  private constructor(file: FileHandle, subject: PassSubject, flags: Uint8Array) {
    this.#file = file;
    this.subject = subject;
    this.#flags = flags;
  }

  /** Goes on with what an earlier pass wrote where `how` allows it and the subject is the same. */
  static async open(stateFolder: string, subject: PassSubject, how: "goOn" | "anew"): Promise<PassRecord> {
    const path = pathOf(stateFolder, subject.diskId);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const flags = new Uint8Array(Math.ceil(blockCountOf(subject.sizeBytes) / blocksPerUnit));
    const head = headOf(subject);
    if (how === "goOn") {
      const file = await open(path, "r+").catch(() => undefined); // None: begun anew below.
      if (file !== undefined) {
        const found = Buffer.alloc(headBytes);
        const { bytesRead } = await file.read(found, 0, headBytes, 0);
        const isWhole = bytesRead === headBytes && found.equals(head);
        if (isWhole && (await file.read(flags, 0, flags.length, headBytes)).bytesRead === flags.length)
          return new PassRecord(file, subject, flags);
        await file.close();
      }
    }
    const file = await open(path, "w+", 0o600);
    flags.fill(0);
    await file.write(head, 0, headBytes, 0);
    await file.write(flags, 0, flags.length, headBytes);
    return new PassRecord(file, subject, flags);
  }

  get frameCount(): number {
    return this.#flags.reduce((sum, flag) => sum + flag, 0);
  }

  has(frame: number): boolean {
    return this.#flags[frame] === 1;
  }

  async read(frame: number, into: Uint8Array): Promise<void> {
    const { bytesRead } = await this.#file.read(into, 0, into.length, this.#digestsAt(frame));
    if (bytesRead !== into.length) throw new Error("assertion failed: a frame that is flagged stands in the file");
  }

  /** The flag comes last: who is killed in between has nothing. A file that takes no more is let be: it only saves work. */
  async write(frame: number, digests: Uint8Array): Promise<void> {
    if (this.#isFull) return;
    try {
      await this.#file.write(digests, 0, digests.length, this.#digestsAt(frame));
      await this.#file.write(flagged, 0, 1, headBytes + frame);
      this.#flags[frame] = 1;
    } catch {
      this.#isFull = true;
    }
  }

  async forget(frame: number): Promise<void> {
    this.#flags[frame] = 0;
    await this.#file.write(this.#flags, frame, 1, headBytes + frame);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  #digestsAt(frame: number): number {
    return headBytes + Math.ceil(this.#flags.length / headBytes) * headBytes + frame * frameDigestBytes;
  }
}

export async function removePassRecords(stateFolder: string): Promise<void> {
  const folder = join(stateFolder, recordFolder);
  const names = await readdir(folder).catch((): string[] => []); // No folder: no pass was begun.
  for (const name of names) await rm(join(folder, name), { force: true });
}

function pathOf(stateFolder: string, diskId: string): string {
  return join(stateFolder, recordFolder, diskId);
}

function headOf(subject: PassSubject): Buffer {
  const head = Buffer.alloc(headBytes);
  head.write(hash("sha256", JSON.stringify({ version: 3, ...subject }), "hex"), "latin1");
  return head;
}
