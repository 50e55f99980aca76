// Every route of the hub against every built-in role, held against a table that people have read: no endpoint comes without its line.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { listRoutes } from "../api/arm-router.ts";
import { createTypeTable, type ResourceType } from "../api/resource-type.ts";
import { extensions } from "../extensions.ts";
import { findFreePort, loopbackNetwork, openTestHub } from "../test-client.ts";
import { builtinRoles } from "./builtin-roles.ts";
import { rolesFor } from "./roles.ts";

const tableFile = join(import.meta.dirname, "rights-table.tsv");
/** Set to 1 to write the table anew; then read its difference before it is committed. */
const rewriteVariable = "WATARI_REWRITE_RIGHTS";

/** One line a route: method, action, and for each role + or -. */
function tableOf(types: readonly ResourceType[]): readonly string[] {
  const head = ["method", "action", ...builtinRoles.map((role) => role.name)].join("\t");
  const lines = listRoutes(createTypeTable(types)).map(({ method, action }) => {
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

test("every route is in the table of rights, and each role may exactly what the table says", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-table-"));
  try {
    const hub = await openTestHub({
      stateDir,
      cidr: loopbackNetwork(),
      endpointPort: await findFreePort(),
      environment: { extensions },
    });
    const present = tableOf(hub.hub.types);
    await hub.hub[Symbol.asyncDispose]();
    if (process.env[rewriteVariable] === "1") await writeFileAtomic(tableFile, `${present.join("\n")}\n`, { mode: 0o644 });
    const committed = new Set((await readFile(tableFile, "utf8")).trimEnd().split("\n"));
    const hint = `${rewriteVariable}=1 node --test ${import.meta.filename} writes the table anew; read its difference`;
    const missing = present.filter((line) => !committed.has(line));
    assert.deepEqual(missing, [], `routes without their line: ${hint}`);
    assert.equal(committed.size, present.length, `the table has lines of routes that are gone: ${hint}`);
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});
