// One hub on an outside PostgreSQL, by TLS, with 1,000 appliances over the real protocol: what they cost, and what a restart does to them.

import assert from "node:assert/strict";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { z } from "zod";
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { forEachParallel } from "../src/base/semaphore.ts";
import { ArmClient } from "../src/cli/arm-client.ts";
import { registrationKeyShape } from "../src/contract/appliance-protocol.ts";
import { openPlainConnection } from "../src/hub/db/database.ts";
import { readServerAddress } from "../src/hub/db/server-address.ts";
import { findFreePort } from "../src/hub/test-client.ts";
import { startTestServer } from "../src/hub/test-server.ts";
import { createLandingZone } from "../src/sim/landing-zone.ts";
import { openSimulatedSite } from "../src/sim/simulated-site.ts";
import { startHubProgram, type HubProgram } from "./hub-program.ts";
import { quantile } from "./measured.ts";

export interface AppliancesWish {
  readonly count: number;
  readonly orders: number;
  readonly quietSeconds: number;
}

export interface AppliancesFigures {
  readonly count: number;
  readonly registerSeconds: number;
  readonly registerP99Ms: number;
  readonly quiet: { readonly hubProcessors: number; readonly databaseProcessors: number; readonly hubResidentMib: number };
  readonly orders: {
    readonly count: number;
    readonly givenP50Ms: number;
    readonly givenP99Ms: number;
    readonly doneP50Ms: number;
    readonly doneP99Ms: number;
  };
  readonly storm: {
    readonly readySeconds: number;
    readonly halfSeconds: number;
    readonly allSeconds: number;
    readonly longestCallMs: number;
  };
}

type Db = ReturnType<typeof openPlainConnection>["db"];

const registrationsAtOnce = 8;
const operatorsAtOnce = 8;
const location = "lab1";
const names = { network: "landing", subnet: "default", account: "benchpacks", vault: "bench" };
const say = (line: string): void => void process.stderr.write(`${line}\n`);

export async function measureAppliances(wish: AppliancesWish): Promise<AppliancesFigures> {
  const folder = await mkdtemp(join(tmpdir(), "wb-sites-"));
  await chmod(folder, 0o711);
  await using closing = new AsyncDisposableStack();
  closing.defer(async () => await rm(folder, { recursive: true, force: true }));
  const server = closing.use(await startTestServer());
  const databaseUrl = await server.createDatabase();
  const database = { databaseUrl, databaseCaFile: server.caFile, databasePasswordFile: server.passwordFile };
  const port = await findFreePort();
  const cidr = `127.${(64 + (systemRandom.bytes(1)[0] ?? 0) / 2) | 0}.${systemRandom.bytes(1)[0] ?? 0}.0/24`;
  const networks = [{ virtualNetwork: names.network, subnet: names.subnet, cidr }];
  const options = { folder, config: { ...database, managementPort: port, endpointPort: port, networks }, dataFolder: server.dataFolder };
  const first = await startHubProgram(options);
  const { db } = closing.use(openPlainConnection(await readServerAddress({ ...database, url: databaseUrl }), silentLog));
  const profile = { ...first.operator, resourceGroup: "bench", location };
  const arm = closing.use(new ArmClient({ profile, clock: systemClock }));
  const zone = await createLandingZone(arm, { names, cidr, random: systemRandom });
  const sites = closing.use(new AsyncDisposableStack());
  const registered = await registerAll({ arm, zone, sites, port, count: wish.count });
  say(`registered ${wish.count} appliances in ${registered.registerSeconds.toFixed(1)} s`);
  const quiet = await watchQuiet(first, wish.quietSeconds);
  const orders = await giveOrders(arm, db, zone.vaultId, wish.orders);
  say(`gave ${orders.count} orders`);
  await first.end("SIGKILL");
  const storm = await restart({ options, db, vaultId: zone.vaultId, count: wish.count, closing });
  return { count: wish.count, ...registered, quiet, orders, storm };
}

async function registerAll(wish: {
  readonly arm: ArmClient;
  readonly zone: Awaited<ReturnType<typeof createLandingZone>>;
  readonly sites: AsyncDisposableStack;
  readonly port: number;
  readonly count: number;
}): Promise<Pick<AppliancesFigures, "registerSeconds" | "registerP99Ms">> {
  const { arm, zone, sites, port, count } = wish;
  const startedMs = systemClock.monotonicMs();
  const times: number[] = [];
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  await forEachParallel(numbers, registrationsAtOnce, async (siteNumber) => {
    const beganMs = systemClock.monotonicMs();
    const key = registrationKeyShape.parse(await arm.change("POST", `${zone.vaultId}/registrationKeys`, {}));
    const place = { key, hosts: zone.names, hubPort: port, name: `site-${siteNumber}`, siteNumber, machineCount: 1, paceSeconds: 0 };
    sites.use(await openSimulatedSite({ ...place, clock: systemClock, random: systemRandom, log: silentLog }));
    times.push(systemClock.monotonicMs() - beganMs);
  });
  return { registerSeconds: (systemClock.monotonicMs() - startedMs) / 1000, registerP99Ms: quantile(times, 0.99) };
}

async function watchQuiet(hub: HubProgram, seconds: number): Promise<AppliancesFigures["quiet"]> {
  const before = await hub.usage();
  await systemClock.sleep(seconds * 1000);
  const after = await hub.usage();
  return {
    hubProcessors: (after.hubCpuSeconds - before.hubCpuSeconds) / seconds,
    databaseProcessors: (after.databaseCpuSeconds - before.databaseCpuSeconds) / seconds,
    hubResidentMib: after.hubResidentMib,
  };
}

/** A small order to as many appliances, each a job of its own; times are the database's own, from the queue to the poll and to the answer. */
async function giveOrders(arm: ArmClient, db: Db, vaultId: string, count: number): Promise<AppliancesFigures["orders"]> {
  const fabrics = z.array(z.object({ id: z.string() })).parse(await arm.list(`${vaultId}/replicationFabrics`));
  const chosen = fabrics.slice(0, count);
  await forEachParallel(chosen, operatorsAtOnce, async ({ id }) => void (await arm.change("POST", `${id}/checkConsistency`, {})));
  const found = await sql<{ given: number; done: number }>`select extract(epoch from given_at - created_at)::float8 * 1000 as given,
    extract(epoch from ended_at - created_at)::float8 * 1000 as done from orders where kind = 'discover' and ended_at is not null`.execute(
    db,
  );
  assert.equal(found.rows.length, chosen.length, "every order was answered");
  const [given, done] = [found.rows.map((row) => row.given), found.rows.map((row) => row.done)];
  return {
    count: chosen.length,
    ...{ givenP50Ms: quantile(given, 0.5), givenP99Ms: quantile(given, 0.99) },
    ...{ doneP50Ms: quantile(done, 0.5), doneP99Ms: quantile(done, 0.99) },
  };
}

/** All appliances come at once to a hub that has just begun, while an operator calls. */
async function restart(wish: {
  readonly options: Parameters<typeof startHubProgram>[0];
  readonly db: Db;
  readonly vaultId: string;
  readonly count: number;
  readonly closing: AsyncDisposableStack;
}): Promise<AppliancesFigures["storm"]> {
  const { options, db, vaultId, count, closing } = wish;
  const began = await sql<{ now: string }>`select clock_timestamp() as now`.execute(db);
  const startedMs = systemClock.monotonicMs();
  const hub = closing.use(await startHubProgram(options));
  let halfSeconds = Number.NaN;
  let longestCallMs = 0;
  for (;;) {
    const calledMs = systemClock.monotonicMs();
    await hub.page(`${vaultId}/replicationJobs?api-version=2025-08-01`);
    longestCallMs = Math.max(longestCallMs, systemClock.monotonicMs() - calledMs);
    const back = await sql<{
      count: number;
    }>`select count(*)::int as count from appliances where last_seen_at > ${began.rows[0]?.now}`.execute(db);
    const seconds = (systemClock.monotonicMs() - startedMs) / 1000;
    const backCount = back.rows[0]?.count ?? 0;
    if (Number.isNaN(halfSeconds) && backCount >= count / 2) halfSeconds = seconds;
    if (backCount >= count) return { readySeconds: hub.startSeconds, halfSeconds, allSeconds: seconds, longestCallMs };
    assert.ok(seconds < 300, `${count - backCount} appliances did not come back`);
    await systemClock.sleep(100);
  }
}
