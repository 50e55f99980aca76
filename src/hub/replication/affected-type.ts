// What kind of object a job or event is about, in Azure's words, from the object's resource id.

const types = {
  replicationprotecteditems: "ProtectionEntity",
  replicationprotectableitems: "ProtectionEntity",
  replicationprotectioncontainers: "ProtectionContainer",
  replicationprotectioncontainermappings: "ProtectionContainerMapping",
  replicationrecoveryplans: "RecoveryPlan",
  replicationfabrics: "Fabric",
  replicationrecoveryservicesproviders: "Server",
  replicationvcenters: "VCenter",
  replicationpolicies: "ProtectionProfile",
  replicationjobs: "Job",
  vaults: "Vault",
} as const;

export function affectedTypeOf(resourceId: string): string {
  const segment = resourceId.split("/").at(-2)?.toLowerCase() ?? "";
  return Object.entries(types).find(([name]) => name === segment)?.[1] ?? "Other";
}
