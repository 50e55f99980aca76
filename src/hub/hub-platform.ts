// The platform's resource types, and the router over them and the extensions' types.

import type { AnswerWatch } from "./api/arm-call.ts";
import { createArmRouter, type ArmRouter } from "./api/arm-router.ts";
import { createTypeTable, type ResourceType, type TypeTable } from "./api/resource-type.ts";
import { createAuthorize, type Authorize } from "./auth/roles.ts";
import { landingNetworksOf, type HubConfig } from "./hub-config.ts";
import type { BlobFiles } from "./blob/blob-files.ts";
import type { HubStores } from "./hub-stores.ts";
import type { Authority } from "./pki/authority.ts";
import type { PrivateLink } from "./private-link/private-link.ts";
import type { PublicNames } from "./private-link/public-door.ts";
import { auditEntryType } from "./resources/audit-entries.ts";
import { authorizationTypes } from "./resources/authorization.ts";
import { createDnsSettings } from "./resources/dns-settings.ts";
import { dnsTypes } from "./resources/dns-zones.ts";
import { groupTypes, type GroupDependencies } from "./resources/groups.ts";
import { groupType } from "./resources/identity-groups.ts";
import { personType } from "./resources/identity-people.ts";
import { networkLocationTypes } from "./resources/network-locations.ts";
import { networkTypes } from "./resources/networks.ts";
import { endpointTypes } from "./resources/private-endpoints.ts";
import { projectTypes } from "./resources/projects.ts";
import { operationListType } from "./resources/provider-operations.ts";
import { providerTypes } from "./resources/providers.ts";
import { resourceListTypes } from "./resources/resource-lists.ts";
import { createRegistrationKeyMaker } from "./resources/registration-key.ts";
import { servicePrincipalType } from "./resources/service-principals.ts";
import { storageTypes } from "./resources/storage-accounts.ts";
import { settleVaultStorage } from "./resources/vault-storage.ts";
import { vaultLocationTypes } from "./resources/vault-locations.ts";
import { vaultPartTypes } from "./resources/vault-parts.ts";
import { vaultTypes } from "./resources/vaults.ts";
import type { HubServices } from "./services.ts";

export interface Platform {
  readonly types: TypeTable;
  readonly router: ArmRouter;
  readonly authorize: Authorize;
}

const protectedItemType = "Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems";
const usesMax = 20;

export function createPlatform(wanted: {
  readonly config: HubConfig;
  readonly services: HubServices;
  readonly stores: HubStores;
  readonly authority: Authority;
  readonly names: PublicNames;
  readonly privateLink: () => PrivateLink;
  readonly blobs: BlobFiles;
  readonly accountsChanged: () => Promise<void>;
  readonly extraTypes: readonly ResourceType[];
  readonly answerWatch?: AnswerWatch | undefined;
  /** Begins jobs, where there are any. */
  readonly submit: GroupDependencies["submit"];
}): Platform {
  const { config, services, stores, authority, names, privateLink, blobs, accountsChanged } = wanted;
  const { resources, secrets, random, clock, vaults, appliances } = services;
  const { networks, domain } = config;
  const dnsSettings = createDnsSettings({ resources, networks, domain });
  const registrationKeys = createRegistrationKeyMaker({
    keys: stores.registrationKeys,
    dnsSettings,
    vaults,
    settleStorage: async (vault) => await settleVaultStorage(stores, vault),
    publicNames: Object.values(names),
    caPem: authority.trustPem,
    clock,
    random,
  });
  const types: TypeTable = createTypeTable([
    ...groupTypes({ db: stores.database.db, resources, submit: wanted.submit }),
    ...resourceListTypes({ db: stores.database.db, resources, types: () => types }),
    ...providerTypes({ db: stores.database.db, types: () => types }),
    ...authorizationTypes(stores),
    auditEntryType(stores.database.db),
    servicePrincipalType({ ...stores, random, clock }),
    groupType(stores),
    personType(stores),
    ...networkTypes({ resources, addresses: stores.addresses, networks, landingNetworks: landingNetworksOf(config.landing), random }),
    ...dnsTypes({ resources, privateLink }),
    ...endpointTypes({ resources, addresses: stores.addresses, networks, domain, privateLink, dnsSettings }),
    ...storageTypes({ resources, secrets, random, clock, domain, privateLink, blobs, accountsChanged }),
    ...projectTypes({ resources, privateLink, domain }),
    ...networkLocationTypes({ resources }),
    ...vaultTypes({
      ...stores,
      random,
      dnsSettings,
      registrationKeys,
      usesOf: async (vault) => {
        const items = await resources.list({ under: vault.id.text, isDeep: true, type: protectedItemType, countMax: usesMax });
        return items.map((item) => item.id.text);
      },
      forget: async (vault) => await appliances.removeVault(vault.id.text),
    }),
    ...vaultPartTypes({ resources, secrets, privateLink }),
    ...vaultLocationTypes({ resources, domain }),
    operationListType(() => types),
    ...wanted.extraTypes,
  ]);
  const authorize = createAuthorize(stores.assignments);
  return {
    types,
    authorize,
    router: createArmRouter({
      ...{ types, resources, operations: services.operations, audit: services.audit, authorize },
      onAnswer: wanted.answerWatch?.onAnswer,
    }),
  };
}
