// Every route of the hub against every built-in role, held against a table that people have read: no endpoint comes without its line.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createTypeTable } from "../api/resource-type.ts";
import { extensions } from "../extensions.ts";
import { findFreePort, loopbackNetwork, openTestHub } from "../test-client.ts";
import { makeRightsTable, rightsTableFile } from "./rights-table.ts";

test("every route is in the table of rights, and each role may exactly what the table says", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-table-"));
  try {
    const hub = await openTestHub({
      stateDir,
      cidr: loopbackNetwork(),
      endpointPort: await findFreePort(),
      environment: { extensions },
    });
    const present = makeRightsTable(createTypeTable(hub.hub.types));
    await hub.hub[Symbol.asyncDispose]();
    const committed = new Set((await readFile(rightsTableFile, "utf8")).trimEnd().split("\n"));
    const hint = "./watari dev openapi writes the table anew; read its difference";
    const missing = present.filter((line) => !committed.has(line));
    assert.deepEqual(missing, [], `routes without their line: ${hint}`);
    assert.equal(committed.size, present.length, `the table has lines of routes that are gone: ${hint}`);
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});
