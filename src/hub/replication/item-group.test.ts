// Groups of machines as clients see them: joined at enable, one policy, and a point of the group only when every member has its own.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, it } from "node:test";
import { toTimestamp } from "../../base/clock.ts";
import { parseMachineId, parsePointId } from "../../contract/ids.ts";
import type { SealedPointReport } from "../../contract/appliance-protocol.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { simVault } from "./sim/sim-hub.ts";
import { openSimStage, simProvider } from "./sim/sim-stage.ts";

let cluster: TestCluster;
before(async () => void (cluster = await startTestCluster()));
after(async () => await cluster[Symbol.asyncDispose]());

it("a machine joins a group when its policy allows it, and its points are the group's once all have theirs", async () => {
  await using stage = await openSimStage(cluster);
  const { hub, item, site } = stage;
  const setPolicy = async (multiVmSyncStatus: string): Promise<void> => {
    const providerSpecificInput = { ...simProvider, pointIntervalSeconds: 3600, multiVmSyncStatus };
    await hub.call("PUT", `${simVault}/replicationPolicies/default`, { properties: { providerSpecificInput } });
  };
  await setPolicy("Disable");
  await assert.rejects(hub.call("PUT", item, stage.enableBody({ multiVmGroupName: "shop" })), /makes no points of several machines/);
  await setPolicy("Enable");
  await assert.rejects(hub.call("PUT", item, stage.enableBody({ multiVmGroupName: "shop", multiVmGroupId: "1" })), /it is no GUID/);
  await stage.protect({ multiVmGroupName: "shop" });
  const { providerSpecificDetails: details } = await stage.get();
  assert.deepEqual([details?.["multiVmGroupName"], details?.["multiVmSyncStatus"]], ["shop", "Enabled"]);
  const [source] = site.sources;
  assert.deepEqual(source?.policy?.group, { groupId: details?.["multiVmGroupId"], name: "shop" });

  const groupPointId = randomUUID();
  const timeMs = 1_800_000_000_000;
  const reportOf = (machineId: string, skewMs: number): SealedPointReport => ({
    ...{
      pointId: parsePointId(randomUUID()),
      machineId: parseMachineId(machineId),
      timeMs: timeMs + skewMs,
      sealedAt: toTimestamp(timeMs),
    },
    ...{ consistency: "crash", disks: [], readBytes: 0, sentBytes: 0, storedBytes: 0, frozenMs: 1, mode: "delta" },
    group: { groupId: randomUUID(), groupPointId, timeMs, memberCount: 2 },
  });
  const mine = reportOf(source.machineId ?? "", 5000);
  const shown = async (): Promise<readonly unknown[]> => {
    const { recoveryPointTime, providerSpecificDetails } = await stage.get(`${item}/recoveryPoints/${mine.pointId}`);
    return [recoveryPointTime, providerSpecificDetails?.["isMultiVmSyncPoint"]];
  };
  await hub.services.points.add(simVault, [mine]);
  assert.deepEqual(await shown(), [toTimestamp(timeMs + 5000), "No"]);
  const theirs = reportOf(randomUUID(), -7000);
  await hub.services.points.add(simVault, [theirs]);
  assert.deepEqual(await shown(), [toTimestamp(timeMs), "Yes"], "and it shows the moment of the group");
  const listed = await stage.list(`${item}/recoveryPoints`);
  assert.deepEqual(
    listed.map(({ properties }) => properties.providerSpecificDetails?.["isMultiVmSyncPoint"]),
    ["Yes", "No"],
  );
  await hub.services.points.remove(simVault, [theirs.pointId]);
  assert.equal((await shown())[1], "No", "when a member's point has gone, the group has none");

  const providerSpecificInput = { ...simProvider, multiVmSyncStatus: "Disable" };
  await stage.change("PUT", `${simVault}/replicationPolicies/default`, { properties: { providerSpecificInput } });
  assert.equal(source.policy?.group, undefined, "a policy without points of several machines ends the group's");
});
