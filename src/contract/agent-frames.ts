// Binary frames between agent and appliance on port 9443: codec, limits and message bodies. Big-endian throughout.

import { z } from "zod";
import { applicationOutcomeShape, byteRangeShape, pauseShape } from "./agent-control.ts";
import { countShape, digestShape, diskIdShape, faultReportShape, pointIdShape } from "./shapes.ts";

/**
 * Header, 16 bytes: u8 type, u8 zero, u16 zero, u32 unit, u32 count, u32 body length.
 * `unit` ties an answer to its question; `count` is the number of items in the body.
 */
export const frameHeaderBytes = 16;
/** Largest body: a 4 MiB unit that did not compress, with its entry headers. */
export const frameBodyBytesMax = (4 << 20) + (256 << 10);

export const frameTypes = {
  /** agent → appliance, JSON BeginPoint. First frame of a recovery point. */
  begin: 1,
  /** agent → appliance. Body: u32 disk index, u32 first block, count × 32-byte digests of consecutive blocks; all zero bytes = zero block. */
  ids: 2,
  /** appliance → agent, answers `ids` with the same unit. Body: count bytes of needAnswers, then the row of each `compare`, 512 bytes. */
  need: 3,
  /** agent → appliance. Body: u32 disk index, then count × {u32 block, u32 payload length, u8 method, payload}: blocks announced by `ids` of the same unit. */
  blocks: 4,
  /** agent → appliance. Body: u32 disk index, u8 method, 3 zero bytes, count × u32 granule, 32-byte SHA-256 of the raw bytes, payload = count × 4 KiB, compressed by method. */
  granules: 5,
  /** appliance → agent, answers `blocks` and `granules` with the same unit: taken in and checked (not yet durable). Frees the sender's window. */
  taken: 6,
  /** agent → appliance, JSON EndPoint. Last frame of a recovery point. */
  end: 7,
  /** appliance → agent, JSON SealedPoint: the point is durable and sealed in the vault. */
  sealed: 8,
  /** agent → appliance, JSON Meeting: the machine has come to a stage of its group's point. The agent sends nothing more until the answer. */
  meet: 11,
  /** appliance → agent, JSON MeetingOutcome, answers `meet`. */
  met: 12,
  /** Either way, JSON FaultReport; the point under way is dropped, the connection is closed by the sender. */
  fault: 9,
  /** appliance → agent, empty: it is still at work on what it was sent. Only to an agent that names the feature in `begin`. */
  alive: 10,
} as const;
export type FrameType = (typeof frameTypes)[keyof typeof frameTypes];

/**
 * have: nothing to do. send: the vault lacks it. moved: the vault has it, but the base point holds another block there. compare: the vault
 * lacks it, and tells the digests of the granules that the base point holds there: those that differ are to be sent. The last two only in
 * mode checksum.
 */
export const needAnswers = { have: 0, send: 1, moved: 2, compare: 3 } as const;
/** Blocks of one unit that may be compared. */
export const comparedBlocksMax = 12;
/** Payload compression. */
export const payloadMethods = { raw: 0, zstd: 1 } as const;
/** Granules in one `granules` frame. */
export const granulesPerFrameMax = 256;
/** Blocks in one `ids` or `blocks` frame: 4 MiB. */
export const blocksPerFrameMax = 64;
/** Units (ids, blocks, granules frames without their answer) that an agent may have under way at an appliance that does not say how many. */
export const unitsInFlightMin = 8;
/** What this appliance takes: 256 MiB of a disk, twice the way of 1 Gbit/s and half a second. */
export const unitsInFlightMax = 64;

export const beginPointShape = z.object({
  protocolVersion: countShape,
  pointId: pointIdShape,
  /** Boot id of the source: a connection of an earlier boot is refused. */
  bootId: z.string().max(64),
  consistency: z.enum(["crash", "application", "final"]),
  /** What the agent understands beyond the first version: "alive". */
  features: z.array(z.string().max(40)).max(16).exactOptional(),
  disks: z
    .array(
      z.object({
        diskId: diskIdShape,
        sizeBytes: countShape,
        isBoot: z.boolean(),
        excluded: z.array(byteRangeShape).max(256),
        /** full: every block is announced with `ids`. delta: only what changed since basePointId. checksum: as full, compared with basePointId. */
        mode: z.enum(["full", "delta", "checksum"]),
        basePointId: pointIdShape.optional(),
        reason: z.string().max(400),
      }),
    )
    .min(1)
    .max(64),
});
export type BeginPoint = z.infer<typeof beginPointShape>;

export const endPointShape = z.object({
  pointId: pointIdShape,
  /** The instant that the point shows, milliseconds since 1970 by the source's clock. */
  timeMs: countShape,
  frozenMs: z.number().nonnegative(),
  /** What the time of the freeze went into. */
  pause: pauseShape.optional(),
  /** Bytes read from the disks for this point, all rounds. */
  readBytes: countShape,
  /** Only for consistency "final": roots that the agent computed from the source. */
  sourceRoots: z.array(z.object({ diskId: diskIdShape, root: digestShape })).max(64),
  /** Makes a point that began as "crash" an "application" one when the applications rested. */
  application: applicationOutcomeShape.optional(),
  /** The point shows the moment at which all machines of the group were frozen; or why it does not. Absent from machines without a group. */
  group: z
    .discriminatedUnion("kind", [
      z.object({ kind: z.literal("together") }),
      z.object({ kind: z.literal("alone"), reason: z.string().max(1000) }),
    ])
    .optional(),
});
export type EndPoint = z.infer<typeof endPointShape>;

/**
 * The stages at which the machines of a group wait for each other. ready: little is left to send. prepared: the filesystems were
 * synced and freeze next. frozen: they are frozen; the moment at which all are is the moment of the group's point.
 */
export const meetingShape = z.object({
  stage: z.enum(["ready", "prepared", "frozen"]),
  /** Of stage ready: the policy asks this machine for an application-consistent point now. */
  wantsApplication: z.boolean().optional(),
});
export type Meeting = z.infer<typeof meetingShape>;

export const meetingOutcomeShape = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("together"),
    /** Of stage ready: one of the machines wants an application-consistent point, so all make one. */
    isApplication: z.boolean(),
  }),
  /** Another machine did not come: this one makes its point for itself. */
  z.object({ kind: z.literal("alone"), reason: z.string().max(1000) }),
]);
export type MeetingOutcome = z.infer<typeof meetingOutcomeShape>;

/** What a point turned out to be; only its end can tell. */
export function consistencyOf(begin: BeginPoint, end: EndPoint): BeginPoint["consistency"] {
  return begin.consistency === "crash" && end.application?.isConsistent === true ? "application" : begin.consistency;
}

export const sealedPointShape = z.object({
  pointId: pointIdShape,
  roots: z.array(z.object({ diskId: diskIdShape, root: digestShape })).max(64),
  storedBytes: countShape,
});
export type SealedPoint = z.infer<typeof sealedPointShape>;

export const frameFaultShape = faultReportShape;

export interface Frame {
  readonly type: FrameType;
  readonly unit: number;
  readonly count: number;
  readonly body: Uint8Array;
}

/** Bytes that cannot be a frame: the connection is beyond repair. */
export class FrameError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "FrameError";
  }
}

const knownTypes = new Set<number>(Object.values(frameTypes));
const isFrameType = (value: number): value is FrameType => knownTypes.has(value);

export interface FrameHeader {
  readonly type: FrameType;
  readonly unit: number;
  readonly count: number;
  readonly bodyLength: number;
}

/** Writes a header into `into` at `offset`. */
export function encodeFrameHeader(header: FrameHeader, into: Uint8Array, offset = 0): void {
  const view = new DataView(into.buffer, into.byteOffset + offset, frameHeaderBytes);
  view.setUint8(0, header.type);
  view.setUint8(1, 0);
  view.setUint16(2, 0);
  view.setUint32(4, header.unit);
  view.setUint32(8, header.count);
  view.setUint32(12, header.bodyLength);
}

/** Reads a header; throws FrameError on an unknown type, non-zero padding or a body over the limit. */
export function parseFrameHeader(bytes: Uint8Array): FrameHeader {
  if (bytes.length < frameHeaderBytes) throw new FrameError(`header of ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, frameHeaderBytes);
  const type = view.getUint8(0);
  if (!isFrameType(type)) throw new FrameError(`unknown frame type ${type}`);
  if (view.getUint8(1) !== 0 || view.getUint16(2) !== 0) throw new FrameError("reserved header bytes are not zero");
  const bodyLength = view.getUint32(12);
  if (bodyLength > frameBodyBytesMax) throw new FrameError(`body of ${bodyLength} bytes is over the limit of ${frameBodyBytesMax}`);
  return { type, unit: view.getUint32(4), count: view.getUint32(8), bodyLength };
}

export function encodeFrame(frame: Frame): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes + frame.body.length);
  encodeFrameHeader({ type: frame.type, unit: frame.unit, count: frame.count, bodyLength: frame.body.length }, bytes);
  bytes.set(frame.body, frameHeaderBytes);
  return bytes;
}

export function encodeJsonFrame(type: FrameType, value: unknown): Uint8Array {
  return encodeFrame({ type, unit: 0, count: 0, body: new TextEncoder().encode(JSON.stringify(value)) });
}

/** Parses a JSON body with its schema; throws FrameError when it does not fit. */
export function parseJsonBody<T>(shape: z.ZodType<T>, body: Uint8Array): T {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    throw new FrameError(`body is not JSON: ${error instanceof Error ? error.message : "unreadable"}`);
  }
  const parsed = shape.safeParse(value);
  if (!parsed.success)
    throw new FrameError(
      `body does not fit: ${parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ")}`,
    );
  return parsed.data;
}

/** Gives memory for a frame's body; undefined: a body of its own will do. */
export type BodyMemory = (header: FrameHeader) => Uint8Array | undefined;

/** Cuts a byte stream into frames. Bodies lie in the memory that `bodyMemory` gives, else they are views into chunks where possible. */
export async function* readFrames(
  stream: AsyncIterable<Uint8Array>,
  bodyMemory: BodyMemory = () => undefined,
): AsyncGenerator<Frame, void, undefined> {
  let pending: Uint8Array[] = [];
  let pendingBytes = 0;
  let header: FrameHeader | undefined;
  const take = (byteCount: number, memory?: Uint8Array): Uint8Array => {
    const first = pending[0];
    if (memory === undefined && first !== undefined && first.length >= byteCount) {
      pending[0] = first.subarray(byteCount);
      if (first.length === byteCount) pending.shift();
      pendingBytes -= byteCount;
      return first.subarray(0, byteCount);
    }
    const taken = memory ?? new Uint8Array(byteCount);
    let filled = 0;
    while (filled < byteCount) {
      const chunk = pending[0];
      if (chunk === undefined) throw new FrameError("cut frame");
      const part = chunk.subarray(0, byteCount - filled);
      taken.set(part, filled);
      filled += part.length;
      if (part.length === chunk.length) pending.shift();
      else pending[0] = chunk.subarray(part.length);
    }
    pendingBytes -= byteCount;
    return taken;
  };
  for await (const chunk of stream) {
    if (chunk.length === 0) continue;
    pending.push(chunk);
    pendingBytes += chunk.length;
    for (;;) {
      if (header === undefined) {
        if (pendingBytes < frameHeaderBytes) break;
        header = parseFrameHeader(take(frameHeaderBytes));
      }
      if (pendingBytes < header.bodyLength) break;
      const body = header.bodyLength === 0 ? new Uint8Array(0) : take(header.bodyLength, bodyMemory(header));
      const frame: Frame = { type: header.type, unit: header.unit, count: header.count, body };
      header = undefined;
      yield frame;
    }
  }
  if (pendingBytes > 0 || header !== undefined) throw new FrameError("the stream ended inside a frame");
  pending = [];
}
