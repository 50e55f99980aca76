// DELETE under If-Match: what was judged is what is removed, however long the removal takes.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { OpenExtension } from "../services.ts";
import { findFreePort, loopbackNetwork, openTestHub, type TestHub } from "../test-client.ts";
import { defineResource } from "./resource-type.ts";

let hub: TestHub;
let stateDir = "";
/** Of the removal that is under way. */
let removal: { readonly begun: () => void; readonly mayEnd: Promise<"done" | "refused"> };

const openSlow: OpenExtension = async () => ({
  name: "slow",
  start: async () => undefined,
  [Symbol.asyncDispose]: async () => undefined,
  types: [
    defineResource({
      type: "Microsoft.Watari/slowThings",
      within: "resourceGroup",
      properties: z.looseObject({}),
      onDelete: async () => {
        removal.begun();
        if ((await removal.mayEnd) === "done") return { kind: "done" };
        throw new Fault("StateConflict", "could not delete it: it is in use");
      },
    }),
  ],
});

before(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "watari-conditional-"));
  const environment = { extensions: [openSlow] };
  hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort(), environment });
  await hub.arm("PUT", hub.groupPath, { location: "lab1" });
});
after(async () => {
  await hub.hub[Symbol.asyncDispose]();
  await rm(stateDir, { recursive: true, force: true });
});

test("no write comes between the look at the tag and the removal; a removal that is refused leaves the resource free", async () => {
  const path = `${hub.groupPath}/providers/Microsoft.Watari/slowThings/one`;
  const etag = String((await hub.arm("PUT", path, { properties: { size: 1 } })).headers["etag"]);
  const condition = { "if-match": etag };
  const begin = async (): Promise<{ readonly ended: Promise<number>; readonly end: (how: "done" | "refused") => void }> => {
    const begun = Promise.withResolvers<void>();
    const mayEnd = Promise.withResolvers<"done" | "refused">();
    removal = { begun: begun.resolve, mayEnd: mayEnd.promise };
    const ended = hub.arm("DELETE", path, undefined, condition).then(({ status }) => status);
    await begun.promise;
    return { ended, end: mayEnd.resolve };
  };
  const first = await begin();
  assert.equal((await hub.arm("PUT", path, { properties: { size: 2 } })).status, 409);
  assert.equal((await hub.arm("DELETE", path, undefined, condition)).status, 409);
  first.end("refused");
  assert.equal(await first.ended, 409);
  const second = await begin();
  assert.equal((await hub.arm("PUT", path, { properties: { size: 2 } })).status, 409);
  second.end("done");
  assert.equal(await second.ended, 200);
  assert.equal((await hub.arm("PUT", path, { properties: { size: 3 } })).status, 201);
  assert.equal((await hub.arm("DELETE", path, undefined, condition)).status, 412);
});
