// Every route against every built-in role, one line each: what people read before a change of routes or roles is committed.

import { join } from "node:path";
import { listRoutes } from "../api/arm-router.ts";
import type { TypeTable } from "../api/resource-type.ts";
import { builtinRoles } from "./builtin-roles.ts";
import { rolesFor } from "./roles.ts";

export const rightsTableFile = join(import.meta.dirname, "rights-table.tsv");

/** A head, then one line a route: method, action, and for each role + or -. */
export function makeRightsTable(types: TypeTable): readonly string[] {
  const head = ["method", "action", ...builtinRoles.map((role) => role.name)].join("\t");
  const lines = listRoutes(types).map(({ method, action }) => {
    const allowed = new Set(rolesFor(action));
    return [method, action, ...builtinRoles.map((role) => (allowed.has(role.name) ? "+" : "-"))].join("\t");
  });
  return [head, ...[...new Set(lines)].toSorted((left, right) => (keyOf(left) < keyOf(right) ? -1 : 1))];
}

/** By action, then by method. */
function keyOf(line: string): string {
  const [method = "", action = ""] = line.split("\t");
  return `${action}\t${method}`;
}
