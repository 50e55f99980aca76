// For tests: a hub with a real emulator behind it, and in its database one landed machine that stands by itself and echoes on its serial console.

import assert from "node:assert/strict";
import { join } from "node:path";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { parseDiskId, parsePointId } from "../contract/ids.ts";
import { makeEchoMachine } from "../landing/qemu/echo-machine.ts";
import { parseResourceId } from "./api/resource-id.ts";
import { openLandingWorld } from "./landing-world.ts";
import { saveLanded, type Landed } from "./replication/landed.ts";
import { registerReplication } from "./replication/register.ts";
import { findFreePort, loopbackNetwork, openTestHub, type TestHub } from "./test-client.ts";

export interface EchoHub extends TestHub {
  /** Id of the landed machine "echo". */
  readonly machine: string;
  /** An action of the machine whose job is waited for. */
  power(action: string): Promise<void>;
}

/** Opens it over what an earlier one left, too. Switch the machine off before the folder goes. */
export async function openEchoHub(
  stateDir: string,
  { consoleOrigins = [] }: { readonly consoleOrigins?: readonly string[] } = {},
): Promise<EchoHub> {
  const landing = { networks: { none: { kind: "user", isSealed: true } }, consoleOrigins };
  const extension = registerReplication({ openWorld: async (services) => await openLandingWorld(services, landing) });
  const hub = await openTestHub({
    ...{ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() },
    environment: { extensions: [extension] },
  });
  const machine = `${hub.groupPath}/providers/Microsoft.Compute/virtualMachines/echo`;
  const { db } = hub.hub.services.database;
  if ((await hub.hub.services.resources.find(machine)) === undefined) {
    await makeEchoMachine(join(stateDir, "landing"), "echo");
    assert.equal((await hub.arm("PUT", hub.groupPath, { location: "lab1" })).status, 201);
    await saveLanded(db, parseResourceId(machine), landedEcho(hub.groupPath), "Succeeded");
  }
  const power = async (action: string): Promise<void> => {
    const begun = await hub.arm("POST", `${machine}/${action}`);
    const operation = new URL(String(begun.headers["azure-asyncoperation"]));
    for (;;) {
      const { status } = z.object({ status: z.string() }).parse((await hub.arm("GET", operation.pathname)).body);
      if (status === "Succeeded") return;
      assert.notEqual(status, "Failed");
      await systemClock.sleep(50);
    }
  };
  return { ...hub, machine, power };
}

function landedEcho(groupPath: string): Landed {
  const vaultId = `${groupPath}/providers/Microsoft.RecoveryServices/vaults/v`;
  return {
    purpose: "migrated",
    itemId: `${vaultId}/replicationFabrics/f/replicationProtectionContainers/c/replicationProtectedItems/i`,
    vaultId,
    vmId: systemRandom.uuid(),
    pointId: parsePointId("00000000-0000-7000-8000-000000000001"),
    launch: {
      ...{ name: "echo", cpuCount: 1, memoryBytes: 64 * 2 ** 20, firmware: "bios", nics: [] },
      disks: [{ diskId: parseDiskId("boot"), isBoot: true, sizeBytes: 2 ** 20 }],
      network: { kind: "named", name: "none" },
    },
  };
}
