// The voice of a simulated appliance over the real protocol: the appliance's own talk with its hub, with memory in place of its stores.

import { tmpdir } from "node:os";
import { fromTimestamp, type Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import { emptyAnswer } from "../appliance/hub/hub-client.ts";
import { startHubLink } from "../appliance/hub/hub-link.ts";
import { SystemMeter } from "../appliance/system-meter.ts";
import { toVaultKeys } from "../appliance/identity/vault-keys.ts";
import type { HubIdentity } from "../appliance/identity/hub-identity.ts";
import { applianceVersion } from "../appliance/identity/hub-registration.ts";
import { vaultKeysShape } from "../contract/appliance-protocol.ts";
import type { Inventory, SealedPointReport, StorageGrant } from "../contract/appliance-protocol.ts";
import type { ApplianceId } from "../contract/ids.ts";
import type { SimVoice } from "../hub/replication/sim/sim-appliance.ts";
import { OrderDesk } from "./order-desk.ts";

export interface HttpsVoiceParts {
  readonly applianceId: ApplianceId;
  readonly identity: HubIdentity;
  readonly grant: () => StorageGrant;
  readonly onGrant: (grant: StorageGrant) => void;
  readonly clock: Clock;
  readonly log: Log;
}

const spoolBytesMax = 2 ** 30;

export function createHttpsVoice(parts: HttpsVoiceParts): SimVoice {
  const { applianceId, identity, grant, onGrant, clock, log } = parts;
  const hub = identity.client;
  // It has no machine of its own: the one that it runs on is told of.
  const meter = new SystemMeter({ clock, folder: tmpdir(), address: "127.0.0.1" });
  const untold = new Map<string, SealedPointReport>();
  let inventory: Inventory = { vcenters: [], runAsAccounts: [], machines: [] };
  const flush = async (): Promise<void> => {
    const points = [...untold.values()];
    if (points.length === 0) return;
    await hub.call("points", { points }, emptyAnswer);
    for (const { pointId } of points) untold.delete(pointId);
  };
  return {
    serve: async (site, signal) => {
      const desk = new OrderDesk(site.obey);
      await using _link = startHubLink({
        applianceId,
        hub,
        hubOrders: desk,
        runner: desk,
        // Points are told as they are sealed; what a broken line kept back goes with the next one or before the next result.
        ledger: {
          untold: (countMax) => [...untold.values()].slice(0, countMax),
          untoldRemovals: () => [],
          markRemovalsTold: () => undefined,
          markTold: (pointIds) => pointIds.forEach((pointId) => untold.delete(pointId)),
          waitCompleted: waitForAbort,
        },
        registry: {
          list: () =>
            site.machines().map(({ lastSeenAt, ...machine }) => ({
              ...machine,
              infrastructureId: machine.infrastructureId,
              seenAtMs: fromTimestamp(lastSeenAt),
            })),
        },
        clock,
        log,
        inventory: () => inventory,
        // Changes are told at once by tellInventory; the link tells the first one again, in case the hub was away.
        waitInventoryChange: waitForAbort,
        telemetry: async () => ({
          applianceVersion,
          spoolBytes: 0,
          spoolBytesMax,
          residentBytes: process.memoryUsage.rss(),
          healthErrors: [],
          system: await meter.read(),
        }),
        grant,
        onGrant,
        onHubTime: (hubTime, asked) => meter.noteHubTime(hubTime, asked),
        renewWhenDue: async (abort) => await identity.renewWhenDue(abort),
        onReach: () => undefined,
      });
      await waitForAbort(signal);
    },
    tellInventory: async (fresh) => {
      inventory = fresh;
      await hub.call("inventory", fresh, emptyAnswer);
    },
    tellPoint: async (report) => {
      untold.set(report.pointId, report);
      await flush();
    },
    renewCertificate: async () => await identity.renew(),
    vaultKeys: async () => toVaultKeys(await hub.call("vaultKeys", {}, vaultKeysShape)),
    tellMachine: async (machine) => void (await hub.call("progress", { machines: [machine] }, emptyAnswer)),
  };
}

async function waitForAbort(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
