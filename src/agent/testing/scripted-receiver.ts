// For tests: the appliance's side of the data port, with a replica in memory, that holds the agent to the protocol and fails on demand.

import { createHash } from "node:crypto";
import { duplexPair, type Duplex } from "node:stream";
import { zstdDecompressSync } from "node:zlib";
import { Fault, toReport } from "../../contract/errors.ts";
import {
  beginPointShape,
  encodeFrame,
  encodeJsonFrame,
  endPointShape,
  frameTypes,
  parseJsonBody,
  payloadMethods,
  readFrames,
  unitsInFlightMax,
  type BeginPoint,
  type EndPoint,
  type Frame,
} from "../../contract/agent-frames.ts";
import { parseDigestHex } from "../../contract/ids.ts";
import { blockBytes, blockCountOf, granuleBytes } from "../../disk/geometry.ts";
import { blockIdOf } from "../../disk/block-id.ts";
import { toHex } from "../../disk/digest.ts";
import { rootOfBlockIds } from "../../disk/page-tree.ts";

export interface SealedReplica {
  readonly begin: BeginPoint;
  readonly end: EndPoint;
  readonly disks: ReadonlyMap<string, Uint8Array>;
}

/** What to do wrong: cut before the frame of this number, counted over all connections; or say a fault to a begin. */
export interface Mischief {
  cutAtFrame?: number;
  /** Seals the point but cuts before saying so. */
  cutBeforeSealed?: boolean;
  faultAtBegin?: Fault | undefined;
}

export class ScriptedReceiver {
  readonly points = new Map<string, SealedReplica>();
  readonly mischief: Mischief;
  readonly begins: BeginPoint[] = [];
  readonly breaches: string[] = [];
  /** Blocks that came in `blocks` frames, by their ids: never asked for again, whatever became of their point. */
  readonly kept = new Map<string, Uint8Array>();
  frameCount = 0;
  /** Called with each begin: a test may write to the source at this moment. */
  onFrame: (frame: Frame) => Promise<void> | void = () => undefined;

  constructor(mischief: Mischief = {}) {
    this.mischief = mischief;
  }

  /** The agent's end of a new connection. */
  connect(): Duplex {
    const [agentSide, ownSide] = duplexPair();
    void this.#serve(ownSide);
    return agentSide;
  }

  get newest(): SealedReplica | undefined {
    return [...this.points.values()].at(-1);
  }

  async #serve(stream: Duplex): Promise<void> {
    stream.on("error", () => undefined); // The agent went away; what it left behind is dropped.
    const session = new Session(this, stream);
    let isCut = true;
    try {
      for await (const frame of readFrames(stream.iterator({ destroyOnReturn: false }))) {
        this.frameCount += 1;
        await this.onFrame(frame);
        if (this.frameCount === this.mischief.cutAtFrame) break;
        if (session.take(frame)) continue;
        isCut = false;
        break;
      }
    } catch (error) {
      if (error instanceof Error && !/ended inside|closed|premature/i.test(error.message)) this.breaches.push(error.message);
    }
    if (isCut) stream.destroy();
    else stream.end();
  }
}

class Session {
  readonly #receiver: ScriptedReceiver;
  readonly #stream: Duplex;
  #begin: BeginPoint | undefined;
  #disks: Uint8Array[] = [];
  readonly #openIds = new Map<number, { readonly ids: Buffer; readonly disk: number; readonly first: number; readonly wanted: number[] }>();

  constructor(receiver: ScriptedReceiver, stream: Duplex) {
    this.#receiver = receiver;
    this.#stream = stream;
  }

  /** false: close the connection. */
  take(frame: Frame): boolean {
    const body = Buffer.from(frame.body);
    switch (frame.type) {
      case frameTypes.begin:
        return this.#takeBegin(parseJsonBody(beginPointShape, frame.body));
      case frameTypes.ids:
        return this.#takeIds(frame, body);
      case frameTypes.blocks:
        return this.#takeBlocks(frame, body);
      case frameTypes.granules:
        return this.#takeGranules(frame, body);
      case frameTypes.end:
        return this.#takeEnd(parseJsonBody(endPointShape, frame.body));
      case frameTypes.fault:
        return false; // The point is dropped.
      case frameTypes.meet:
        this.#stream.write(encodeJsonFrame(frameTypes.met, { kind: "alone", reason: "this receiver knows no groups" }));
        return true;
      case frameTypes.alive:
      case frameTypes.need:
      case frameTypes.taken:
      case frameTypes.sealed:
      case frameTypes.met:
        throw new Error(`the agent sent frame type ${frame.type}`);
    }
  }

  #takeBegin(begin: BeginPoint): boolean {
    const { mischief, begins, points } = this.#receiver;
    begins.push(begin);
    const fault = mischief.faultAtBegin;
    mischief.faultAtBegin = undefined;
    if (fault !== undefined) {
      this.#stream.write(encodeJsonFrame(frameTypes.fault, toReport(fault)));
      return false;
    }
    this.#require(this.#begin === undefined, "a point begins when the one before has ended");
    this.#begin = begin;
    this.#disks = begin.disks.map((disk) => {
      const bytes = new Uint8Array(blockCountOf(disk.sizeBytes) * blockBytes);
      const base = disk.basePointId === undefined ? undefined : points.get(disk.basePointId)?.disks.get(disk.diskId);
      this.#require(disk.mode === "full" || base !== undefined, "a base point is known");
      if (base !== undefined && disk.mode === "delta") bytes.set(base);
      return bytes;
    });
    return true;
  }

  #takeIds(frame: Frame, body: Buffer): boolean {
    const ids = body.subarray(8);
    this.#require(ids.length === frame.count * 32 && this.#openIds.size < unitsInFlightMax, "ids fit the protocol");
    const [disk, first] = [body.readUInt32BE(0), body.readUInt32BE(4)];
    const idAt = (index: number): Buffer => ids.subarray(index * 32, index * 32 + 32);
    const { kept } = this.#receiver;
    const need = Uint8Array.from({ length: frame.count }, (_, index) =>
      idAt(index).some((byte) => byte !== 0) && !kept.has(idAt(index).toString("hex")) ? 1 : 0,
    );
    const wanted = [...need.keys()].filter((index) => need[index] === 1).map((index) => first + index);
    for (let index = 0; index < frame.count; index++) {
      this.#disks[disk]?.fill(0, (first + index) * blockBytes, (first + index + 1) * blockBytes);
      this.#disks[disk]?.set(kept.get(idAt(index).toString("hex")) ?? [], (first + index) * blockBytes);
    }
    if (wanted.length > 0) this.#openIds.set(frame.unit, { ids: Buffer.from(ids), disk, first, wanted });
    this.#stream.write(encodeFrame({ type: frameTypes.need, unit: frame.unit, count: frame.count, body: need }));
    return true;
  }

  #takeBlocks(frame: Frame, body: Buffer): boolean {
    const asked = this.#openIds.get(frame.unit);
    this.#require(
      asked !== undefined && asked.wanted.length === frame.count && asked.disk === body.readUInt32BE(0),
      "exactly the wanted blocks come",
    );
    this.#openIds.delete(frame.unit);
    let at = 4;
    for (const block of asked?.wanted ?? []) {
      this.#require(body.readUInt32BE(at) === block, "blocks come in order");
      const length = body.readUInt32BE(at + 4);
      const raw = unpack(body.readUInt8(at + 8), body.subarray(at + 9, at + 9 + length));
      const id = asked?.ids.subarray((block - asked.first) * 32, (block - asked.first + 1) * 32);
      this.#require(raw.length === blockBytes && id !== undefined && Buffer.compare(blockIdOf(raw), id) === 0, "a block has its digest");
      this.#disks[asked?.disk ?? 0]?.set(raw, block * blockBytes);
      this.#receiver.kept.set(toHex(blockIdOf(raw)), Uint8Array.from(raw));
      at += 9 + length;
    }
    this.#require(at === body.length, "a body ends with its last block");
    this.#stream.write(encodeFrame({ type: frameTypes.taken, unit: frame.unit, count: 0, body: new Uint8Array(0) }));
    return true;
  }

  #takeGranules(frame: Frame, body: Buffer): boolean {
    const disk = this.#disks[body.readUInt32BE(0)];
    const granules = Array.from({ length: frame.count }, (_, index) => body.readUInt32BE(8 + index * 4));
    const at = 8 + frame.count * 4;
    const raw = unpack(body.readUInt8(4), body.subarray(at + 32));
    this.#require(raw.length === frame.count * granuleBytes, "a granules frame has all its bytes");
    this.#require(
      createHash("sha256")
        .update(raw)
        .digest()
        .equals(body.subarray(at, at + 32)),
      "a granules frame has its digest",
    );
    this.#require(
      granules.every((granule, index) => index === 0 || granule > (granules[index - 1] ?? 0)),
      "granules are sorted",
    );
    granules.forEach((granule, index) => disk?.set(raw.subarray(index * granuleBytes, (index + 1) * granuleBytes), granule * granuleBytes));
    this.#stream.write(encodeFrame({ type: frameTypes.taken, unit: frame.unit, count: 0, body: new Uint8Array(0) }));
    return true;
  }

  #takeEnd(end: EndPoint): boolean {
    const begin = this.#begin;
    if (begin === undefined) throw new Error("an end without a begin");
    this.#require(this.#openIds.size === 0 && end.pointId === begin.pointId, "a point ends when its units are finished");
    const disks = new Map(begin.disks.map((disk, index) => [disk.diskId as string, this.#disks[index] ?? new Uint8Array(0)]));
    this.#begin = undefined;
    this.#receiver.points.set(begin.pointId, { begin, end, disks });
    if (this.#receiver.mischief.cutBeforeSealed === true) {
      this.#receiver.mischief.cutBeforeSealed = false;
      return false;
    }
    const roots = begin.disks.map((disk, index) => ({
      diskId: disk.diskId,
      root: parseDigestHex(rootOf(this.#disks[index] ?? new Uint8Array(0))),
    }));
    this.#stream.write(encodeJsonFrame(frameTypes.sealed, { pointId: begin.pointId, roots, storedBytes: 0 }));
    return true;
  }

  #require(condition: boolean, claim: string): void {
    if (!condition) throw new Error(`breach of the protocol: ${claim}`);
  }
}

function unpack(method: number, bytes: Uint8Array): Uint8Array {
  return method === payloadMethods.zstd ? zstdDecompressSync(bytes) : bytes;
}

/** The Merkle root of whole blocks, worked out anew. */
export function rootOf(bytes: Uint8Array): string {
  const blocks = Array.from({ length: bytes.length / blockBytes }, (_, index) =>
    blockIdOf(bytes.subarray(index * blockBytes, (index + 1) * blockBytes)),
  );
  return rootOfBlockIds(Buffer.concat(blocks));
}
