// Paths that belong to no resource type: what is asked outside of subscriptions, and the addresses that a 202 names.

import { z } from "zod";
import { operationStatus, tenantAnswers } from "./answers/answers.ts";
import { reference, responsesOf, toSchema, type Json } from "./components.ts";

const operations = [
  ["Status", "locations/{locationName}/operationStatuses", "Microsoft.Resources", "{namespace}"],
  ["Result", "locations/{locationName}/operationResults", "Microsoft.Resources", "{namespace}"],
  ["VaultStatus", "vaults/{vaultName}/operationStatus", "Microsoft.RecoveryServices", "Microsoft.RecoveryServices"],
  ["VaultResult", "vaults/{vaultName}/operationResults", "Microsoft.RecoveryServices", "Microsoft.RecoveryServices"],
] as const;

/** Those of one document; of all in the document of a whole hub. */
export function fixedPaths(document: string): Record<string, Record<string, Json>> {
  const isHere = (namespace: string): boolean => document === namespace || !document.includes(".");
  const tenant = isHere("Microsoft.Resources") ? Object.entries(tenantAnswers) : [];
  return Object.fromEntries([
    ...tenant
      .filter(([route]) => route !== "/subscriptions") // The list of that type.
      .map(([route, shape]) => {
        const path = route.replaceAll(/:(\w+)/g, "{$1}");
        const id = path.replaceAll(/[^A-Za-z]+(\w?)/g, (_all, first: string) => first.toUpperCase());
        return [
          path,
          at(path, { operationId: `Tenant_${id}`, answer: toSchema(shape, "output"), right: "Microsoft.Resources/tenants/read" }),
        ];
      }),
    ...operations
      .filter(([, , namespace]) => isHere(namespace))
      .map(([name, segments, , namespace]) => {
        const scope = name.startsWith("Vault")
          ? "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}"
          : "/subscriptions/{subscriptionId}";
        const path = `${scope}/providers/${namespace}/${segments}/{operationId}`;
        // The result is that of the write or action which began it.
        const answer = name.endsWith("Status")
          ? toSchema(operationStatus, "output")
          : toSchema(z.record(z.string(), z.unknown()), "output");
        const statuses = name.endsWith("Status") ? ["200"] : ["200", "202", "204"];
        return [path, at(path, { operationId: `Operation_${name}`, answer, right: "{type}/read", statuses })];
      }),
  ]);
}

function at(
  path: string,
  wanted: { readonly operationId: string; readonly answer: Json; readonly right: string; readonly statuses?: readonly string[] },
): Record<string, Json> {
  const { operationId, answer, right, statuses = ["200"] } = wanted;
  const names = [...path.matchAll(/\{([^}]+)\}/g)].map((found) => found[1] ?? "");
  const parameters = names.map((name) => ({ name, in: "path", required: true, schema: { type: "string", maxLength: 260 } }));
  return {
    parameters: [reference("parameters", "ApiVersion"), ...parameters],
    get: { operationId, tags: ["Operations"], "x-watari-right": right, responses: responsesOf(answer, statuses) },
  };
}
