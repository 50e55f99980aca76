// A database server of the site is stopped, in order or as by a crash, and started again: the hub stays, and no acknowledged write is lost.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { Fault } from "../../src/contract/errors.ts";
import { proveAudit } from "../../src/hub/db/audit-entries.ts";
import { codeOf, findFreePort, loopbackNetwork, openTestHub, type TestHub } from "../../src/hub/test-client.ts";
import { startTestServer } from "../../src/hub/test-server.ts";

export interface Outage {
  readonly mode: "fast" | "immediate";
  readonly awayMs: number;
  readonly acknowledged: number;
  /** 503 DatabaseUnavailable, which tells the client to call again. */
  readonly refused: number;
  readonly otherAnswers: number;
  readonly lost: number;
  /** From the server's start to the first write that was acknowledged. */
  readonly backMs: number;
  readonly isAuditWhole: boolean;
}

const awayMs = 3000;
const backMsMax = 60_000;
const pauseMs = 50;
const writesBefore = 10;

export async function proveOutsideServer({
  rounds,
  say,
}: {
  readonly rounds: number;
  readonly say: (line: string) => void;
}): Promise<readonly Outage[]> {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-outside-"));
  await using server = await startTestServer();
  try {
    const access = { databaseUrl: await server.createDatabase(), databaseCaFile: server.caFile, databasePasswordFile: server.passwordFile };
    const test = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort(), ...access });
    await using _hub = test.hub;
    const outages: Outage[] = [];
    for (let round = 0; round < rounds; round++) {
      const mode = round % 2 === 0 ? "immediate" : "fast";
      outages.push(await sufferOutage(test, server, { mode, round }));
      say(`outage ${round + 1} of ${rounds} (${mode}) is over`);
    }
    return outages;
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
}

async function sufferOutage(
  test: TestHub,
  server: Awaited<ReturnType<typeof startTestServer>>,
  { mode, round }: { readonly mode: Outage["mode"]; readonly round: number },
): Promise<Outage> {
  const groups = `/subscriptions/${test.operator.subscriptionId}/resourceGroups`;
  const acknowledged: string[] = [];
  const counts = { refused: 0, otherAnswers: 0 };
  const write = async (number: number): Promise<boolean> => {
    const name = `outage-${round}-${number}`;
    const answer = await test.arm("PUT", `${groups}/${name}`, { location: "lab1" });
    if (answer.status < 300) acknowledged.push(name);
    else if (answer.status === 503 && codeOf(answer) === "DatabaseUnavailable") counts.refused++;
    else counts.otherAnswers++;
    return answer.status < 300;
  };
  let number = 0;
  while (acknowledged.length < writesBefore) await write(number++);
  // Clients go on calling while it goes, while it is away, and while it comes back.
  const ending = new AbortController();
  const calling = (async () => {
    while (!ending.signal.aborted) {
      await write(number++);
      await systemClock.sleep(pauseMs);
    }
  })();
  await server.stop(mode);
  await systemClock.sleep(awayMs);
  await server.start();
  const [startedMs, before] = [systemClock.monotonicMs(), acknowledged.length];
  while (acknowledged.length === before) {
    if (systemClock.monotonicMs() - startedMs > backMsMax)
      throw new Fault("DatabaseUnavailable", "the hub did not find its database again", { evidence: { waitedMs: backMsMax } });
    await systemClock.sleep(pauseMs);
  }
  const backMs = Math.round(systemClock.monotonicMs() - startedMs);
  ending.abort();
  await calling;
  let lost = 0;
  for (const name of acknowledged) if ((await test.arm("GET", `${groups}/${name}`)).status !== 200) lost++;
  const isAuditWhole = (await proveAudit(test.hub.services.database.db, undefined)).kind === "whole";
  return { mode, awayMs, acknowledged: acknowledged.length, ...counts, lost, backMs, isAuditWhole };
}
