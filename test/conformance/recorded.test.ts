// Calls that Terraform's azurerm provider and the az site-recovery extension make, as they document them, against a hub.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { z } from "zod";
import { extensions } from "../../src/hub/extensions.ts";
import {
  callTarget,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  testDomain,
  type Answer,
  type TestHub,
} from "../../src/hub/test-client.ts";

const callsShape = z.array(
  z.strictObject({
    what: z.string(),
    method: z.enum(["GET", "PUT", "PATCH", "POST", "DELETE"]),
    path: z.string(),
    apiVersion: z.string(),
    body: z.unknown().optional(),
    ifNoneMatch: z.string().optional(),
    /** Anything else is a fault to the client. */
    expects: z.array(z.number()).min(1),
    shows: z.array(z.string()).optional(),
    code: z.string().optional(),
  }),
);

let hub: TestHub;
let stateDir = "";

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-recorded-"));
  hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort(), environment: { extensions } });
});

after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

async function make(call: z.infer<typeof callsShape>[number]): Promise<Answer> {
  return await callTarget(hub.target(`management.${testDomain}`), {
    method: call.method,
    path: `${call.path.replace("{group}", hub.groupPath)}?api-version=${call.apiVersion}`,
    body: call.body,
    headers: {
      authorization: `Bearer ${await hub.token()}`,
      // go-azure-sdk names the type also where it sends nothing.
      "content-type": "application/json; charset=utf-8",
      ...(call.ifNoneMatch === undefined ? {} : { "if-none-match": call.ifNoneMatch }),
    },
  });
}

for (const file of ["azurerm", "az-site-recovery"])
  test(`the calls of ${file} are answered as it expects`, async () => {
    const calls = callsShape.parse(JSON.parse(await readFile(join(import.meta.dirname, "recorded", `${file}.json`), "utf8")));
    for (const call of calls) {
      const answer = await make(call);
      assert.ok(call.expects.includes(answer.status), `${call.what}: ${answer.status} ${JSON.stringify(answer.body)}`);
      const body = z.looseObject({}).safeParse(answer.body).data ?? {};
      for (const member of call.shows ?? []) assert.ok(body[member] !== undefined, `${call.what}: ${member}`);
      if (call.code !== undefined)
        assert.equal(z.object({ error: z.object({ code: z.string() }) }).parse(body).error.code, call.code, call.what);
      if (answer.status === 202)
        assert.ok(answer.headers["azure-asyncoperation"] !== undefined && answer.headers["location"] !== undefined, call.what);
    }
  });
