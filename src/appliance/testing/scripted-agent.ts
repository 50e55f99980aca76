// For tests: an agent that does exactly what a test says, over the real ports.

import { createHash, createHmac, hash, randomUUID } from "node:crypto";
import { request } from "node:https";
import { connect, type TLSSocket } from "node:tls";
import { zstdCompressSync } from "node:zlib";
import {
  agentProtocolVersion,
  agentRoutes,
  registerResponseShape,
  type MachineFacts,
  type OrderResult,
} from "../../contract/agent-control.ts";
import {
  encodeFrame,
  encodeJsonFrame,
  frameTypes,
  needAnswers,
  parseJsonBody,
  readFrames,
  sealedPointShape,
  type BeginPoint,
  type Frame,
  type SealedPoint,
} from "../../contract/agent-frames.ts";
import { parseDiskId, parsePointId, type DiskId, type MachineId, type PointId } from "../../contract/ids.ts";
import { blockBytes, blockCountOf, granuleBytes } from "../../disk/geometry.ts";
import { applianceDnsName, createSigningRequest } from "../identity/site-authority.ts";

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** One HTTPS request on a connection of its own. */
async function post(options: {
  readonly port: number;
  readonly path: string;
  readonly body: unknown;
  readonly caPem: string;
  readonly identity?: AgentIdentity;
  readonly signal?: AbortSignal;
}): Promise<Answer> {
  const bytes = Buffer.from(JSON.stringify(options.body));
  return await new Promise((resolve, reject) => {
    const call = request(
      {
        host: "127.0.0.1",
        port: options.port,
        path: options.path,
        method: "POST",
        ca: options.caPem,
        servername: applianceDnsName,
        agent: false,
        headers: { "content-type": "application/json", "content-length": bytes.length },
        ...(options.identity === undefined ? {} : { cert: options.identity.certPem, key: options.identity.keyPem }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString("utf8")) as unknown }),
        );
        response.on("error", reject);
      },
    );
    call.on("error", reject);
    call.end(bytes);
  });
}

export function createFacts(over: Partial<MachineFacts> = {}): MachineFacts {
  return {
    hostname: "ledger1",
    smbiosUuid: randomUUID(),
    osMachineId: randomUUID().replaceAll("-", ""),
    bootId: randomUUID(),
    osName: "Debian GNU/Linux 12 (bookworm)",
    kernelRelease: "6.1.0",
    firmware: "bios",
    cpuCount: 1,
    memoryBytes: 2 ** 30,
    addresses: ["127.0.0.1"],
    nics: [],
    disks: [],
    ...over,
  };
}

export interface AgentIdentity {
  readonly machineId: MachineId;
  readonly certPem: string;
  readonly keyPem: string;
}

export interface Ports {
  readonly controlPort: number;
  readonly dataPort: number;
  readonly caPem: string;
}

export async function registerAgent(ports: Ports, facts: MachineFacts, passphrase: string): Promise<AgentIdentity> {
  const { answer, keyPem } = await tryRegister(ports, facts, passphrase);
  if (answer.status !== 200) throw new Error(`registration was answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  const { machineId, certificatePem } = registerResponseShape.parse(answer.body);
  return { machineId, certPem: certificatePem, keyPem };
}

export async function tryRegister(
  ports: Ports,
  facts: MachineFacts,
  passphrase: string,
): Promise<{ readonly answer: Answer; readonly keyPem: string }> {
  const { csrPem, keyPem } = await createSigningRequest("agent");
  const proof = createHmac("sha256", passphrase).update(csrPem).digest("hex");
  const answer = await post({
    port: ports.controlPort,
    path: agentRoutes.register,
    caPem: ports.caPem,
    body: { protocolVersion: agentProtocolVersion, agentVersion: "0.0.1", csrPem, proof, facts },
  });
  return { answer, keyPem };
}

export interface PollOptions {
  readonly waitSeconds?: number;
  readonly results?: readonly OrderResult[];
  readonly machineId?: string;
  readonly signal?: AbortSignal;
}

export async function poll(ports: Ports, identity: AgentIdentity, facts: MachineFacts, options: PollOptions = {}): Promise<Answer> {
  const state = { phase: "idle", disks: [], readBytes: 0, sentBytes: 0, residentBytes: 0, cpuSeconds: 0, pointCount: 0 };
  return await post({
    port: ports.controlPort,
    path: agentRoutes.poll,
    caPem: ports.caPem,
    identity,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    body: {
      protocolVersion: agentProtocolVersion,
      machineId: options.machineId ?? identity.machineId,
      agentVersion: "0.0.1",
      facts,
      state,
      results: options.results ?? [],
      waitSeconds: options.waitSeconds ?? 0,
    },
  });
}

/** A data connection whose frames the test writes and reads itself. */
export class DataLine implements AsyncDisposable {
  readonly socket: TLSSocket;
  readonly #frames: AsyncGenerator<Frame, void, undefined>;
  #unit = 0;

  private constructor(socket: TLSSocket) {
    this.socket = socket;
    this.#frames = readFrames(socket);
  }

  static async open(ports: Ports, identity: Pick<AgentIdentity, "certPem" | "keyPem">): Promise<DataLine> {
    const socket = connect({
      host: "127.0.0.1",
      port: ports.dataPort,
      ca: ports.caPem,
      cert: identity.certPem,
      key: identity.keyPem,
      servername: applianceDnsName,
    });
    await new Promise<void>((resolve, reject) => {
      socket.once("secureConnect", () => resolve());
      socket.once("error", reject);
    });
    socket.on("error", () => undefined); // Tests look at what they read.
    return new DataLine(socket);
  }

  send(frame: Uint8Array): void {
    this.socket.write(frame);
  }

  sendFrame(frame: Frame): void {
    this.send(encodeFrame(frame));
  }

  /** The next frame; undefined when the other side has closed the line. */
  async next(): Promise<Frame | undefined> {
    const step = await this.#frames.next();
    return step.done === true ? undefined : step.value;
  }

  nextUnit(): number {
    this.#unit += 1;
    return this.#unit;
  }

  begin(begin: BeginPoint): void {
    this.send(encodeJsonFrame(frameTypes.begin, begin));
  }

  async end(pointId: PointId, over: Record<string, unknown> = {}): Promise<SealedPoint> {
    this.send(encodeJsonFrame(frameTypes.end, { pointId, timeMs: 1, frozenMs: 1, readBytes: 0, sourceRoots: [], ...over }));
    const frame = await this.next();
    if (frame?.type !== frameTypes.sealed) throw new Error(`not sealed: ${frame === undefined ? "closed" : text(frame)}`);
    return parseJsonBody(sealedPointShape, frame.body);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.destroy();
    await Promise.resolve();
  }
}

export function text(frame: Frame): string {
  return Buffer.from(frame.body).toString("utf8");
}

export function createBegin(over: Partial<BeginPoint> & Pick<BeginPoint, "bootId" | "disks">): BeginPoint {
  return { protocolVersion: agentProtocolVersion, pointId: parsePointId(randomUUID()), consistency: "crash", ...over };
}

export function wholeDisk(sizeBytes: number, diskId: DiskId = parseDiskId("disk-1")): BeginPoint["disks"][number] {
  return { diskId, sizeBytes, isBoot: true, excluded: [], mode: "full", reason: "first copy" };
}

export function blockOf(content: Uint8Array, block: number): Uint8Array {
  const bytes = new Uint8Array(blockBytes);
  bytes.set(content.subarray(block * blockBytes, (block + 1) * blockBytes));
  return bytes;
}

/** Id of a block by the page of the vault's format: the digests of its granules, zeros for a granule of zeros, digested. */
export function idOf(block: Uint8Array): Uint8Array {
  const granules = Array.from({ length: 16 }, (_, index) => digestOf(block.subarray(index * 4096, (index + 1) * 4096)));
  return digestOf(Buffer.concat(granules));
}

function digestOf(bytes: Uint8Array): Uint8Array {
  return bytes.every((byte) => byte === 0) ? new Uint8Array(32) : createHash("sha256").update(bytes).digest();
}

export function idsFrame(unit: number, diskIndex: number, firstBlock: number, ids: readonly Uint8Array[]): Frame {
  return { type: frameTypes.ids, unit, count: ids.length, body: Buffer.concat([u32(diskIndex), u32(firstBlock), ...ids]) };
}

export function blocksFrame(
  unit: number,
  diskIndex: number,
  blocks: readonly { readonly block: number; readonly bytes: Uint8Array }[],
): Frame {
  const parts = blocks.flatMap(({ block, bytes }) => {
    const packed = zstdCompressSync(bytes);
    const [method, payload] = packed.length < bytes.length ? [1, packed] : [0, bytes];
    return [u32(block), u32(payload.length), Uint8Array.of(method), payload];
  });
  return { type: frameTypes.blocks, unit, count: blocks.length, body: Buffer.concat([u32(diskIndex), ...parts]) };
}

export function granulesFrame(
  unit: number,
  diskIndex: number,
  granules: readonly { readonly granule: number; readonly bytes: Uint8Array }[],
): Frame {
  const raw = Buffer.concat(granules.map((each) => each.bytes));
  const head = [u32(diskIndex), Uint8Array.of(1, 0, 0, 0), ...granules.map((each) => u32(each.granule)), hash("sha256", raw, "buffer")];
  return { type: frameTypes.granules, unit, count: granules.length, body: Buffer.concat([...head, zstdCompressSync(raw)]) };
}

/** Announces and sends every block of a disk, unit by unit. Answers the codes that the appliance gave. */
export async function sendWholeDisk(line: DataLine, diskIndex: number, content: Uint8Array, unitBlocks = 16): Promise<number[]> {
  const codes: number[] = [];
  const blockCount = blockCountOf(content.length);
  for (let first = 0; first < blockCount; first += unitBlocks) {
    const blocks = Array.from({ length: Math.min(unitBlocks, blockCount - first) }, (_, index) => blockOf(content, first + index));
    const unit = line.nextUnit();
    line.sendFrame(idsFrame(unit, diskIndex, first, blocks.map(idOf)));
    const need = await line.next();
    if (need?.type !== frameTypes.need || need.unit !== unit) throw new Error(`no need: ${need === undefined ? "closed" : text(need)}`);
    const answers = need.body.subarray(0, blocks.length);
    codes.push(...answers);
    const wanted = blocks.map((bytes, index) => ({ block: first + index, bytes })).filter((_, index) => answers[index] === 1);
    if (wanted.length > 0) {
      line.sendFrame(blocksFrame(unit, diskIndex, wanted));
      const taken = await line.next();
      if (taken?.type !== frameTypes.taken || taken.unit !== unit)
        throw new Error(`not taken: ${taken === undefined ? "closed" : text(taken)}`);
    }
    const others = [...answers.keys()]
      .filter((index) => answers[index] === needAnswers.compare)
      .flatMap((index, place) =>
        otherGranules(blocks[index] ?? new Uint8Array(0), rowAt(need.body, blocks.length, place)).map(
          (granule) => (first + index) * 16 + granule,
        ),
      );
    if (others.length > 0) await sendGranules(line, diskIndex, content, others);
  }
  return codes;
}

/** The row of the `place`th compared block, behind the answers of a need frame. */
export function rowAt(needBody: Uint8Array, answerCount: number, place: number): Uint8Array {
  return needBody.subarray(answerCount + place * 512, answerCount + (place + 1) * 512);
}

/** Granules of a block whose digests are not those of the row. */
export function otherGranules(block: Uint8Array, row: Uint8Array): number[] {
  const digests = Array.from({ length: 16 }, (_, granule) => digestOf(block.subarray(granule * 4096, (granule + 1) * 4096)));
  return [...digests.keys()].filter(
    (granule) => Buffer.compare(digests[granule] ?? row, row.subarray(granule * 32, (granule + 1) * 32)) !== 0,
  );
}

export async function sendGranules(line: DataLine, diskIndex: number, content: Uint8Array, granules: readonly number[]): Promise<void> {
  const unit = line.nextUnit();
  const cut = (granule: number): Uint8Array => {
    const bytes = new Uint8Array(granuleBytes);
    bytes.set(content.subarray(granule * granuleBytes, (granule + 1) * granuleBytes));
    return bytes;
  };
  line.sendFrame(
    granulesFrame(
      unit,
      diskIndex,
      granules.map((granule) => ({ granule, bytes: cut(granule) })),
    ),
  );
  const taken = await line.next();
  if (taken?.type !== frameTypes.taken) throw new Error(`not taken: ${taken === undefined ? "closed" : text(taken)}`);
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}
