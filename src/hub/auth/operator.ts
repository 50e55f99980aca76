// The first operator: made at the first start, Owner of the subscription; its secret is written once to a 0600 file.

import { join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Random } from "../../base/random.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { Principals } from "../db/principals.ts";
import type { ResourceStore } from "../db/resources.ts";
import { roleAssignmentType } from "../db/role-assignments.ts";
import { ownerRoleId } from "./builtin-roles.ts";

export interface OperatorFile {
  readonly managementUrl: string;
  readonly loginUrl: string;
  readonly tenantId: string;
  readonly subscriptionId: string;
  readonly caPem: string;
}

const secretBytes = 32;

/** The file is durable before the operator exists: a start that was cut makes both anew. Answers the file's path when it was written. */
export async function bootstrapOperator(dependencies: {
  readonly principals: Principals;
  readonly resources: ResourceStore;
  readonly random: Random;
  readonly stateDir: string;
  readonly facts: OperatorFile;
}): Promise<string | undefined> {
  const { principals, resources, random, stateDir, facts } = dependencies;
  if (await principals.hadOperator()) return undefined;
  const [principalId, clientId] = [random.uuid(), random.uuid()];
  const clientSecret = Buffer.from(random.bytes(secretBytes)).toString("base64url");
  const path = join(stateDir, "operator.json");
  await writeFileAtomic(path, `${JSON.stringify({ ...facts, clientId, clientSecret }, undefined, 2)}\n`, { mode: 0o600 });
  const scope = `/subscriptions/${facts.subscriptionId}`;
  await resources.save({
    id: parseResourceId(`${scope}/providers/${roleAssignmentType}/${principalId}`),
    properties: {
      principalId,
      roleDefinitionId: `/providers/Microsoft.Authorization/roleDefinitions/${ownerRoleId}`,
      principalType: "ServicePrincipal",
      scope,
    },
  });
  await principals.add({ principalId, clientId, kind: "operator", name: "operator" }, clientSecret);
  await principals.hadOperator(); // Remembered before anyone can remove it.
  return path;
}
