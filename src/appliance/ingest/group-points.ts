// Has the machines of a group agree on one moment: each waits at each stage for the others, never longer than a bound, and is told to go on alone else.

import { asFault, Fault, toReport, type FaultReport } from "../../contract/errors.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Meeting, MeetingOutcome } from "../../contract/agent-frames.ts";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import { parseOrderId, type MachineId } from "../../contract/ids.ts";
import type { AgentOrders } from "../control/agent-orders.ts";
import type { Machine, MachineRegistry } from "../control/machine-registry.ts";
import type { PointLedger } from "./point-ledger.ts";

/** How long the first at a stage waits for the last. Frozen: the shortest freezeMsMax of the members. */
const waitMsMax = { ready: 30_000, prepared: 30_000, preparedAtRest: 600_000 } as const;
/** An agent polls every 20 s: one that was not heard of for longer is not waited for. */
const silentMs = 45_000;
/** A machine whose interval ends at another time is called after this long. */
const callAfterMs = 1000;
const stageAfter = { ready: "prepared", prepared: "frozen", frozen: undefined } as const;

type GroupMoment = NonNullable<SealedPointReport["group"]>;

export interface Arrival extends Meeting {
  readonly machineId: MachineId;
}

export interface Met {
  readonly outcome: MeetingOutcome;
  /** Of stage frozen, when all were. */
  readonly moment?: GroupMoment;
  readonly fault?: FaultReport;
}

export interface GroupPoints {
  /** Resolves when every member has come to the stage, or with why this machine goes on alone. An abort is that it left. */
  meet(arrival: Arrival, signal: AbortSignal): Promise<Met>;
}

interface Round {
  readonly groupId: string;
  readonly groupPointId: string;
  readonly members: ReadonlyMap<MachineId, string>;
  readonly freezeMsMax: number;
  stage: Meeting["stage"];
  isApplication: boolean;
  readonly waiting: Map<MachineId, (met: Met) => void>;
  /** Ends the wait of this stage. */
  timer: AbortController | undefined;
  isOver: boolean;
}

export interface GroupPointsParts {
  readonly registry: Pick<MachineRegistry, "list" | "find">;
  readonly ledger: Pick<PointLedger, "newestOf">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly orders: Pick<AgentOrders, "give">;
}

export function createGroupPoints(parts: GroupPointsParts): GroupPoints {
  const rounds = new Map<string, Round>();
  return {
    meet: async (arrival, signal) => {
      const group = parts.registry.find(arrival.machineId)?.policy?.group;
      if (group === undefined) return alone("the machine is in no group any more");
      if (arrival.stage === "ready" && !rounds.has(group.groupId)) {
        const opened = openRound(parts, group);
        if ("outcome" in opened) return opened;
        rounds.set(group.groupId, opened);
        callLate(parts, opened);
      }
      const round = rounds.get(group.groupId);
      if (round === undefined || round.stage !== arrival.stage || !round.members.has(arrival.machineId))
        return alone("the other machines of the group have gone on without this one");
      if (signal.aborted) return alone("it has left");
      return await new Promise<Met>((resolve) => {
        const end = (met: Met): void => {
          signal.removeEventListener("abort", onAbort);
          resolve(met);
        };
        const onAbort = (): void => giveUp(rounds, round, `${nameOf(round, arrival.machineId)} has left`);
        signal.addEventListener("abort", onAbort, { once: true });
        round.waiting.set(arrival.machineId, end);
        if (arrival.wantsApplication === true) round.isApplication = true;
        if (round.waiting.size === round.members.size) goOn(rounds, round, parts.clock);
        else if (round.timer === undefined) startTimer(rounds, round, parts.clock);
      });
    },
  };
}

/** Who is waited for is settled when the first one comes. */
function openRound({ registry, ledger, clock, random }: GroupPointsParts, group: { readonly groupId: string }): Round | Met {
  const machines = registry.list().filter((one) => one.protectedBy !== undefined && one.policy?.group?.groupId === group.groupId);
  const isSilent = (one: Machine): boolean => clock.nowMs() - one.seenAtMs > silentMs;
  const absent = machines.find((one) => isSilent(one) || ledger.newestOf(one.machineId) === undefined);
  if (absent !== undefined)
    return alone(`${absent.facts.hostname} ${isSilent(absent) ? "has not been heard of" : "has no recovery point of its own yet"}`);
  return {
    groupId: group.groupId,
    groupPointId: random.uuid(),
    members: new Map(machines.map((one) => [one.machineId, one.facts.hostname])),
    freezeMsMax: Math.min(...machines.map((one) => one.policy?.freezeMsMax ?? Number.POSITIVE_INFINITY)),
    stage: "ready",
    isApplication: false,
    waiting: new Map(),
    timer: undefined,
    isOver: false,
  };
}

/** Machines of a group come close to each other by themselves once their intervals have begun together; this is how they do. */
function callLate({ clock, random, orders, log }: GroupPointsParts, round: Round): void {
  void clock.sleep(callAfterMs).then(() => {
    if (round.stage !== "ready" || round.isOver) return;
    for (const machineId of round.members.keys()) {
      if (round.waiting.has(machineId)) continue;
      try {
        orders.give(machineId, { kind: "point", orderId: parseOrderId(random.uuid()), isJoin: true });
      } catch (error) {
        // Orders have piled up for it: it is hardly there, and the wait for it ends by itself.
        log.debug("a machine of a group could not be called", { machineId, reason: asFault(error, "call it").message });
      }
    }
  });
}

function goOn(rounds: Map<string, Round>, round: Round, clock: Clock): void {
  round.timer?.abort();
  round.timer = undefined;
  const waiting = [...round.waiting.values()];
  round.waiting.clear();
  const next = stageAfter[round.stage];
  if (next === undefined) rounds.delete(round.groupId);
  else round.stage = next;
  const { groupId, groupPointId, members, isApplication } = round;
  const moment = { groupId, groupPointId, timeMs: clock.nowMs(), memberCount: members.size };
  for (const end of waiting) end({ outcome: { kind: "together", isApplication }, ...(next === undefined ? { moment } : {}) });
  // The clock runs from here, not from the first to come: a member that has died would never come.
  if (next !== undefined) startTimer(rounds, round, clock);
}

function startTimer(rounds: Map<string, Round>, round: Round, clock: Clock): void {
  const timer = new AbortController();
  round.timer = timer;
  const { stage } = round;
  void clock.sleep(waitMsOf(round), timer.signal).then(
    () => {
      const missing = [...round.members].filter(([machineId]) => !round.waiting.has(machineId)).map(([, hostname]) => hostname);
      giveUp(rounds, round, `${missing.slice(0, 10).join(", ")} did not come to the stage ${stage} in time`);
    },
    () => undefined, // All have come, or one has left.
  );
}

function waitMsOf({ stage, isApplication, freezeMsMax }: Round): number {
  switch (stage) {
    case "ready":
      return waitMsMax.ready;
    case "prepared":
      return isApplication ? waitMsMax.preparedAtRest : waitMsMax.prepared;
    case "frozen":
      return freezeMsMax;
  }
}

/** Those who wait go on alone, and so does who comes later. */
function giveUp(rounds: Map<string, Round>, round: Round, reason: string): void {
  round.timer?.abort();
  round.isOver = true;
  if (rounds.get(round.groupId) === round) rounds.delete(round.groupId);
  const waiting = [...round.waiting.values()];
  round.waiting.clear();
  for (const end of waiting) end(alone(reason));
}

function alone(reason: string): Met {
  const fault = new Fault("GroupPointMissed", `could not make a point of the whole group: ${reason}`, { evidence: { reason } });
  return { outcome: { kind: "alone", reason }, fault: toReport(fault) };
}

function nameOf(round: Round, machineId: MachineId): string {
  return round.members.get(machineId) ?? machineId;
}
