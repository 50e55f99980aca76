// Autostart: when the host of this hub's landed machines was started again, those that shall run are started, in order.

import { sql } from "kysely";
import { asFault, Fault } from "../../contract/errors.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import type { Queryable } from "../jobs/job.ts";
import { readJob } from "../jobs/job-store.ts";
import { findItemWithLanded } from "./item.ts";
import { autostartShape, findLanded, landedMachineShape, requireHere, type LandedMachine } from "./landed.ts";
import { machineType } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

const usual = { isOn: true, order: 100, delaySeconds: 0 };
const machinesMax = 1_000;
/** For a machine that another job holds, or that does not come up: the next ones are not kept from starting. */
const waitMsMax = 10 * 60_000;
const actor = "autostart";

/** With the commit a machine becomes one that runs whenever its host does, unless somebody has said otherwise. */
export async function turnOnAutostart(db: Queryable, machineId: string): Promise<void> {
  await sql`update resources set properties = properties || ${JSON.stringify({ autostart: usual })}::jsonb, etag = '"' || gen_random_uuid() || '"',
    updated_at = clock_timestamp() where key = ${machineId.toLowerCase()} and type = ${machineType.toLowerCase()}
    and not properties ? 'autostart'`.execute(db);
}

export function autostartAction({ services }: ReplicationFront): ActionDefinition {
  return defineAction({
    body: autostartShape,
    run: async (_call, autostart, { id }) => {
      const changed = await sql`update resources set properties = properties || ${JSON.stringify({ autostart })}::jsonb,
        etag = '"' || gen_random_uuid() || '"', updated_at = clock_timestamp()
        where key = ${id.key} and type = ${machineType.toLowerCase()} returning key`.execute(services.database.db);
      if (changed.rows.length === 0) throw new Fault("NotFound", `could not find ${id.text}`, { evidence: { resourceId: id.text } });
      return { kind: "done", body: { ...autostart } };
    },
  });
}

/** In the background, until all were begun; a hub that is killed meanwhile goes on with the rest at its next start. */
export function startAutostart(front: ReplicationFront): AsyncDisposable {
  const closing = new AbortController();
  const running = startDue(front, closing.signal).catch((error: unknown) => {
    if (!closing.signal.aborted) front.services.log.error("autostart ended early", { reason: asFault(error, "start machines").message });
  });
  return {
    [Symbol.asyncDispose]: async () => {
      closing.abort(new Error("the hub stops"));
      await running;
    },
  };
}

async function startDue(front: ReplicationFront, signal: AbortSignal): Promise<void> {
  const { host } = front;
  if (host === undefined) return;
  for (const machines of host.isStartedAnew ? await dueMachines(front) : []) {
    // The next ones wait until these run, or have been given up.
    await Promise.all(machines.map(async (machine) => await startOne(front, machine, signal)));
    signal.throwIfAborted();
  }
  await host.remember();
}

interface DueMachine {
  readonly id: string;
  readonly delaySeconds: number;
}

/** Groups of one order each, the lowest first. */
async function dueMachines({ services, place }: ReplicationFront): Promise<readonly (readonly DueMachine[])[]> {
  const found = await sql<{ id: string; properties: object }>`select id, properties from resources where type = ${machineType.toLowerCase()}
    and (properties->'autostart'->>'isOn')::boolean order by key limit ${machinesMax}`.execute(services.database.db);
  const groups = new Map<number, DueMachine[]>();
  for (const { id, properties } of found.rows) {
    const landed = landedMachineShape.parse(properties);
    if (landed.place !== undefined && place !== undefined && landed.place !== place) continue;
    const { order, delaySeconds } = landed.autostart ?? usual;
    groups.set(order, [...(groups.get(order) ?? []), { id, delaySeconds }]);
  }
  return [...groups].toSorted(([left], [right]) => left - right).map(([, machines]) => machines);
}

async function startOne(front: ReplicationFront, { id, delaySeconds }: DueMachine, signal: AbortSignal): Promise<void> {
  const { clock, log } = front.services;
  const pause = async (ms: number): Promise<void> => await clock.sleep(ms, signal);
  try {
    if (delaySeconds > 0) await pause(delaySeconds * 1000);
    const endsAtMs = clock.monotonicMs() + waitMsMax;
    for (;;) {
      const end = await tryStart(front, id, signal);
      if (end === "done") return;
      if (clock.monotonicMs() > endsAtMs) return log.error("machine not started by itself", { machineId: id, reason: "it took too long" });
      await pause(front.limits.pollMs);
    }
  } catch (error) {
    if (signal.aborted) return;
    // The others shall run all the same; the job has told why, or this line does.
    log.error("machine not started by itself", { machineId: id, reason: asFault(error, "start the machine").message });
  }
}

/** done: it runs, or shall not; wait: a job is at work. */
async function tryStart(front: ReplicationFront, machineId: string, signal: AbortSignal): Promise<"done" | "wait"> {
  const { services, engine, target } = front;
  const { db } = services.database;
  const landed = await findLanded(db, machineId);
  if (landed === undefined || !(await shallRun(db, landed))) return "done";
  requireHere(landed, front.place);
  const { power } = await target.status(landed.launch.name);
  if (power !== "stopped") return "done";
  const id = parseResourceId(machineId);
  const job = { kind: "MachinePower", scope: id.key, targetId: id.text, targetName: id.name, actor };
  const lockKey = landed.purpose === "made" ? id.key : parseResourceId(landed.itemId).key;
  try {
    const jobId = await engine.submit({ ...job, lockKey, parameters: { machineId, wish: "start" } });
    services.log.info("machine is started by itself", { machineId, jobId });
    return await ended(front, jobId, signal);
  } catch (error) {
    if (error instanceof Fault && error.code === "StateConflict") return "wait";
    throw error;
  }
}

async function ended({ services, limits }: ReplicationFront, jobId: string, signal: AbortSignal): Promise<"done"> {
  const endsAtMs = services.clock.monotonicMs() + waitMsMax;
  for (;;) {
    const job = await readJob(services.database.db, jobId);
    if (job === undefined || job.endedAt !== undefined || services.clock.monotonicMs() > endsAtMs) return "done";
    await services.clock.sleep(limits.pollMs, signal);
  }
}

/** Somebody who switched it off wants it off; a machine whose item is going back, or is not committed, is its item's business. */
async function shallRun(db: Queryable, landed: LandedMachine): Promise<boolean> {
  if (landed.autostart?.isOn !== true || landed.isSwitchedOff === true || landed.isDeallocated === true) return false;
  if (landed.purpose === "made") return true;
  const item = await findItemWithLanded(db, landed.itemId);
  if (item === undefined) return true;
  const { protectionState, reverse, failover, test } = item;
  const name = landed.launch.name;
  if (landed.purpose === "test") return test?.landedName === name;
  const goesBack = reverse?.returnedAt !== undefined || reverse?.finalPointId !== undefined;
  return protectionState === "CommitFailoverCompleted" && failover?.landedName === name && !goesBack;
}
