// One agent's data connection: points one after the other, each sealed or dropped whole; faults are told, then the line is closed.

import type { TLSSocket } from "node:tls";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import {
  beginPointShape,
  consistencyOf,
  encodeFrame,
  encodeJsonFrame,
  endPointShape,
  FrameError,
  frameFaultShape,
  frameTypes,
  meetingShape,
  parseJsonBody,
  readFrames,
  type BeginPoint,
  type EndPoint,
  type Frame,
  type Meeting,
  type SealedPoint,
} from "../../contract/agent-frames.ts";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import { parseDigestHex, type MachineId } from "../../contract/ids.ts";
import type { Vault } from "../../vault/vault.ts";
import { checkAgentVersion } from "../control/agent-listener.ts";
import type { Peer } from "../control/json-https.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import type { FlowBook } from "../flow/flow-book.ts";
import type { MachineMeter } from "../flow/machine-meter.ts";
import { BodyPool } from "./body-pool.ts";
import { basePointIdOf, checkBase, checkDisks } from "./check-begin.ts";
import type { GroupPoints, Met } from "./group-points.ts";
import type { PointLedger } from "./point-ledger.ts";
import { PointSession } from "./point-session.ts";

/** A connection on which nothing arrives while something should is given up. */
const silentMsMax = 120_000;
/** Frames with content that are worked on at once; more stay on the line. */
const unitsAtWorkMax = 8;
/** While this side is at work the agent hears of it this often. */
const aliveEveryMs = 20_000;
/** How long a fault frame may take to leave. */
const farewellMsMax = 5_000;
const noRoot = parseDigestHex("0".repeat(64));

export interface IngestParts {
  readonly vault: Vault;
  readonly ledger: PointLedger;
  readonly registry: MachineRegistry;
  readonly clock: Clock;
  readonly log: Log;
  /** Rejects with Fault SpoolFull when no new point may begin. */
  readonly checkSpace: () => Promise<void>;
  readonly groups: GroupPoints;
  /** Told of each fault that ended a point, and of each sealed point (undefined). */
  readonly onOutcome: (peer: Peer, fault: Fault | undefined) => void;
  readonly flow: Pick<FlowBook, "meterOf">;
  /** Called with each piece that a machine's connection received; what it answers is waited for before more is read. */
  readonly pass: (machineId: MachineId, bytes: number, signal: AbortSignal) => Promise<void> | undefined;
  /** How long an agent may be silent when it is its turn; 120 000 unless told. */
  readonly silentMsMax?: number;
  /** How often an agent that waits hears that this side is at work; 20 000 unless told. */
  readonly aliveEveryMs?: number;
}

/** Serves the connection to its end. Never rejects. */
export async function serveIngestConnection(parts: IngestParts, peer: Peer, socket: TLSSocket): Promise<void> {
  const log = parts.log.with({ machineId: peer.machineId });
  const connection = new IngestConnection(parts, peer, socket, log);
  try {
    await connection.serve();
  } catch (error) {
    const fault = toIngestFault(error);
    const isGone = socket.destroyed && fault.code === "AgentProtocolBroken";
    if (!isGone) parts.onOutcome(peer, fault);
    log[fault.code === "Internal" ? "error" : "warn"]("data connection ended", { fault: fault.code, reason: fault.message, isGone });
    await sayFarewell(parts.clock, socket, fault);
  } finally {
    await connection.close().catch((error: unknown) => {
      log.error("point could not be dropped cleanly", { reason: error instanceof Error ? error.message : String(error) });
    });
    socket.destroy();
  }
}

class IngestConnection {
  readonly #parts: IngestParts;
  readonly #peer: Peer;
  readonly #socket: TLSSocket;
  readonly #log: Log;
  readonly #bodies = new BodyPool();
  readonly #meter: MachineMeter;
  readonly #underWay = new Set<Promise<void>>();
  #answeringCount = 0;
  /** What came waits for a limit of the line. */
  #isHeldBack = false;
  #understandsAlive = false;
  /** Rejects with the first fault of a unit under way. */
  readonly #failed = Promise.withResolvers<never>();
  #session: PointSession | undefined;
  #writer: AsyncDisposable | undefined;
  #hold: Disposable | undefined;
  /** How the last meeting with the other machines of the group went; undefined outside a group's point. */
  #met: Met | undefined;

  constructor(parts: IngestParts, peer: Peer, socket: TLSSocket, log: Log) {
    this.#parts = parts;
    this.#peer = peer;
    this.#socket = socket;
    this.#log = log;
    this.#meter = parts.flow.meterOf(peer.machineId);
    this.#failed.promise.catch(() => undefined); // Always raced with what is waited for; never alone.
  }

  async serve(): Promise<void> {
    const socket = this.#socket;
    socket.setTimeout(this.#parts.silentMsMax ?? silentMsMax);
    // While an answer is awaited, as of a seal that waits for a line that is down, it is this side that is silent.
    socket.on("timeout", () => {
      if (!this.#isOurTurn)
        socket.destroy(new Fault("AgentProtocolBroken", "the data connection of an agent broke: nothing arrived for too long"));
    });
    const frames = readFrames(this.#received(), ({ type, bodyLength }) => (hasContent(type) ? this.#bodies.take(bodyLength) : undefined));
    const ended = new AbortController();
    void this.#tellAlive(ended.signal);
    try {
      for (;;) {
        const next = await Promise.race([frames.next(), this.#failed.promise]);
        if (next.done === true) break;
        await this.#accept(next.value);
      }
      await this.#settle();
    } catch (error) {
      void dropRest(frames);
      await Promise.allSettled(this.#underWay);
      throw error;
    } finally {
      ended.abort();
    }
    if (this.#session !== undefined) throw new FrameError("the connection ended inside a point");
  }

  /** The agent waits for this side, not this side for the agent. */
  get #isOurTurn(): boolean {
    return this.#answeringCount > 0 || this.#isHeldBack;
  }

  /** What the line's limits let through. While they hold it back nothing more is read, and so the agent's own line fills up. */
  async *#received(): AsyncGenerator<Uint8Array> {
    const gone = new AbortController();
    this.#socket.once("close", () => gone.abort());
    const chunks: AsyncIterable<Uint8Array> = this.#socket.iterator({ destroyOnReturn: false });
    for await (const chunk of chunks) {
      this.#meter.received(chunk.length);
      const passing = this.#parts.pass(this.#peer.machineId, chunk.length, gone.signal);
      if (passing !== undefined) {
        this.#isHeldBack = true;
        // When the connection is gone the chunks end by themselves.
        await this.#meter.heldBack.during(async () => await passing.catch(() => undefined));
        this.#isHeldBack = false;
      }
      yield chunk;
    }
  }

  async #tellAlive(signal: AbortSignal): Promise<void> {
    const alive = encodeFrame({ type: frameTypes.alive, unit: 0, count: 0, body: new Uint8Array(0) });
    while (!signal.aborted && !this.#socket.destroyed) {
      await this.#parts.clock.sleep(this.#parts.aliveEveryMs ?? aliveEveryMs, signal).catch(() => undefined); // The loop's head sees the abort.
      if (this.#understandsAlive && this.#isOurTurn && !signal.aborted && this.#socket.writable) this.#socket.write(alive);
    }
  }

  /** Starts on a frame. Content is taken in beside each other, up to unitsAtWorkMax; end and begin wait for it. */
  async #accept(frame: Frame): Promise<void> {
    // Announcements are judged one after the other: whether a unit may begin depends on all before it.
    if (frame.type === frameTypes.ids) return await this.#answer(frame);
    if (!hasContent(frame.type)) {
      await this.#settle();
      return await this.#answer(frame);
    }
    const answering = this.#answer(frame).catch((error: unknown) => this.#failed.reject(error));
    this.#underWay.add(answering);
    void answering.then(() => this.#underWay.delete(answering));
    while (this.#underWay.size >= unitsAtWorkMax) await Promise.race([...this.#underWay, this.#failed.promise]);
  }

  async #settle(): Promise<void> {
    await Promise.race([Promise.all(this.#underWay), this.#failed.promise]);
  }

  async #answer(frame: Frame): Promise<void> {
    this.#answeringCount += 1;
    try {
      // At a meeting it is other machines that are waited for.
      const isWork = frame.type !== frameTypes.meet;
      const answer = isWork ? await this.#meter.answering.during(async () => await this.#take(frame)) : await this.#take(frame);
      if (hasContent(frame.type)) this.#bodies.release(frame.body);
      if (answer !== undefined && !this.#socket.write(answer)) await drained(this.#socket);
    } finally {
      this.#answeringCount -= 1;
    }
  }

  async close(): Promise<void> {
    this.#hold?.[Symbol.dispose]();
    await this.#dropPoint();
  }

  async #take(frame: Frame): Promise<Uint8Array | undefined> {
    if (frame.type === frameTypes.fault) {
      const report = parseJsonBody(frameFaultShape, frame.body);
      this.#log.warn("agent gave a point up", { fault: report.id, reason: report.message.slice(0, 400) });
      await this.#dropPoint();
      return undefined;
    }
    if (frame.type === frameTypes.begin) {
      await this.#begin(parseJsonBody(beginPointShape, frame.body));
      return undefined;
    }
    if (this.#session === undefined) throw new FrameError(`frame type ${frame.type} outside a point`);
    if (frame.type === frameTypes.end) return await this.#end(this.#session, parseJsonBody(endPointShape, frame.body));
    if (frame.type === frameTypes.meet) return await this.#meet(parseJsonBody(meetingShape, frame.body));
    return await this.#session.take(frame);
  }

  /** Who hangs up while it is waited for has left: the others are told at once. */
  async #meet(meeting: Meeting): Promise<Uint8Array> {
    const left = new AbortController();
    const onClose = (): void => left.abort();
    this.#socket.once("close", onClose);
    if (this.#socket.destroyed) left.abort();
    try {
      this.#met = await this.#parts.groups.meet({ ...meeting, machineId: this.#peer.machineId }, left.signal);
    } finally {
      this.#socket.off("close", onClose);
    }
    return encodeJsonFrame(frameTypes.met, this.#met.outcome);
  }

  async #begin(begin: BeginPoint): Promise<void> {
    if (this.#session !== undefined) throw new FrameError("a point begins inside another");
    const { vault, ledger, registry } = this.#parts;
    const { machineId, certificateDigest } = this.#peer;
    checkAgentVersion(begin.protocolVersion);
    checkDisks(begin);
    this.#understandsAlive = begin.features?.includes("alive") === true;
    const machine = registry.admit(machineId, certificateDigest, begin.bootId);
    if (machine.protectedBy === undefined) {
      throw new Fault("StateConflict", `refused a recovery point: machine ${machine.facts.hostname} is not protected`, {
        evidence: { machineId },
      });
    }
    this.#hold ??= registry.holdAlive(machineId, begin.bootId);
    await this.#parts.checkSpace();
    const basePointId = basePointIdOf(begin);
    if (basePointId !== undefined) {
      const basePoint = await vault.point(basePointId);
      // Of a machine that another appliance had before, only the agent knows the newest point; the vault vouches for it.
      const vouched = basePoint?.machineId === machineId ? basePointId : undefined;
      const newestPointId = ledger.newestOf(machineId)?.pointId ?? vouched;
      checkBase(begin, { machineId, basePoint, baseBootId: ledger.bootIdOf(basePointId), newestPointId });
    }
    const writer = await vault.beginPoint({
      pointId: begin.pointId,
      machineId,
      ...(basePointId === undefined ? {} : { parentPointId: basePointId }),
      disks: begin.disks.map(({ diskId, sizeBytes, isBoot, excluded }) => ({ diskId, sizeBytes, isBoot, excluded })),
    });
    this.#writer = writer;
    this.#session = new PointSession(begin, writer, this.#meter);
    this.#meter.pointBegan();
    this.#log.debug("point began", {
      pointId: begin.pointId,
      modes: Object.fromEntries(begin.disks.map(({ diskId, mode }) => [diskId, mode])),
    });
  }

  async #end(session: PointSession, end: EndPoint): Promise<Uint8Array> {
    const { ledger } = this.#parts;
    const { begin } = session;
    this.#meter.pointEnded();
    ledger.prepare({
      report: this.#draft(session, end),
      bootId: begin.bootId,
      repairedBlockCount: session.changedBlockCount,
    });
    const outcome = await session.end(end).catch((error: unknown) => {
      ledger.drop(begin.pointId);
      throw error;
    });
    const report = ledger.complete(outcome);
    await this.#closePoint("sealed");
    this.#parts.onOutcome(this.#peer, undefined);
    this.#log.info("recovery point sealed", {
      pointId: begin.pointId,
      mode: report.mode,
      consistency: report.consistency,
      receivedBytes: report.sentBytes,
      storedBytes: report.storedBytes,
    });
    const sealed: SealedPoint = {
      pointId: begin.pointId,
      roots: report.disks.map(({ diskId, root }) => ({ diskId, root })),
      // What other machines had stored is not to be told to this one.
      storedBytes: outcome.storedBytes + outcome.sharedBytes,
    };
    return encodeJsonFrame(frameTypes.sealed, sealed);
  }

  #draft(session: PointSession, end: EndPoint): SealedPointReport {
    const { begin } = session;
    const modes = new Set(begin.disks.map((disk) => disk.mode));
    return {
      pointId: begin.pointId,
      machineId: this.#peer.machineId,
      timeMs: end.timeMs,
      sealedAt: toTimestamp(this.#parts.clock.nowMs()),
      consistency: consistencyOf(begin, end),
      disks: begin.disks.map(({ diskId, sizeBytes, isBoot }) => ({ diskId, sizeBytes, isBoot, root: noRoot })),
      readBytes: end.readBytes,
      sentBytes: session.receivedBytes,
      storedBytes: 0,
      frozenMs: end.frozenMs,
      mode: modes.has("full") ? "full" : modes.has("checksum") ? "checksum" : "delta",
      ...(end.pause === undefined ? {} : { pause: end.pause }),
      ...(end.application === undefined ? {} : { application: end.application }),
      ...this.#groupPartOf(end),
    };
  }

  /** Both must say so: the agent that its point shows the moment, this side that all were frozen then. */
  #groupPartOf({ group }: EndPoint): Pick<SealedPointReport, "group" | "groupFault"> {
    const met = this.#met;
    if (group === undefined || met === undefined) return {};
    if (group.kind === "together" && met.moment !== undefined) return { group: met.moment };
    const reason = group.kind === "alone" ? group.reason : "its point does not show the common moment";
    const fault = new Fault("GroupPointMissed", `could not make a point of the whole group: ${reason}`, { evidence: { reason } });
    return { groupFault: met.fault ?? toReport(fault) };
  }

  /** Leaves nothing visible of a point that was not sealed. */
  async #dropPoint(): Promise<void> {
    await this.#closePoint("dropped");
  }

  async #closePoint(outcome: "sealed" | "dropped"): Promise<void> {
    const writer = this.#writer;
    if (this.#session !== undefined) this.#meter.pointClosed(outcome);
    this.#met = undefined;
    this.#session = undefined;
    this.#writer = undefined;
    await writer?.[Symbol.asyncDispose]();
  }
}

/** What an agent still sends after a fault is read and dropped, or its full buffers would keep it from reading the fault. */
async function dropRest(frames: AsyncGenerator<Frame>): Promise<void> {
  try {
    while ((await frames.next()).done !== true);
  } catch {
    // The connection is given up already; what broke it first has been told.
  }
}

function toIngestFault(error: unknown): Fault {
  if (error instanceof FrameError) {
    return new Fault("AgentProtocolBroken", `refused an agent's data: ${error.message}`, { cause: error });
  }
  if (error instanceof Error && !(error instanceof Fault) && "code" in error) {
    return new Fault("AgentProtocolBroken", "the data connection of an agent broke", { cause: error });
  }
  return asFault(error, "take in a recovery point");
}

async function drained(socket: TLSSocket): Promise<void> {
  const gone = (): Error => Object.assign(new Error("the agent is gone"), { code: "ECONNRESET" });
  // A socket that broke before this write tells neither drain nor close any more.
  if (socket.destroyed) throw gone();
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      socket.off("drain", settle);
      socket.off("close", settle);
      if (socket.destroyed) reject(gone());
      else resolve();
    };
    socket.once("drain", settle);
    socket.once("close", settle);
  });
}

/** Tells the fault and waits until it has left, but not for ever: an agent that does not read gets nothing. */
async function sayFarewell(clock: Clock, socket: TLSSocket, fault: Fault): Promise<void> {
  if (socket.destroyed || !socket.writable) return;
  const ended = new AbortController();
  const left = new Promise<void>((resolve) => {
    socket.once("error", () => resolve());
    socket.once("close", () => resolve());
    socket.end(encodeJsonFrame(frameTypes.fault, toReport(fault)), () => resolve());
  });
  // What the agent still sends is read and dropped, or its full buffers would keep it from reading the fault.
  socket.resume();
  await Promise.race([left, clock.sleep(farewellMsMax, ended.signal).catch(() => undefined)]); // The timer only bounds the wait.
  ended.abort();
}

function hasContent(type: number): boolean {
  return type === frameTypes.blocks || type === frameTypes.granules;
}
