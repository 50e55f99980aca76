// Fields of the SDK's own input models, read from its mappers: a new version cannot bring one that nobody decided about.

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";

const mapperShape = z.looseObject({
  type: z.looseObject({
    className: z.string().optional(),
    modelProperties: z.record(z.string(), z.looseObject({ serializedName: z.string() })).optional(),
  }),
});

/** Models whose every field the table of input-fields.tsv decides: what this provider's clients send. */
const inputModels = [
  ...["EnableProtectionInputProperties", "InMageAzureV2EnableProtectionInput", "InMageAzureV2DiskInputDetails"],
  ...["UpdateReplicationProtectedItemInputProperties", "InMageAzureV2UpdateReplicationProtectedItemInput", "UpdateDiskInput"],
  ...["VMNicInputDetails", "IPConfigInputDetails", "TestFailoverInputProperties", "InMageAzureV2TestFailoverInput"],
  ...["TestFailoverCleanupInputProperties", "UnplannedFailoverInputProperties", "InMageAzureV2UnplannedFailoverInput"],
  ...["ApplyRecoveryPointInputProperties", "InMageAzureV2ApplyRecoveryPointInput", "UpdateMobilityServiceRequestProperties"],
  ...["A2AAddDisksInput", "A2AVmManagedDiskInputDetails", "A2ARemoveDisksInput", "DisableProtectionInputProperties"],
  ...["ResolveHealthError", "InMageAzureV2PolicyInput", "CreateRecoveryPlanInputProperties", "UpdateRecoveryPlanInputProperties"],
  ...["RecoveryPlanGroup", "RecoveryPlanProtectedItem", "RecoveryPlanAction", "RecoveryPlanManualActionDetails"],
  ...["RecoveryPlanTestFailoverInputProperties", "RecoveryPlanUnplannedFailoverInputProperties", "RecoveryPlanInMageAzureV2FailoverInput"],
  ...["RecoveryPlanTestFailoverCleanupInputProperties", "CreateProtectionContainerMappingInputProperties", "ResumeJobParamsProperties"],
  ...["AddVCenterRequestProperties", "UpdateVCenterRequestProperties", "DiscoverProtectableItemRequestProperties"],
  ...["FailoverProcessServerRequestProperties", "RenewCertificateInputProperties"],
  ...["UpdateApplianceForReplicationProtectedItemInputProperties", "InMageRcmUpdateApplianceForReplicationProtectedItemInput"],
] as const;

/** "Model.field", as the client writes the field on the wire; sorted. */
export function inputFields(): readonly string[] {
  const require = createRequire(import.meta.url);
  const entry = require.resolve("@azure/arm-recoveryservices-siterecovery/package.json");
  const mappers = z.record(z.string(), z.unknown()).parse({ ...require(join(dirname(entry), "dist-esm/src/models/mappers.js")) });
  const fields = inputModels.flatMap((model) => {
    const { modelProperties = {} } = mapperShape.parse(mappers[model]).type;
    return Object.values(modelProperties).map(({ serializedName }) => `${model}.${serializedName}`);
  });
  return fields.toSorted((left, right) => (left < right ? -1 : 1));
}
