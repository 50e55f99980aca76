// Promises of what the operator sees: lag, backlog, churn, predictions and the slowest stage, from what is measured at the data port.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import type { AgentState } from "../../contract/agent-control.ts";
import { parseMachineId } from "../../contract/ids.ts";
import type { Stage } from "../../contract/machine-flow.ts";
import { blockBytes, granuleBytes } from "../../disk/geometry.ts";
import { createBegin, createFacts, DataLine, registerAgent, sendGranules, sendWholeDisk, wholeDisk } from "../testing/scripted-agent.ts";
import { startTestSite } from "../testing/test-site.ts";
import { judgeStages, predict, type StageTimes } from "./judge-flow.ts";
import { createMetrics } from "./metrics.ts";

const minute: StageTimes = {
  windowMs: 60_000,
  activeMs: 60_000,
  answeringMs: 0,
  heldBackMs: 0,
  storageFullMs: 0,
  lanes: { read: 0, work: 0, wait: 0, pause: 0 },
  storageHeldBackShare: 0,
};
const diskId = wholeDisk(1).diskId;

function stateOf(over: {
  readonly phase?: AgentState["phase"];
  readonly rung?: "ebpf" | "checksum";
  readonly dirtyBytes?: number;
}): AgentState {
  const { phase = "delta", rung = "ebpf", dirtyBytes = 0 } = over;
  const tracking = { rung, reason: rung === "ebpf" ? "tracking goes on" : "the machine was restarted" };
  const figures = { readBytes: 0, sentBytes: 0, residentBytes: 0, cpuSeconds: 0, pointCount: 1, lastFrozenMs: 40 };
  return { phase, disks: [{ diskId, tracking, dirtyBytes, copiedBytes: 0, sizeBytes: 100 * blockBytes }], ...figures };
}

describe("the slowest stage", () => {
  const cases: readonly { readonly stage: Stage; readonly times: Partial<StageTimes>; readonly reason: RegExp }[] = [
    { stage: "source", times: { lanes: { read: 70, work: 20, wait: 10, pause: 0 } }, reason: /reading the disks/ },
    { stage: "agent", times: { lanes: { read: 10, work: 60, wait: 30, pause: 0 } }, reason: /digests and compression/ },
    { stage: "agent", times: { lanes: { read: 10, work: 10, wait: 20, pause: 60 } }, reason: /share of the processor/ },
    {
      stage: "line",
      times: { lanes: { read: 5, work: 5, wait: 90, pause: 0 }, answeringMs: 6_000 },
      reason: /way between agent and appliance/,
    },
    {
      stage: "line",
      times: { lanes: { read: 5, work: 5, wait: 90, pause: 0 }, heldBackMs: 50_000, answeringMs: 30_000 },
      reason: /limit of the line/,
    },
    {
      stage: "appliance",
      times: {
        lanes: { read: 5, work: 5, wait: 90, pause: 0 },
        ...{ heldBackMs: 50_000, answeringMs: 30_000, throttleReason: "12 % of the cache is free" },
      },
      reason: /holds the agent back for 83 % of the time: 12 % of the cache is free/,
    },
    { stage: "appliance", times: { lanes: { read: 5, work: 5, wait: 90, pause: 0 }, answeringMs: 55_000 }, reason: /the appliance works/ },
    {
      stage: "storage",
      times: { lanes: { read: 5, work: 5, wait: 90, pause: 0 }, answeringMs: 55_000, storageFullMs: 50_000 },
      reason: /every upload/,
    },
    { stage: "storage", times: { lanes: { read: 90, work: 5, wait: 5, pause: 0 }, storageFullMs: 59_000 }, reason: /every upload/ },
    { stage: "storage", times: { storageFullMs: 59_000, storageHeldBackShare: 0.9 }, reason: /limit of the line to the storage account/ },
  ];
  for (const { stage, times, reason } of cases)
    test(`is ${stage}: ${reason.source}`, () => {
      const verdict = judgeStages({ ...minute, ...times });
      assert.equal(verdict.slowestStage, stage);
      assert.match(verdict.slowestReason ?? "", reason);
    });

  test("is none while nothing is moved", () => {
    assert.deepEqual(judgeStages({ ...minute, activeMs: 100 }), { stageShares: {} });
  });
});

test("predictions: a backlog drains by what is moved beyond what changes, or never", () => {
  const base = { backlogBytes: 1e9, churnBytesPerSecond: 5e6, throughputBytesPerSecond: 25e6, lastFrozenMs: 100, lastSealMs: 900 };
  assert.deepEqual(predict(base), { isFallingBehind: false, drainSeconds: 50, downtimeSeconds: 1.4 });
  assert.deepEqual(predict({ ...base, churnBytesPerSecond: 30e6 }).isFallingBehind, true);
  assert.equal(predict({ ...base, churnBytesPerSecond: 30e6 }).drainSeconds, undefined);
  assert.deepEqual(predict({ ...base, backlogBytes: 0, throughputBytesPerSecond: undefined }), { isFallingBehind: false, drainSeconds: 0 });
});

test("lag, backlog, churn and mode follow what an agent tells and sends, and a dropped point counts nothing", async () => {
  await using site = await startTestSite();
  const facts = createFacts();
  const ports = { controlPort: site.controlPort, dataPort: site.dataPort, caPem: site.authority.caPem };
  const agent = await registerAgent(ports, facts, site.authority.passphrase);
  const { machineId } = agent;
  site.protect(machineId);
  const { flow } = site;
  const flowNow = () => flow.flowOf(machineId, flow.meterOf(machineId).state);
  assert.equal(flow.flowOf(machineId, undefined).mode.phase, "unknown");
  flow.noteState(machineId, stateOf({ phase: "initial" }));
  assert.equal(flowNow().backlogBytes, 100 * blockBytes);
  assert.equal(flowNow().lagSeconds, undefined);
  const content = new Uint8Array(randomBytes(100 * blockBytes));
  const first = createBegin({ bootId: facts.bootId, disks: [wholeDisk(content.length)] });
  {
    await using line = await DataLine.open(ports, agent);
    line.begin(first);
    await sendWholeDisk(line, 0, content);
    await line.end(first.pointId);
  }
  flow.noteState(machineId, stateOf({}));
  site.clock.advance(90_000);
  const idle = flowNow();
  assert.equal(idle.backlogBytes, 0);
  assert.equal(idle.drainSeconds, 0);
  assert.ok(Math.abs((idle.lagSeconds ?? 0) - 90) < 5, `lag ${idle.lagSeconds}`);
  assert.ok((idle.throughputBytesPerSecond ?? 0) > 0);

  const delta = wholeDisk(content.length);
  const send = async (end: "sealed" | "dropped"): Promise<void> => {
    await using line = await DataLine.open(ports, agent);
    const begin = createBegin({ bootId: facts.bootId, disks: [{ ...delta, mode: "delta", basePointId: first.pointId }] });
    line.begin(begin);
    await sendGranules(line, 0, content, [1, 2, 3, 700, 900]);
    if (end === "sealed") await line.end(begin.pointId);
    else while ((await endLine(line)) !== undefined);
  };
  await send("dropped");
  await send("sealed");
  flow.noteState(machineId, stateOf({ dirtyBytes: 7 * granuleBytes }));
  const changed = flowNow();
  assert.equal(changed.backlogBytes, 7 * granuleBytes);
  const churn = (12 * granuleBytes) / 90;
  assert.ok(Math.abs((changed.churnBytesPerSecond ?? 0) / churn - 1) < 0.1, `churn ${changed.churnBytesPerSecond}, not ${churn}`);
  assert.ok((changed.downtimeSeconds ?? 0) > 0);

  // While a point is under way, what churn has brought since the newest one counts, less what has come.
  {
    await using line = await DataLine.open(ports, agent);
    line.begin(createBegin({ bootId: facts.bootId, disks: [{ ...delta, mode: "delta", basePointId: first.pointId }] }));
    await sendGranules(line, 0, content, [5]);
    site.clock.advance(900_000);
    const under = flowNow();
    const wanted = (under.churnBytesPerSecond ?? 0) * (under.lagSeconds ?? 0) - granuleBytes;
    assert.ok(Math.abs(under.backlogBytes / wanted - 1) < 0.05, `backlog ${under.backlogBytes}, not ${wanted}`);
    while ((await endLine(line)) !== undefined);
  }
  flow.noteState(machineId, stateOf({ rung: "checksum" }));
  const told = flow.untoldChanges();
  assert.deepEqual(
    told.map(({ from, to }) => [from.phase, from.rung, to.phase, to.rung, to.reason]),
    [
      ["initial", "ebpf", "delta", "ebpf", "tracking goes on"],
      ["delta", "ebpf", "delta", "checksum", "the machine was restarted"],
    ],
  );
  flow.markTold(told);
  assert.deepEqual(flow.untoldChanges(), []);
  const lines = site.limits.state().lines;
  const machines = [{ machineId, hostname: "ledger1", flow: flowNow() }];
  const figures = { machines, lines, spoolBytes: 1, spoolBytesMax: 2, cacheFreeShare: 0.5, isThrottled: false, healthErrorCount: 0 };
  const text = await createMetrics(() => Promise.resolve(figures)).text();
  assert.match(text, new RegExp(`watari_machine_lag_seconds\\{machine_id="${machineId}",hostname="ledger1"\\} \\d`));
  assert.match(text, /watari_line_bytes_per_second\{line="agents",machine_id=""\} \d/);
});

/** Ends the connection inside its point, and waits until the other side has seen it. */
async function endLine(line: DataLine): Promise<unknown> {
  line.socket.end();
  return await line.next().catch(() => undefined); // A torn line is as good.
}

test("an unknown machine has a flow too", async () => {
  await using site = await startTestSite();
  const flow = site.flow.flowOf(parseMachineId("0191d2f0-0000-7000-8000-000000000001"), undefined);
  assert.deepEqual([flow.backlogBytes, flow.isFallingBehind, flow.slowestStage], [0, false, undefined]);
});
