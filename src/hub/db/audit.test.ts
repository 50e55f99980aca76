// The audit trail against a real PostgreSQL: nothing in it can be changed, moved or taken away without being seen.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { startTestCluster, type TestCluster } from "../test-hub.ts";
import { openAuditTrail, readAuditHead, type AuditTrail } from "./audit.ts";
import { allAudit, proveAudit, type AuditProof } from "./audit-entries.ts";
import type { Database } from "./database.ts";

const entryShape = z.object({ kind: z.string(), entryId: z.string(), principalName: z.string(), outcome: z.string().optional() });
const subject = (name: string) => ({ principalId: name, principalName: name, action: "a/write", resourceId: "/r", correlationId: "c" });

let cluster: TestCluster;
before(async () => {
  cluster = await startTestCluster();
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
});

interface Trial extends AsyncDisposable {
  readonly database: Database;
  readonly headFile: string;
  open(): AuditTrail & AsyncDisposable;
  prove(): Promise<AuditProof>;
  /** As somebody who may do everything in the database. */
  tamper(statement: string): Promise<void>;
}

async function openTrial(): Promise<Trial> {
  const database = await cluster.openFreshDatabase();
  const headFile = join(cluster.stateDir, `${systemRandom.uuid()}.json`);
  return {
    database,
    headFile,
    open: () => openAuditTrail({ address: database.address, headFile, clock: systemClock, random: systemRandom, log: silentLog }),
    prove: async () => await proveAudit(database.db, await readAuditHead(headFile)),
    tamper: async (statement) => {
      await sql.raw("alter table audit_entries disable trigger all").execute(database.db);
      await sql.raw(statement).execute(database.db);
      await sql.raw("alter table audit_entries enable trigger all").execute(database.db);
    },
    [Symbol.asyncDispose]: async () => {
      await database[Symbol.asyncDispose]();
      await rm(headFile, { force: true });
    },
  };
}

/** 1 denied, then `count` writes of two rows each. */
async function fill(trial: Trial, count: number): Promise<void> {
  await using trail = trial.open();
  await trail.deny(subject("denied"));
  await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const work = await trail.begin(subject(`p${index}`));
      await work.end({ outcome: "200" });
    }),
  );
}

test("the trail of many writers at once is one whole chain, by several hubs too", async () => {
  await using trial = await openTrial();
  await Promise.all([fill(trial, 40), fill(trial, 40)]);
  await fill(trial, 1);
  const proof = await trial.prove();
  assert.deepEqual([proof.kind, proof.kind === "whole" ? proof.count : 0], ["whole", 165]);
});

test("the database refuses to change, remove or empty entries", async () => {
  await using trial = await openTrial();
  await fill(trial, 1);
  for (const statement of ["update audit_entries set entry = '{}'", "delete from audit_entries", "truncate audit_entries"])
    await assert.rejects(sql.raw(statement).execute(trial.database.db), /never changed/, statement);
  assert.equal((await trial.prove()).kind, "whole");
});

for (const [what, statement, sequence] of [
  ["a changed entry", "update audit_entries set entry = replace(entry, 'a/write', 'a/read') where sequence = 5", 5],
  ["a changed hash", "update audit_entries set hash = repeat('a', 64) where sequence = 4", 4],
  ["a removed entry", "delete from audit_entries where sequence = 3", 4],
  ["a removed first entry", "delete from audit_entries where sequence = 1", 2],
  [
    "two swapped entries",
    `update audit_entries as left_one set entry = right_one.entry, hash = right_one.hash, previous_hash = right_one.previous_hash
     from audit_entries as right_one where left_one.sequence + right_one.sequence = 5 and left_one.sequence in (2, 3)`,
    2,
  ],
  ["a removed last entry", "delete from audit_entries where sequence = 7", 7],
  ["an emptied trail", "truncate audit_entries", 1],
  [
    "a last entry whose hash was made anew",
    `update audit_entries set entry = replace(entry, '"200"', '"denied"'),
     hash = encode(sha256(convert_to(previous_hash || E'\\n' || replace(entry, '"200"', '"denied"'), 'UTF8')), 'hex') where sequence = 7`,
    7,
  ],
] as const)
  test(`${what} is found and named`, async () => {
    await using trial = await openTrial();
    await fill(trial, 3);
    assert.equal((await trial.prove()).kind, "whole");
    await trial.tamper(statement);
    const proof = await trial.prove();
    assert.deepEqual([proof.kind, proof.kind === "broken" ? proof.sequence : 0], ["broken", sequence], JSON.stringify(proof));
  });

for (const hub of ["the running hub", "a hub that starts again"])
  test(`${hub} does not heal a trail whose last entry was removed`, async () => {
    await using trial = await openTrial();
    await fill(trial, 3);
    await using trail = trial.open();
    if (hub === "the running hub") await trail.deny(subject("more"));
    await trial.tamper("delete from audit_entries where sequence = (select max(sequence) from audit_entries)");
    await trail.deny(subject("after"));
    await trail.deny(subject("later"));
    assert.equal((await trial.prove()).kind, "broken");
    await rm(trial.headFile);
    assert.equal((await trial.prove()).kind, "broken", "the rows themselves tell it");
  });

test("a hub that is killed in the midst of a write leaves an entry that begins and does not end", async () => {
  await using trial = await openTrial();
  const { address } = trial.database;
  assert.ok(address.kind === "socket");
  const program = join(import.meta.dirname, "trial-audit-child.ts");
  const args = [program, address.socketFolder, address.user, address.database, trial.headFile];
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
  await fill(trial, 1);
  assert.equal((await trial.prove()).kind, "whole");
  const entries: z.infer<typeof entryShape>[] = [];
  for await (const row of allAudit(trial.database.db)) entries.push(entryShape.parse(JSON.parse(row.entry)));
  const ended = new Set(entries.filter((entry) => entry.kind === "end").map((entry) => entry.entryId));
  const open = entries.filter((entry) => entry.kind === "begin" && !ended.has(entry.entryId));
  assert.deepEqual(
    open.map((entry) => [entry.principalName, entry.outcome]),
    [["killed", undefined]],
  );
});

test("a write waits for no connection of the pool that its caller holds", async () => {
  await using trial = await openTrial();
  await using trail = trial.open();
  const { db } = trial.database;
  const held = Array.from({ length: 16 }, async () => await db.transaction().execute(async () => await trail.deny(subject("holder"))));
  await Promise.all(held);
  assert.equal((await trial.prove()).kind, "whole");
});
