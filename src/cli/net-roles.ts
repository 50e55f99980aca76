// Finds a role of a plan by what a person typed.

import type { PlanMatrix, PlanRole } from "../connectivity/plan/matrix.ts";
import { Fault } from "../contract/errors.ts";

export function wantRole(matrix: PlanMatrix, id: string): PlanRole {
  const role = matrix.roles.find((each) => each.id === id);
  if (role !== undefined) return role;
  throw new Fault("InputInvalid", `the plan has no role ${JSON.stringify(id.slice(0, 80))}`, {
    evidence: { roles: matrix.roles.map((each) => each.id) },
    action: "take one of these roles",
  });
}
