// What differs between Azure's resource providers in one place: the api-versions that each answers, and its status codes.

import { ArmFault } from "./arm-errors.ts";

export interface TypeDialect {
  /** Oldest first. Any date between the first and the last is answered: clients of all those years send them. */
  readonly apiVersions: readonly string[];
  /** Of a PUT that made the resource at once. */
  readonly createdStatus: 200 | 201;
  /** Of a PUT that made the resource and goes on working. */
  readonly creatingStatus: 201 | 202;
  /** Of a DELETE that is done at once; "resource": 200 with what was deleted. */
  readonly deleted: 200 | 204 | "resource";
}

/** What Watari's own programs send, to every type. */
const houseVersion = "2025-08-01";

const usual = { createdStatus: 201, creatingStatus: 201, deleted: 200 } as const;

const vaultVersions = [
  ...["2016-06-01", "2020-02-02", "2020-10-01", "2021-01-01", "2021-03-01", "2021-08-01", "2021-12-01", "2022-02-01", "2022-10-01"],
  ...["2023-04-01", "2024-01-01", "2024-04-01", "2024-10-01", "2025-02-01", "2025-08-01", "2026-02-01", "2026-05-01", "2026-07-01"],
];

/** The longest prefix of a type's name counts. Versions: those of the published specifications that SDKs, azurerm and az send. */
const dialects: Readonly<Record<string, TypeDialect>> = {
  "Microsoft.RecoveryServices": { ...usual, apiVersions: vaultVersions },
  // Vaults' own, beside the types of replication below them.
  "Microsoft.RecoveryServices/vaults/replicationUsages": { ...usual, apiVersions: vaultVersions },
  "Microsoft.RecoveryServices/vaults/registeredIdentities": { ...usual, apiVersions: vaultVersions, deleted: 204 },
  // Its clients for Go and Python take 200 and 202 for a PUT and 202 and 204 for a DELETE; anything else is a fault to them.
  "Microsoft.RecoveryServices/vaults/replication": {
    createdStatus: 200,
    creatingStatus: 202,
    deleted: 204,
    apiVersions: [
      ...["2016-08-10", "2018-01-10", "2018-07-10", "2021-02-10", "2021-11-01", "2022-02-01", "2022-05-01", "2022-08-01", "2022-10-01"],
      ...["2023-01-01", "2023-06-01", "2023-08-01", "2024-01-01", "2024-04-01", "2024-10-01", "2025-01-01", "2025-02-01", "2025-08-01"],
      "2026-02-01",
    ],
  },
  "Microsoft.Migrate": {
    ...usual,
    apiVersions: ["2018-02-02", "2018-09-01-preview", "2019-06-01", "2020-05-01", "2023-01-01", houseVersion],
  },
  "Microsoft.Network": {
    ...usual,
    apiVersions: [
      ...["2016-03-30", "2018-10-01", "2019-11-01", "2020-11-01", "2021-08-01", "2022-07-01", "2022-09-01", "2023-02-01", "2023-09-01"],
      ...["2023-11-01", "2024-01-01", "2024-03-01", "2024-05-01", "2024-07-01", "2025-01-01", "2025-05-01", "2026-01-01"],
    ],
  },
  "Microsoft.Network/privateDnsZones": { ...usual, apiVersions: ["2018-09-01", "2020-01-01", "2020-06-01", "2024-06-01", houseVersion] },
  // PUT of an account is documented with 200 and 202 alone.
  "Microsoft.Storage": {
    ...usual,
    createdStatus: 200,
    creatingStatus: 202,
    apiVersions: [
      ...["2016-01-01", "2018-07-01", "2019-06-01", "2021-04-01", "2021-09-01", "2022-05-01", "2022-09-01", "2023-01-01", "2023-05-01"],
      ...["2024-01-01", "2025-01-01", "2025-06-01", "2025-08-01", "2026-04-01", "2026-06-01", "2026-09-01"],
    ],
  },
  "Microsoft.Compute": {
    ...usual,
    apiVersions: [
      ...["2016-03-30", "2018-06-01", "2019-12-01", "2020-06-01", "2021-07-01", "2022-03-01", "2022-03-02", "2022-11-01", "2023-03-01"],
      ...["2024-03-01", "2024-07-01", "2024-11-01", "2025-04-01", "2025-12-03", "2026-03-02", "2026-04-01"],
    ],
  },
  "Microsoft.Resources": {
    ...usual,
    apiVersions: [
      "2015-11-01",
      "2016-06-01",
      "2018-05-01",
      "2019-06-01",
      "2020-06-01",
      "2021-04-01",
      "2022-09-01",
      "2022-12-01",
      "2023-07-01",
      "2024-03-01",
      "2024-11-01",
      "2025-04-01",
      houseVersion,
    ],
  },
  "Microsoft.Authorization": {
    ...usual,
    deleted: "resource",
    apiVersions: [
      "2015-07-01",
      "2018-01-01-preview",
      "2018-07-01",
      "2020-04-01-preview",
      "2020-10-01",
      "2022-04-01",
      "2022-05-01-preview",
      houseVersion,
    ],
  },
  "Microsoft.ManagedIdentity": { ...usual, apiVersions: ["2015-08-31-preview", "2018-11-30", "2023-01-31", "2024-11-30", houseVersion] },
  "Microsoft.Watari": { ...usual, apiVersions: [houseVersion] },
};

const versionPattern = /^\d{4}-\d{2}-\d{2}(-[a-z]+)?$/i;
const prefixes = Object.keys(dialects).toSorted((left, right) => right.length - left.length);

/** undefined for a namespace that the table does not name. */
function findDialect(type: string): TypeDialect | undefined {
  const name = type.toLowerCase();
  const prefix = prefixes.find((each) => name.startsWith(each.toLowerCase()));
  return prefix === undefined ? undefined : dialects[prefix];
}

export function dialectOf(type: string): TypeDialect {
  return findDialect(type) ?? { ...usual, apiVersions: [houseVersion] };
}

/** What a program that goes with this hub calls the type with. */
export function newestVersionOf(type: string): string {
  return dialectOf(type).apiVersions.at(-1) ?? houseVersion;
}

/** Every call names its version; the form is judged before the type is known. */
export function requireApiVersion(version: string | undefined): string {
  if (version !== undefined && versionPattern.test(version)) return version;
  const isMissing = version === undefined || version === "";
  throw new ArmFault(
    "InputInvalid",
    isMissing ? "MissingApiVersionParameter" : "InvalidApiVersionParameter",
    `could not read the call: the query parameter api-version is ${isMissing ? "missing" : "not a date"}`,
    {
      evidence: { apiVersion: version ?? "missing" },
      action: "add api-version=YYYY-MM-DD to the call",
      target: "api-version",
    },
  );
}

/** Refuses a version that this type never had, and lists those it has. */
export function requireSupportedVersion(type: string, version: string): void {
  const { apiVersions } = dialectOf(type);
  const date = version.slice(0, houseVersion.length);
  const first = apiVersions[0] ?? houseVersion;
  const last = apiVersions.at(-1) ?? houseVersion;
  if (date === houseVersion || (date >= first.slice(0, date.length) && date <= last)) return;
  throw new ArmFault(
    "InputInvalid",
    "NoRegisteredProviderFound",
    `could not call ${type} with api-version ${version}; the supported api-versions are '${apiVersions.join(", ")}' and the dates between`,
    {
      evidence: { resourceType: type, apiVersion: version, supportedApiVersions: apiVersions },
      action: "call with one of the supported api-versions",
      target: "api-version",
    },
  );
}
