// What clients send about protected items, parsed: the documented bodies of the provider, with our few extensions named as such.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { recoveryPointTypes } from "./choose-point.ts";
import { commitShape, fenceModes } from "./failover-shape.ts";
import { exportDetailsShape } from "./export-point.ts";
import { launchActionsShape } from "./launch-actions.ts";
import { launchSettingsInput, unlockKeysShape } from "./launch-settings.ts";
import { probeShape } from "./launch-steps.ts";
import { provider } from "./names.ts";

export const idText = z.string().max(2048);
const instanceType = z.literal(provider, `the provider must be ${provider}`);
const direction = z.string().max(100).optional();

/** Ours: where the machine lands and how it is probed, for one call. */
const landingExtension = {
  network: z.string().max(200).optional(),
  probe: probeShape.optional(),
  /** In place of the machine's own post-launch actions. */
  actions: launchActionsShape.optional(),
  ...launchSettingsInput,
};
/** Ours: how the cut-over is committed, and who switches the source off. */
const cutOverExtension = { commit: commitShape.optional(), fence: z.enum(fenceModes).optional() };
const pointWish = {
  recoveryPointId: idText.optional(),
  /** Ours here; recovery plans have it as a documented field. */
  recoveryPointType: z.enum(recoveryPointTypes).optional(),
};

export const testBody = z.strictObject({
  properties: z.strictObject({
    failoverDirection: direction,
    networkType: z.enum(["NoNetworkAttachAsInput", "VmNetworkAsInput"]).optional(),
    networkId: idText.optional(),
    providerSpecificDetails: z
      .strictObject({ instanceType, osUpgradeVersion: z.string().max(100).optional(), ...pointWish, ...landingExtension })
      .optional(),
  }),
});
export type TestBody = z.infer<typeof testBody>["properties"];

/** Ours: what a rehearsal boots and asks. */
export const rehearseBody = z.strictObject({
  properties: z
    .strictObject({
      ...pointWish,
      /** In place of the machine's own post-launch actions. */
      actions: launchActionsShape.optional(),
      ...launchSettingsInput,
      /** The machine stays, as one of a test migration. */
      isKept: z.boolean().default(false),
    })
    .default({ isKept: false }),
});
export type RehearseBody = z.infer<typeof rehearseBody>["properties"];

export const cleanupBody = z.strictObject({ properties: z.strictObject({ comments: z.string().max(1000).optional() }).optional() });

export const failoverBody = z.strictObject({
  properties: z.strictObject({
    failoverDirection: direction,
    sourceSiteOperations: z.enum(["Required", "NotRequired"]).default("Required"),
    providerSpecificDetails: z
      .strictObject({
        instanceType,
        osUpgradeVersion: z.string().max(100).optional(),
        ...pointWish,
        ...landingExtension,
        ...cutOverExtension,
      })
      .default({ instanceType: provider }),
  }),
});
export type FailoverBody = z.infer<typeof failoverBody>["properties"];

export const applyBody = z.strictObject({
  properties: z.strictObject({
    recoveryPointId: idText.optional(),
    providerSpecificDetails: z.strictObject({
      instanceType,
      recoveryPointType: pointWish.recoveryPointType,
      probe: landingExtension.probe,
      /** Ours: those of the failover's own call are not kept. */
      unlockKeys: unlockKeysShape.optional(),
    }),
  }),
});
export type ApplyBody = z.infer<typeof applyBody>["properties"];

export const updateAgentBody = z.strictObject({ properties: z.strictObject({ runAsAccountId: z.string().max(64).optional() }).optional() });

const diskList = z.array(z.string().max(255)).max(64);
/**
 * The documented inputs are those of other providers, and an SDK sends no others: the disks of A2A are taken as well as `disksToInclude`
 * and `disksToRemove`, which follow the provider's enable input.
 */
const diskId = z.strictObject({ diskId: z.string().max(255) });
/** Where A2A would put copies: its client demands some of these, and here there is no such place, so only nothing can be asked for. */
const nothing = z.literal("", "disks go where the machine's others are; send an empty text").optional();
const a2aDisk = diskId.extend({
  primaryStagingAzureStorageAccountId: nothing,
  recoveryResourceGroupId: nothing,
  recoveryReplicaDiskAccountType: nothing,
  recoveryTargetDiskAccountType: nothing,
  recoveryDiskEncryptionSetId: nothing,
});
export const addDisksBody = z.strictObject({
  properties: z.strictObject({
    providerSpecificDetails: z.strictObject({
      instanceType: diskProvider(),
      disksToInclude: z.array(diskId).max(64).default([]),
      vmManagedDisks: z.array(a2aDisk).max(64).default([]),
      vmDisks: z.array(z.unknown()).max(0, "disks of storage accounts do not exist here; use vmManagedDisks").optional(),
    }),
  }),
});
export const removeDisksBody = z.strictObject({
  properties: z.strictObject({
    providerSpecificDetails: z.strictObject({
      instanceType: diskProvider(),
      disksToRemove: z.array(diskId).max(64).default([]),
      vmManagedDisksIds: diskList.default([]),
      vmDisksUris: z.array(z.unknown()).max(0, "disks of storage accounts do not exist here; use vmManagedDisksIds").optional(),
    }),
  }),
});

function diskProvider(): z.ZodEnum<{ InMageAzureV2: "InMageAzureV2"; A2A: "A2A" }> {
  return z.enum([provider, "A2A"], `the provider must be ${provider}, or A2A for clients that have no other words for disks`);
}

export const resolveBody = z.strictObject({
  properties: z.strictObject({
    healthErrors: z
      .array(z.strictObject({ healthErrorId: z.string().max(200) }))
      .max(100)
      .default([]),
  }),
});

/** Ours: ARM has no word for disks as files. */
export const exportBody = z.strictObject({
  properties: z.strictObject({ providerSpecificDetails: exportDetailsShape.extend({ instanceType }) }),
});

export const removeBody = z.strictObject({
  properties: z
    .strictObject({
      disableProtectionReason: z.enum(["NotSpecified", "MigrationComplete"]).default("NotSpecified"),
      /** Documented for InMage and A2A alone, where it tells what becomes of replicas: here they go with their points. */
      replicationProviderInput: z.strictObject({ instanceType: z.string().max(100) }).optional(),
    })
    .optional(),
});

/** Machines go one way here. */
export function refuseOtherWays(body: { readonly failoverDirection?: string | undefined }): void {
  if (body.failoverDirection === undefined || body.failoverDirection.toLowerCase() === "primarytorecovery") return;
  throw new Fault("OperationNotSupported", `could not fail over in the direction ${body.failoverDirection}: machines are moved one way`, {
    evidence: { failoverDirection: body.failoverDirection },
    action: "call with failoverDirection PrimaryToRecovery; to go back before the commit, call failoverCancel",
  });
}
