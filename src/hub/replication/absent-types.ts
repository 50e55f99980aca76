// Kinds of replication resources that Azure has for other providers: none is ever here, and every call says why and what to do.

import { absentType } from "../resources/plain-types.ts";
import type { ResourceType } from "../api/resource-type.ts";
import { containerType, fabricType, networkType, vaultType } from "./names.ts";

const migrationItemType = `${containerType}/replicationMigrationItems`;
const classificationType = `${fabricType}/replicationStorageClassifications`;
const agentless = {
  reason: "machines are replicated by an agent inside them, as protected items",
  action: "enable the machine by PUT of a replicationProtectedItem in its container; testFailover and unplannedFailover migrate it",
};
const classified = {
  reason: "sites of vCenters have no storage classifications",
  action: "choose a machine's disks by addDisks and removeDisks of its protected item",
};

export const absentTypes: readonly ResourceType[] = [
  absentType(`${vaultType}/replicationProtectionIntents`, {
    reason: "intents are for machines that run in a cloud already",
    action: "enable the machine by PUT of a replicationProtectedItem in its container",
  }),
  absentType(`${networkType}/replicationNetworkMappings`, {
    reason: "networks are mapped for each machine",
    action: "set selectedRecoveryAzureNetworkId and selectedTfoAzureNetworkId on the protected item",
  }),
  absentType(`${fabricType}/replicationLogicalNetworks`, {
    reason: "logical networks are of another kind of site than vCenters",
    action: "list replicationNetworks: port groups that the site's machines are plugged into",
  }),
  absentType(classificationType, classified),
  absentType(`${classificationType}/replicationStorageClassificationMappings`, classified),
  absentType(migrationItemType, agentless, [
    ...["migrate", "pauseReplication", "resumeReplication", "resync", "testMigrate", "testMigrateCleanup"],
  ]),
  absentType(`${migrationItemType}/migrationRecoveryPoints`, agentless),
];
