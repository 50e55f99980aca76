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

const typeOf: ReadonlyMap<string, string> = new Map(Object.entries(types));

export function affectedTypeOf(resourceId: string): string {
  const segment = resourceId.split("/").at(-2)?.toLowerCase() ?? "";
  return typeOf.get(segment) ?? "Other";
}

/** Path segments whose objects are of the given kinds; undefined where a kind is unknown. */
export function segmentsOf(kinds: readonly string[]): readonly string[] | undefined {
  const found = kinds.map((kind) => Object.entries(types).filter(([, type]) => type.toLowerCase() === kind.toLowerCase()));
  return found.some((entries) => entries.length === 0) ? undefined : found.flat().map(([segment]) => segment);
}
