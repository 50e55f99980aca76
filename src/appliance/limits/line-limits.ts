// LineLimits: the limits that operators gave, kept in the state, and the lines that they hold on; changes take hold at once.

import { toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import {
  lineLimitsShape,
  type LimitScope,
  type LimitsChange,
  type LimitsState,
  type LineLimit,
  type LineLimits as Limits,
  type LineState,
} from "../../contract/line-limits.ts";
import { readJson, type StateDatabase } from "../state/database.ts";
import { isSamePlace, isTimeZone, limitInForce, systemTimeZone, type LimitInForce } from "./limit-in-force.ts";
import { Line } from "./line.ts";

const limitsMax = 512;
/** How long what is in force is taken for granted: windows open and close on minutes. */
const inForceMsMax = 1000;
/** A TLS 1.3 record holds up to 16 KiB and costs 22 bytes more. */
const recordBytes = 16_384;
const recordOverheadBytes = 22;

export interface LineLimitsParts {
  readonly database: StateDatabase;
  readonly clock: Clock;
  readonly log: Log;
}

interface Place {
  readonly scope: LimitScope;
  readonly machineId?: MachineId;
}

interface KeptLine extends Place {
  readonly line: Line;
  inForce: LimitInForce;
  /** When inForce was found; undefined: to be found anew. */
  foundMs: number | undefined;
}

/** What holds all agents back beside the limits that operators gave. */
export interface AgentsThrottle {
  readonly bytesPerSecond: number;
  readonly reason: string;
}

export class LineLimits {
  readonly #parts: LineLimitsParts;
  readonly #lines = new Map<string, KeptLine>();
  #limits: Limits;
  #throttle: AgentsThrottle | undefined;

  constructor(parts: LineLimitsParts) {
    this.#parts = parts;
    const row = parts.database.one("SELECT body FROM line_limits WHERE id = 1");
    this.#limits = row === undefined ? { limits: [] } : readJson(lineLimitsShape, row, "body");
  }

  get timeZone(): string {
    return this.#limits.timeZone ?? systemTimeZone();
  }

  /** Durable on return, and in force. Throws InputInvalid and changes nothing when the change does not fit. */
  change({ timeZone, remove, set }: LimitsChange): LimitsState {
    if (timeZone !== undefined && !isTimeZone(timeZone))
      throw new Fault("InputInvalid", `could not change the limits: this system knows no time zone ${timeZone}`, {
        action: "give a name of the IANA time zone database, for example Europe/Berlin or UTC",
      });
    const gone = [...remove, ...set];
    const kept = this.#limits.limits.filter((limit) => !gone.some((each) => isSamePlace(each, limit)));
    const chosen = timeZone ?? this.#limits.timeZone;
    this.replace({ ...(chosen === undefined ? {} : { timeZone: chosen }), limits: [...kept, ...lastOfEach(set)] });
    return this.state();
  }

  /** Puts a whole set of limits in the place of the present one. */
  replace(limits: Limits): void {
    if (limits.limits.length > limitsMax)
      throw new Fault("InputInvalid", `could not change the limits: there would be ${limits.limits.length}`, { evidence: { limitsMax } });
    const { database, log } = this.#parts;
    database.run(
      "INSERT INTO line_limits (id, body) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
      JSON.stringify(limits),
    );
    this.#limits = limits;
    this.#lookAnew();
    log.info("limits of the lines changed", { limitCount: limits.limits.length, timeZone: this.timeZone });
  }

  /** In force at once, where it is lower than what the operators' limits let through; undefined ends it. Not kept over a start. */
  throttleAgents(throttle: AgentsThrottle | undefined): void {
    const before = this.#throttle;
    this.#throttle = throttle;
    if (before?.bytesPerSecond !== throttle?.bytesPerSecond) this.#lookAnew();
  }

  /** Present while agents are slowed down. */
  get throttle(): AgentsThrottle | undefined {
    return this.#throttle;
  }

  state(): LimitsState {
    const places: Place[] = [{ scope: "agents" }, { scope: "storage" }];
    const machines = new Set([...this.#lines.values(), ...this.#limits.limits].flatMap(({ machineId }) => machineId ?? []));
    for (const machineId of machines) places.push({ scope: "machine", machineId });
    return {
      timeZone: this.timeZone,
      limits: [...this.#limits.limits],
      lines: places.map((place) => this.#stateOf(this.#kept(place))),
    };
  }

  /** As state, without the lines of machines that have no limit: for a hub that keeps it with each telling. */
  shownState(): LimitsState {
    const { lines, ...rest } = this.state();
    return { ...rest, lines: lines.filter(({ scope, bytesPerSecond }) => scope !== "machine" || bytesPerSecond !== undefined) };
  }

  /** What an agent's connection received; see Line.pass. Waits for the machine's limit, then for that of all agents. */
  passFromAgent(machineId: MachineId, bytes: number, signal: AbortSignal): Promise<void> | undefined {
    const onWire = withRecords(bytes);
    const agents = this.lineOf({ scope: "agents" });
    const own = this.lineOf({ scope: "machine", machineId }).pass(onWire, signal);
    return own === undefined ? agents.pass(onWire, signal) : own.then(async () => await agents.pass(onWire, signal));
  }

  /** What goes to the storage account or comes from it. */
  passStorage(bytes: number, signal?: AbortSignal): Promise<void> | undefined {
    return this.lineOf({ scope: "storage" }).pass(withRecords(bytes), signal);
  }

  inForce(place: Place): LimitInForce {
    return this.#inForce(this.#kept(place));
  }

  lineOf(place: Place): Line {
    return this.#kept(place).line;
  }

  /** The machine's line is forgotten with it; limits that were given stay. */
  forgetMachine(machineId: MachineId): void {
    this.#lines.delete(keyOf({ scope: "machine", machineId }));
  }

  #lookAnew(): void {
    for (const kept of this.#lines.values()) {
      kept.foundMs = undefined;
      kept.line.look();
    }
  }

  #kept(place: Place): KeptLine {
    const key = keyOf(place);
    const known = this.#lines.get(key);
    if (known !== undefined) return known;
    const { clock } = this.#parts;
    const kept: KeptLine = {
      ...place,
      line: new Line({ clock, rate: () => this.#inForce(kept).bytesPerSecond }),
      inForce: { bytesPerSecond: undefined, reason: "", untilMs: undefined },
      foundMs: undefined,
    };
    this.#lines.set(key, kept);
    return kept;
  }

  #inForce(kept: KeptLine): LimitInForce {
    const { clock } = this.#parts;
    const monotonicMs = clock.monotonicMs();
    if (kept.foundMs !== undefined && monotonicMs - kept.foundMs < inForceMsMax) return kept.inForce;
    const own = this.#limits.limits.filter((limit) => limit.scope === kept.scope && limit.machineId === kept.machineId);
    const before = kept.inForce;
    const given = limitInForce(own, { nowMs: clock.nowMs(), timeZone: this.timeZone });
    kept.inForce = kept.scope === "agents" ? withThrottle(given, this.#throttle) : given;
    kept.foundMs = monotonicMs;
    if (before.reason !== "" && before.bytesPerSecond !== kept.inForce.bytesPerSecond)
      this.#parts.log.info("another limit is in force", {
        ...{ scope: kept.scope, machineId: kept.machineId, reason: kept.inForce.reason },
        bytesPerSecond: kept.inForce.bytesPerSecond ?? "unlimited",
      });
    return kept.inForce;
  }

  #stateOf(kept: KeptLine): LineState {
    const { bytesPerSecond, reason, untilMs } = this.#inForce(kept);
    const { bytesPerSecond: measuredBytesPerSecond, waitedShare } = kept.line.figures();
    return {
      scope: kept.scope,
      ...(kept.machineId === undefined ? {} : { machineId: kept.machineId }),
      ...(bytesPerSecond === undefined ? {} : { bytesPerSecond }),
      reason,
      ...(untilMs === undefined ? {} : { untilTime: toTimestamp(untilMs) }),
      measuredBytesPerSecond,
      passedBytes: kept.line.passedBytes,
      waitedShare,
    };
  }
}

function withThrottle(given: LimitInForce, throttle: AgentsThrottle | undefined): LimitInForce {
  if (throttle === undefined || (given.bytesPerSecond ?? Infinity) <= throttle.bytesPerSecond) return given;
  return { ...given, bytesPerSecond: throttle.bytesPerSecond, reason: throttle.reason };
}

function keyOf({ scope, machineId }: Place): string {
  return machineId === undefined ? scope : `${scope} ${machineId}`;
}

/** Of several of one place the last one counts. */
function lastOfEach(limits: readonly LineLimit[]): readonly LineLimit[] {
  return limits.filter((limit, index) => !limits.slice(index + 1).some((later) => isSamePlace(later, limit)));
}

function withRecords(bytes: number): number {
  return bytes + Math.ceil(bytes / recordBytes) * recordOverheadBytes;
}
