// Opens a disk for direct reads, and makes sure that what was opened is the disk that was meant, not another under its name.

import { constants } from "node:fs";
import { open, realpath, stat, type FileHandle } from "node:fs/promises";
import { basename, join } from "node:path";
import type { SourceDisk } from "../../contract/agent-control.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import { allocatePageAligned } from "../kernel/page-aligned.ts";
import type { BatchReads } from "../kernel/batch-reads.ts";
import { readEach, type DiskSpan, type OpenDisk } from "../source.ts";
import { identitiesOf } from "./disk-identity.ts";
import { readTrimmed, waysTo } from "./sysfs.ts";

/** What identifies a disk may stand in so many bytes from its start. */
export const headBytes = 8192;

export interface LinuxDisk extends OpenDisk {
  /** (major << 20) | minor */
  readonly device: number;
}

/** Throws a Fault to be tried again when the name stands for another disk than it did a moment ago. */
export async function openLinuxDisk(facts: SourceDisk, batches: BatchReads): Promise<LinuxDisk> {
  const file = await open(join("/dev", facts.deviceName), constants.O_RDONLY | constants.O_DIRECT).catch((error: unknown) => {
    throw diskMoved(facts, error);
  });
  try {
    const { rdev } = await file.stat();
    const { major, minor } = splitDevice(rdev);
    const folder = await realpath(`/sys/dev/block/${major}:${minor}`).catch((error: unknown) => {
      throw diskMoved(facts, error);
    });
    const head = allocatePageAligned(headBytes);
    await file.read(head, 0, headBytes, 0);
    const identities = await identitiesOf(await waysTo(basename(folder)), head);
    if (!identities.some(({ diskId }) => diskId === facts.diskId)) throw diskMoved(facts, undefined);
    const read: OpenDisk["read"] = (offset, into) => readWhole({ file, facts }, offset, into);
    return {
      facts,
      device: major * 2 ** 20 + minor,
      attachment: await attachmentOf(folder),
      read,
      readMany: async (spans, signal) => {
        const filled = await batches.read(file.fd, spans);
        // The end of the disk, an unreadable sector, a kernel without such reads: a single read fills it or tells why not.
        await readEach({ read }, unfilledOf(spans, filled), signal);
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function unfilledOf(spans: readonly DiskSpan[], filled: readonly boolean[]): readonly DiskSpan[] {
  return spans.filter((_, index) => filled[index] !== true);
}

/** Another value after a disk was taken off and put on again, even under the same name and number. */
async function attachmentOf(folder: string): Promise<string> {
  // The kernel's own count of attachments came with 5.15; the folder's inode is new each time on every kernel.
  return `${(await readTrimmed(join(folder, "diskseq"))) ?? ""}/${(await stat(folder)).ino}`;
}

function diskMoved(facts: SourceDisk, cause: unknown): Fault {
  return new Fault("StateConflict", `could not open the disk ${facts.diskId}: it is no longer ${facts.deviceName}`, {
    evidence: { diskId: facts.diskId, deviceName: facts.deviceName },
    retry: "later",
    cause,
  });
}

/** The C library's form of a device number (makedev(3)). */
function splitDevice(rdev: number): { readonly major: number; readonly minor: number } {
  const wide = BigInt(rdev);
  const major = ((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xffff_f000n);
  const minor = (wide & 0xffn) | ((wide >> 12n) & 0xffff_ff00n);
  return { major: Number(major), minor: Number(minor) };
}

async function readWhole(
  { file, facts }: { readonly file: FileHandle; readonly facts: SourceDisk },
  offset: number,
  into: Uint8Array,
): Promise<void> {
  const wanted = Math.max(0, Math.min(into.length, facts.sizeBytes - offset));
  let done = 0;
  while (done < wanted) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done).catch((error: unknown) => {
      throw new Fault("DataDamaged", `could not read the disk ${facts.deviceName} at ${offset}: ${asFault(error, "read").message}`, {
        evidence: { diskId: facts.diskId, offset },
        cause: error,
      });
    });
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  if (done < wanted)
    throw new Fault("DataDamaged", `the disk ${facts.deviceName} ended at ${offset + done}, before its size`, {
      evidence: { diskId: facts.diskId },
    });
  into.fill(0, wanted);
}
