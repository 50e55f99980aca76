// The appliance's standing talk with its hub: the long poll, points, progress, inventory, telemetry, and the storage grant.

import { z } from "zod";
import { fromTimestamp, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import {
  applianceOrderShape,
  applianceProtocolVersion,
  storageGrantShape,
  type ApplianceOrder,
  type ApplianceOrderResult,
  type Inventory,
  type OtherAppliance,
  type StorageGrant,
  telemetryAnswerShape,
  telemetryShape,
} from "../../contract/appliance-protocol.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import type { ApplianceId } from "../../contract/ids.ts";
import { orderIdShape } from "../../contract/shapes.ts";
import type { FlowBook } from "../flow/flow-book.ts";
import type { Machine } from "../control/machine-registry.ts";
import type { PointLedger } from "../ingest/point-ledger.ts";
import { emptyAnswer, type HubClient } from "./hub-client.ts";
import type { HubOrders } from "./hub-orders.ts";
import type { OrderRunner } from "./order-runner.ts";

const waitSecondsIdle = 20;
/** While orders run, so that their progress is told. */
const waitSecondsBusy = 2;
const firstRetryMs = 500;
const retryMsMax = 15_000;
const progressEveryMs = 3_000;
const telemetryEveryMs = 30_000;
/** With the output of scripts a report can take 20 KB, and a call 1 MiB. */
const pointsPerCallMax = 40;
const removalsPerCallMax = 1000;
const resultsPerCallMax = 64;
const refusalsPerCallMax = 32;
/** What is beyond is given again by the hub. */
const refusalsKeptMax = 256;
const grantLookEveryMs = 60_000;
const certificateLookEveryMs = 3600_000;
/** A grant is renewed when less than this is left of it. */
const grantLeftMsMin = 6 * 3600_000;

export interface HubLinkParts {
  readonly applianceId: ApplianceId;
  readonly hub: HubClient;
  // Only what the talk needs, so that a simulated appliance can have it too.
  readonly hubOrders: Pick<HubOrders, "untold" | "markTold">;
  readonly runner: Pick<OrderRunner, "isBusy" | "progress" | "take" | "waitResult">;
  readonly ledger: Pick<PointLedger, "untold" | "markTold" | "untoldRemovals" | "markRemovalsTold" | "waitCompleted">;
  readonly registry: {
    list(): readonly Pick<Machine, "machineId" | "infrastructureId" | "seenAtMs" | "agentVersion" | "facts" | "state">[];
  };
  /** Absent from one that measures nothing. */
  readonly flow?: Pick<FlowBook, "flowOf" | "untoldChanges" | "markTold">;
  readonly clock: Clock;
  readonly log: Log;
  readonly inventory: () => Inventory;
  readonly waitInventoryChange: (signal: AbortSignal) => Promise<void>;
  readonly telemetry: () => Promise<z.input<typeof telemetryShape>>;
  readonly grant: () => StorageGrant;
  readonly onGrant: (grant: StorageGrant) => void;
  readonly onHubTime: (hubTime: string, asked: { readonly fromMs: number; readonly untilMs: number }) => void;
  /** Told of the other appliances of the vault. */
  readonly onOthers?: (others: readonly OtherAppliance[]) => void;
  readonly renewWhenDue: (signal: AbortSignal) => Promise<void>;
  /** Told of each call's outcome, for the health list. */
  readonly onReach: (fault: Fault | undefined) => void;
}

export interface HubLink extends AsyncDisposable {
  /** Tells every sealed point that the hub does not know yet. */
  flushPoints(signal?: AbortSignal): Promise<void>;
  pushInventory(signal?: AbortSignal): Promise<void>;
}

export function startHubLink(parts: HubLinkParts): HubLink {
  const { hub, clock, ledger } = parts;
  const ending = new AbortController();
  const { signal } = ending;
  const flushPoints = async (abort?: AbortSignal): Promise<void> => {
    for (;;) {
      const points = ledger.untold(pointsPerCallMax);
      // Only when every point was told: a hub never hears of a removal first.
      const removedPointIds = points.length === 0 ? ledger.untoldRemovals(removalsPerCallMax) : [];
      if (points.length === 0 && removedPointIds.length === 0) return;
      await hub.call("points", { points, removedPointIds }, emptyAnswer, abort ?? signal);
      ledger.markTold(points.map((point) => point.pointId));
      ledger.markRemovalsTold(removedPointIds);
    }
  };
  const pushInventory = async (abort?: AbortSignal): Promise<void> =>
    void (await hub.call("inventory", parts.inventory(), emptyAnswer, abort ?? signal));
  const refused: ApplianceOrderResult[] = [];
  const heard = { isLost: true };
  const loops = [
    keepDoing(parts, signal, "poll", async () => await pollOnce(parts, { flushPoints, refused, heard }, signal)),
    keepDoing(parts, signal, "points", async () => {
      await flushPoints();
      if (ledger.untold(1).length === 0 && ledger.untoldRemovals(1).length === 0) await ledger.waitCompleted(signal);
    }),
    keepDoing(parts, signal, "inventory", async () => {
      const changed = parts.waitInventoryChange(signal);
      await pushInventory();
      await changed;
    }),
    keepDoing(parts, signal, "progress", async () => {
      await pushProgress(parts, signal);
      await clock.sleep(progressEveryMs, signal);
    }),
    keepDoing(parts, signal, "telemetry", async () => {
      const telemetry = await parts.telemetry();
      const fromMs = clock.nowMs();
      const { hubTime, others } = await hub.call("telemetry", telemetry, telemetryAnswerShape, signal);
      if (hubTime !== undefined) parts.onHubTime(hubTime, { fromMs, untilMs: clock.nowMs() });
      parts.onOthers?.(others ?? []);
      await clock.sleep(telemetryEveryMs, signal);
    }),
    keepDoing(parts, signal, "storageGrant", async () => {
      if (fromTimestamp(parts.grant().expiresAt) - clock.nowMs() < grantLeftMsMin) {
        parts.onGrant(await hub.call("storageGrant", {}, storageGrantShape, signal));
      }
      await clock.sleep(grantLookEveryMs, signal);
    }),
    keepDoing(parts, signal, "certificate", async () => {
      await parts.renewWhenDue(signal);
      await clock.sleep(certificateLookEveryMs, signal);
    }),
  ];
  return {
    flushPoints,
    pushInventory,
    [Symbol.asyncDispose]: async () => {
      ending.abort();
      await Promise.all(loops);
    },
  };
}

interface Talk {
  readonly flushPoints: () => Promise<void>;
  readonly refused: ApplianceOrderResult[];
  /** Of the answer to the poll before; at first, whatever another process was answered. */
  readonly heard: { isLost: boolean };
}

/** Results out, orders in. A result that comes up ends the waiting poll. */
async function pollOnce(parts: HubLinkParts, { flushPoints, refused, heard }: Talk, signal: AbortSignal): Promise<void> {
  const { hub, hubOrders, runner, applianceId } = parts;
  const refusals = refused.slice(0, refusalsPerCallMax);
  const results = [...refusals, ...hubOrders.untold(resultsPerCallMax - refusals.length)];
  // The hub must know a point before it hears of the order that made it.
  if (results.length > 0) await flushPoints();
  const progress = runner.progress();
  const body = {
    protocolVersion: applianceProtocolVersion,
    applianceId,
    results,
    progress,
    waitSeconds: results.length > 0 ? 0 : runner.isBusy ? waitSecondsBusy : waitSecondsIdle,
    isAnswerLost: heard.isLost,
  };
  heard.isLost = true;
  const ended = new AbortController();
  const either = AbortSignal.any([signal, ended.signal]);
  if (results.length === 0) void runner.waitResult(either).then(() => ended.abort());
  try {
    const answer = await hub.call("poll", body, givenOrdersShape, either);
    heard.isLost = false;
    refused.splice(0, refusals.length);
    hubOrders.markTold(results.slice(refusals.length).map((result) => result.orderId));
    const { known, unknown } = sortOrders(answer.orders);
    refused.push(...unknown);
    refused.splice(refusalsKeptMax);
    runner.take(known);
  } catch (error) {
    if (!ended.signal.aborted || signal.aborted) throw error;
  } finally {
    ended.abort();
  }
}

/** Orders of a newer hub may be of kinds that are not known here; the rest is carried out all the same. */
const givenOrdersShape = z.object({ orders: z.array(z.looseObject({ orderId: orderIdShape, kind: z.string().max(80) })).max(64) });

/** An order that cannot be read is answered, so that its job ends with a reason. The hub gives it again should the answer be lost. */
function sortOrders(given: z.infer<typeof givenOrdersShape>["orders"]): {
  readonly known: readonly ApplianceOrder[];
  readonly unknown: readonly ApplianceOrderResult[];
} {
  const known: ApplianceOrder[] = [];
  const unknown: ApplianceOrderResult[] = [];
  for (const each of given) {
    const parsed = applianceOrderShape.safeParse(each);
    if (parsed.success) {
      known.push(parsed.data);
      continue;
    }
    const fault = new Fault("ProtocolVersionUnsupported", `could not read the order ${each.kind}: the hub is newer than this appliance`, {
      evidence: { order: each.kind, applianceVersion: applianceProtocolVersion },
      action: "update the appliance, then start the operation again",
    });
    unknown.push({ outcome: "failed", orderId: each.orderId, fault: toReport(fault) });
  }
  return { known, unknown };
}

async function pushProgress({ hub, registry, flow }: HubLinkParts, signal: AbortSignal): Promise<void> {
  const machines = registry.list().flatMap((machine) =>
    machine.state === undefined
      ? []
      : [
          {
            machineId: machine.machineId,
            ...(machine.infrastructureId === undefined ? {} : { infrastructureId: machine.infrastructureId }),
            lastSeenAt: toTimestamp(machine.seenAtMs),
            agentVersion: machine.agentVersion,
            facts: machine.facts,
            state: machine.state,
            ...(flow === undefined ? {} : { flow: flow.flowOf(machine.machineId, machine.state) }),
          },
        ],
  );
  const modeChanges = flow?.untoldChanges() ?? [];
  await hub.call("progress", { machines: machines.slice(0, 2000), modeChanges }, emptyAnswer, signal);
  flow?.markTold(modeChanges);
}

/** Repeats until the signal: at once after a success, with growing waits after failures. Never rejects. */
async function keepDoing(
  { clock, log, onReach }: HubLinkParts,
  signal: AbortSignal,
  what: string,
  task: () => Promise<void>,
): Promise<void> {
  let waitMs = firstRetryMs;
  while (!signal.aborted) {
    try {
      await task();
      waitMs = firstRetryMs;
      onReach(undefined);
    } catch (error) {
      if (signal.aborted) return;
      const fault = asFault(error, `talk to the hub (${what})`);
      onReach(fault);
      log.warn("call to the hub failed", { what, fault: fault.code, reason: fault.message, waitMs });
      await clock.sleep(waitMs, signal).catch(() => undefined); // The loop's head sees the abort.
      waitMs = Math.min(retryMsMax, waitMs * 2);
    }
  }
}
