// What an appliance tells of a machine's data is shown with its item and as figures; a change of mode is one event with its reason.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { parseApplianceId } from "../../contract/ids.ts";
import { machineFlowShape, type MachineFlow } from "../../contract/machine-flow.ts";
import { parseResourceId } from "../api/resource-id.ts";
import { keepProgress } from "../appliances/keep-progress.ts";
import { openItemLookup } from "../db/item-lookup.ts";
import { createMetrics } from "../telemetry/metrics.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { simVault } from "./sim/sim-hub.ts";
import { openSimStage } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

const flow: MachineFlow = {
  mode: { phase: "delta", rung: "checksum", reason: "the machine was restarted" },
  ...{ lagSeconds: 7, backlogBytes: 4096, churnBytesPerSecond: 512, throughputBytesPerSecond: 2048, drainSeconds: 3, downtimeSeconds: 1.5 },
  ...{ isFallingBehind: false, stageShares: { line: 0.9 }, slowestStage: "line", slowestReason: "a limit of the line" },
};

test("an item shows how its machine's data flow; the same change of mode is one event, whatever is told again", async () => {
  await using stage = await openSimStage(cluster);
  await stage.protect();
  const [source] = stage.site.sources;
  const machine = source?.progress(systemClock.nowMs() + 1000);
  assert.ok(machine !== undefined);
  const { services } = stage.hub;
  const { appliances, events, database } = services;
  const vault = parseResourceId(simVault);
  const applianceId = parseApplianceId(String((await stage.get()).providerSpecificDetails?.["processServerId"]));
  const time = toTimestamp(systemClock.nowMs());
  const change = { machineId: machine.machineId, time, from: { phase: "delta", rung: "ebpf", reason: "" }, to: flow.mode } as const;
  const stores = { appliances, events, itemOf: openItemLookup(database) };
  for (let told = 0; told < 2; told++)
    await keepProgress(stores, { vault, applianceId }, { machines: [{ ...machine, flow }], modeChanges: [change] });
  const shown = (await stage.get()).providerSpecificDetails?.["watari"] as { readonly flow: unknown }; // As present-item gives it.
  assert.deepEqual(machineFlowShape.parse(shown.flow), flow);
  const changes = (await stage.list(`${simVault}/replicationEvents`))
    .map(({ properties }) => properties as Readonly<Record<string, unknown>>)
    .filter((event) => event["eventCode"] === "ReplicationModeChanged");
  assert.deepEqual(
    changes.map((event) => [event["severity"], String(event["description"]).replace(/^[^:]*: /, "")]),
    [["Warning", "replication went from delta (ebpf) to delta (checksum): the machine was restarted"]],
  );
  const text = await createMetrics({ database, clock: systemClock, routeOf: () => "other" }).text();
  assert.match(text, /watari_machine_modes\{phase="delta",rung="checksum"\} 1/);
  assert.match(text, /watari_slowest_stages\{stage="line"\} 1/);
  assert.match(text, /watari_backlog_bytes\{vault="[^"]+"\} 4096/);
  assert.match(text, /watari_machines_falling_behind\{vault="[^"]+"\} 0/);
});
