// ApplianceLink: one data connection to the appliance. Sends frames under the window, pairs answers with units, fails as a whole.

import type { Duplex } from "node:stream";
import { assert } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { Semaphore } from "../../base/semaphore.ts";
import { asFault, Fault, fromReport, toReport } from "../../contract/errors.ts";
import {
  encodeFrameHeader,
  encodeJsonFrame,
  FrameError,
  frameFaultShape,
  frameHeaderBytes,
  frameTypes,
  needAnswers,
  parseJsonBody,
  readFrames,
  meetingOutcomeShape,
  sealedPointShape,
  unitsInFlightMin,
  type BeginPoint,
  type EndPoint,
  type Frame,
  type FrameType,
  type Meeting,
  type MeetingOutcome,
  type SealedPoint,
} from "../../contract/agent-frames.ts";
import { digestRowBytes } from "../../disk/block-id.ts";
import { LineWindow } from "./line-window.ts";

export interface LinkOptions {
  readonly transport: Duplex;
  readonly clock: Clock;
  /** Silence while units are unfinished, after which the connection counts as broken. */
  readonly silenceMsMax?: number;
  readonly sealMsMax?: number;
  /** Units that may be under way at this moment; the least of all appliances unless given. */
  readonly unitsInFlightMax?: () => number;
}

/** What the appliance wants of announced blocks: one of needAnswers each, and a row for each that is to be compared. */
export interface Need {
  readonly need: Uint8Array;
  readonly rows: Uint8Array;
}
export interface AnnounceAnswer extends Need {
  readonly unit: number;
}

interface Waiting<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (fault: Fault) => void;
}

export class ApplianceLink implements AsyncDisposable {
  readonly #options: Required<LinkOptions>;
  readonly #needs = new Map<number, Waiting<Need> & { readonly count: number }>();
  readonly #takens = new Map<number, Waiting<void>>();
  readonly #forRoom: Waiting<void>[] = [];
  readonly #forIdle: Waiting<void>[] = [];
  /** Answered in their order. */
  readonly #meetings: Waiting<MeetingOutcome>[] = [];
  readonly #ending = new AbortController();
  readonly #writing = new Semaphore(1);
  /** How much must be under way to fill the line. */
  readonly window: LineWindow;
  #sealing: Waiting<SealedPoint> | undefined;
  #failure: Fault | undefined;
  #lastUnit = 0;
  #unitsInFlight = 0;
  #heardMs: number;
  #sentBytes = 0;

  constructor(options: LinkOptions) {
    this.#options = { silenceMsMax: 120_000, sealMsMax: 900_000, unitsInFlightMax: () => unitsInFlightMin, ...options };
    this.#heardMs = options.clock.monotonicMs();
    this.window = new LineWindow(options.clock);
    options.transport.on("error", (error) => this.#fail(brokenBy(error)));
    void this.#listen();
    void this.#watch();
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  get isBroken(): boolean {
    return this.#failure !== undefined;
  }

  async begin(point: BeginPoint): Promise<void> {
    assert(this.#unitsInFlight === 0, "a point begins when no unit is under way");
    await this.#write([encodeJsonFrame(frameTypes.begin, point)]);
  }

  /** Announces blocks; answers what the appliance wants of them. When nothing is wanted the unit is finished. */
  async announce(ids: { readonly diskIndex: number; readonly firstBlock: number; readonly digests: Uint8Array }): Promise<AnnounceAnswer> {
    const unit = await this.#openUnit();
    const count = ids.digests.length / 32;
    const body = new Uint8Array(8 + ids.digests.length);
    const view = new DataView(body.buffer);
    view.setUint32(0, ids.diskIndex);
    view.setUint32(4, ids.firstBlock);
    body.set(ids.digests, 8);
    const sentMs = this.#options.clock.monotonicMs();
    const answer = new Promise<Need>((resolve, reject) => this.#needs.set(unit, { resolve, reject, count }));
    answer.catch(() => undefined); // Rejected again below; a failure during the write must not count as unhandled.
    await this.#send(frameTypes.ids, { unit, count, parts: [body] });
    const { need, rows } = await answer;
    this.window.noteAnswer(count, sentMs);
    if (!need.includes(needAnswers.send)) this.#closeUnit();
    return { unit, need, rows };
  }

  /**
   * Sends the wanted blocks of an announced unit; resolves when `parts`, the body, have left and may be used anew. That they were taken
   * is known when the round has ended.
   */
  async sendBlocks(unit: number, count: number, parts: readonly Uint8Array[]): Promise<void> {
    this.#closeWhenTaken(unit);
    await this.#send(frameTypes.blocks, { unit, count, parts });
  }

  /** As sendBlocks. */
  async sendGranules(count: number, parts: readonly Uint8Array[]): Promise<void> {
    const unit = await this.#openUnit();
    this.#closeWhenTaken(unit);
    await this.#send(frameTypes.granules, { unit, count, parts });
  }

  /** Resolves when every unit is finished: the round has ended. */
  async roundEnd(): Promise<void> {
    this.#throwIfBroken();
    if (this.#unitsInFlight === 0) return;
    await new Promise<void>((resolve, reject) => this.#forIdle.push({ resolve, reject }));
  }

  async end(point: EndPoint): Promise<SealedPoint> {
    assert(this.#unitsInFlight === 0, "a point ends when no unit is under way");
    const sealed = new Promise<SealedPoint>((resolve, reject) => {
      this.#sealing = { resolve, reject };
    });
    sealed.catch(() => undefined); // Awaited below; a failure during the write must not count as unhandled.
    this.#heardMs = this.#options.clock.monotonicMs();
    await this.#write([encodeJsonFrame(frameTypes.end, point)]);
    return await sealed;
  }

  /** Waits for the other machines of the group at a stage of the point; the appliance bounds the wait. */
  async meet(meeting: Meeting): Promise<MeetingOutcome> {
    const met = new Promise<MeetingOutcome>((resolve, reject) => void this.#meetings.push({ resolve, reject }));
    met.catch(() => undefined); // Awaited below, or given up by a caller whose time was up.
    await this.#write([encodeJsonFrame(frameTypes.meet, meeting)]);
    return await met;
  }

  /** Tells the appliance why the point under way is dropped, and closes: a point can only be begun on a fresh connection then. */
  async abandon(why: Fault): Promise<void> {
    if (this.#failure === undefined) await this.#write([encodeJsonFrame(frameTypes.fault, toReport(why))]).catch(() => undefined); // It broke meanwhile.
    this.#fail(why);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new Fault("AgentProtocolBroken", "the connection to the appliance was closed by the agent"));
    await Promise.resolve();
  }

  #closeWhenTaken(unit: number): void {
    const taken = new Promise<void>((resolve, reject) => this.#takens.set(unit, { resolve, reject }));
    // A failure is the connection's: whoever sends next, or waits for the round's end, hears of it.
    taken.then(
      () => this.#closeUnit(),
      () => undefined,
    );
  }

  async #openUnit(): Promise<number> {
    this.#throwIfBroken();
    if (this.#unitsInFlight >= this.#options.unitsInFlightMax())
      await new Promise<void>((resolve, reject) => this.#forRoom.push({ resolve, reject }));
    else this.#unitsInFlight += 1;
    this.#lastUnit = this.#lastUnit === 0xffff_ffff ? 1 : this.#lastUnit + 1;
    return this.#lastUnit;
  }

  #closeUnit(): void {
    const next = this.#forRoom.shift();
    if (next !== undefined) {
      next.resolve(); // The place goes to the one who waits.
      return;
    }
    this.#unitsInFlight -= 1;
    if (this.#unitsInFlight === 0) for (const waiting of this.#forIdle.splice(0)) waiting.resolve();
  }

  async #send(
    type: FrameType,
    frame: { readonly unit: number; readonly count: number; readonly parts: readonly Uint8Array[] },
  ): Promise<void> {
    const header = new Uint8Array(frameHeaderBytes);
    const bodyLength = frame.parts.reduce((sum, part) => sum + part.length, 0);
    encodeFrameHeader({ type, unit: frame.unit, count: frame.count, bodyLength }, header);
    await this.#write([header, ...frame.parts]);
  }

  /** Frames do not mix, and leave in pieces: what is under way is copied and encrypted once more, so it must be small. Resolves when all left. */
  async #write(parts: readonly Uint8Array[]): Promise<void> {
    await this.#writing.run(async () => {
      for (const piece of piecesOf(parts)) await this.#writePiece(piece);
    });
  }

  async #writePiece(piece: readonly Uint8Array[]): Promise<void> {
    this.#throwIfBroken();
    const { transport } = this.#options;
    await new Promise<void>((resolve, reject) => {
      transport.cork();
      piece.forEach((part, index) => {
        this.#sentBytes += part.length;
        const isLast = index === piece.length - 1;
        transport.write(part, isLast ? (error) => (error ? reject(this.#failure ?? brokenBy(error)) : resolve()) : undefined);
      });
      transport.uncork();
    });
  }

  async #listen(): Promise<void> {
    try {
      for await (const frame of readFrames(this.#options.transport)) {
        this.#heardMs = this.#options.clock.monotonicMs();
        this.#take(frame);
      }
      this.#fail(new Fault("AgentProtocolBroken", "the appliance closed the connection"));
    } catch (error) {
      this.#fail(error instanceof Fault ? error : brokenBy(error));
    }
  }

  #take(frame: Frame): void {
    switch (frame.type) {
      case frameTypes.need:
        return this.#takeNeed(frame);
      case frameTypes.taken: {
        const waiting = this.#takens.get(frame.unit);
        if (waiting === undefined) throw new FrameError(`an answer to unit ${frame.unit}, which is not under way`);
        this.#takens.delete(frame.unit);
        return waiting.resolve();
      }
      case frameTypes.sealed: {
        const waiting = this.#sealing;
        if (waiting === undefined) throw new FrameError("a sealed point that was not ended");
        this.#sealing = undefined;
        return waiting.resolve(parseJsonBody(sealedPointShape, frame.body));
      }
      case frameTypes.alive:
        return; // That it came is all that it says.
      case frameTypes.met: {
        const waiting = this.#meetings.shift();
        if (waiting === undefined) throw new FrameError("an answer to a meeting that was not asked for");
        return waiting.resolve(parseJsonBody(meetingOutcomeShape, frame.body));
      }
      case frameTypes.fault:
        throw fromReport(parseJsonBody(frameFaultShape, frame.body));
      case frameTypes.begin:
      case frameTypes.ids:
      case frameTypes.blocks:
      case frameTypes.granules:
      case frameTypes.end:
      case frameTypes.meet:
        throw new FrameError(`frame type ${frame.type} from the appliance`);
    }
  }

  #takeNeed(frame: Frame): void {
    const waiting = this.#needs.get(frame.unit);
    if (waiting === undefined) throw new FrameError(`an answer to unit ${frame.unit}, which is not under way`);
    const body = frame.body.slice();
    const need = body.subarray(0, waiting.count);
    const compareCount = need.reduce((count, answer) => count + (answer === needAnswers.compare ? 1 : 0), 0);
    if (body.length !== waiting.count + compareCount * digestRowBytes || frame.count !== waiting.count)
      throw new FrameError("an answer of another length than the question");
    this.#needs.delete(frame.unit);
    waiting.resolve({ need, rows: body.subarray(waiting.count) });
  }

  async #watch(): Promise<void> {
    const { clock, silenceMsMax, sealMsMax } = this.#options;
    const { signal } = this.#ending;
    while (!signal.aborted) {
      await clock.sleep(Math.min(5000, silenceMsMax), signal).catch(() => undefined); // Aborted: the loop ends.
      const silentMs = clock.monotonicMs() - this.#heardMs;
      const limitMs = this.#sealing === undefined ? silenceMsMax : sealMsMax;
      if (this.#unitsInFlight === 0 && this.#sealing === undefined) this.#heardMs = clock.monotonicMs();
      else if (silentMs > limitMs)
        this.#fail(new Fault("AgentProtocolBroken", `the appliance was silent for ${Math.round(silentMs / 1000)} s`));
    }
  }

  #throwIfBroken(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(fault: Fault): void {
    if (this.#failure !== undefined) return;
    this.#failure = fault;
    this.#ending.abort();
    const waiting = [
      ...this.#needs.values(),
      ...this.#takens.values(),
      ...this.#forRoom.splice(0),
      ...this.#forIdle.splice(0),
      ...this.#meetings.splice(0),
    ];
    this.#needs.clear();
    this.#takens.clear();
    for (const one of waiting) one.reject(fault);
    this.#sealing?.reject(fault);
    this.#sealing = undefined;
    this.#options.transport.destroy();
  }
}

function brokenBy(error: unknown): Fault {
  if (error instanceof FrameError)
    return new Fault("AgentProtocolBroken", `could not understand the appliance: ${error.message}`, { cause: error });
  return new Fault("AgentProtocolBroken", `the connection to the appliance broke: ${asFault(error, "use it").message}`, { cause: error });
}

const pieceBytesMax = 512 << 10;

/** The same bytes in the same order, in groups of at most pieceBytesMax. */
function* piecesOf(parts: readonly Uint8Array[]): Generator<readonly Uint8Array[]> {
  let piece: Uint8Array[] = [];
  let room = pieceBytesMax;
  for (const part of parts)
    for (let at = 0; at < part.length;) {
      const slice = part.subarray(at, at + room);
      piece.push(slice);
      room -= slice.length;
      at += slice.length;
      if (room > 0) continue;
      yield piece;
      piece = [];
      room = pieceBytesMax;
    }
  if (piece.length > 0) yield piece;
}
