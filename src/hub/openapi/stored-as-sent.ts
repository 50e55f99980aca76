// Types that keep members which the hub does not know, and answer them again.

/** The type's `properties` schema is loose, and what reads get is what was stored; test/conformance/strictness.test.ts proves it for each. */
export const storedAsSent: ReadonlySet<string> = new Set([
  "Microsoft.Network/virtualNetworks",
  "Microsoft.Network/virtualNetworks/subnets",
  "Microsoft.Network/privateDnsZones/virtualNetworkLinks",
  "Microsoft.Network/privateEndpoints",
  "Microsoft.Network/privateEndpoints/privateDnsZoneGroups",
  "Microsoft.Storage/storageAccounts",
  "Microsoft.Storage/storageAccounts/blobServices",
  "Microsoft.Migrate/migrateProjects",
  "Microsoft.RecoveryServices/vaults",
  "Microsoft.RecoveryServices/vaults/replicationVaultSettings",
  ...["A", "AAAA", "CNAME", "MX", "PTR", "SOA", "SRV", "TXT"].map((record) => `Microsoft.Network/privateDnsZones/${record}`),
]);
