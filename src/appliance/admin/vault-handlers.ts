// Answers of the admin socket about this appliance's part of the vault: collection, verification, lost points.

import { toTimestamp } from "../../base/clock.ts";
import type { AdminRequest, AdminResponse } from "../../contract/appliance-admin.ts";
import type { RecoveryPoint, Vault } from "../../vault/vault.ts";

type Route = "collectGarbage" | "verifyPoints" | "listLostPoints" | "restorePoint";
type VaultHandlers = { readonly [Name in Route]: (request: AdminRequest<Name>) => Promise<AdminResponse<Name>> };

const lostMax = 10_000;

/** `vault` throws while the vault is not reached. */
export function createVaultHandlers(vault: () => Vault): VaultHandlers {
  return {
    collectGarbage: async ({ isDryRun = false }) => {
      const { damagedPacks, ...report } = await vault().collect({ isDryRun });
      return { ...report, damagedPacks: [...damagedPacks] };
    },
    verifyPoints: async ({ machineId, pointId }) => {
      const only = { ...(machineId === undefined ? {} : { machineId }), ...(pointId === undefined ? {} : { pointId }) };
      const { damaged, ...report } = await vault().verify(only as Parameters<Vault["verify"]>[0]); // The route's shape proved the ids.
      return { ...report, damaged: [...damaged] };
    },
    listLostPoints: async () => {
      const points: AdminResponse<"listLostPoints">["points"] = [];
      for await (const { point, isWhole } of vault().listLostPoints()) {
        if (points.length === lostMax) return { points, isComplete: false };
        points.push({ ...toShown(point), isWhole });
      }
      return { points, isComplete: true };
    },
    restorePoint: async ({ pointId }) => toShown(await vault().restoreLostPoint(pointId as Parameters<Vault["restoreLostPoint"]>[0])), // As above.
  };
}

function toShown({ pointId, machineId, timeMs, consistency }: RecoveryPoint): AdminResponse<"restorePoint"> {
  return { pointId, machineId, time: toTimestamp(timeMs), consistency };
}
