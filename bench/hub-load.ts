// One hub on its embedded database after years: 10,000 items and 1,000,000 events, called 200 times a second by an operator's programs.
// Run: node bench/hub-load.ts [--items 10000] [--events 1000000] [--rate 200] [--seconds 60] [--json FILE]

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import autocannon from "autocannon";
import { Agent, request } from "undici";
import { z } from "zod";
import { operatorFileShape, parseJson } from "../src/cli/profile.ts";
import { findFreePort } from "../src/hub/test-client.ts";
import { fillHub } from "./hub-state.ts";

const { values } = parseArgs({
  options: {
    items: { type: "string", default: "10000" },
    events: { type: "string", default: "1000000" },
    rate: { type: "string", default: "200" },
    seconds: { type: "string", default: "60" },
    json: { type: "string" },
  },
});
const itemCount = Number(values.items);
const connections = 16;
const pagesWalked = 60;
const timesEach = 15;
const apiVersion = "api-version=2025-08-01";

const pageShape = z.object({ value: z.array(z.object({ id: z.string() })), nextLink: z.string().optional() });
type Page = z.infer<typeof pageShape>;

const stateDir = await mkdtemp(join(tmpdir(), "wb-load-"));
await chmod(stateDir, 0o711);
try {
  const vaultId = await fillHub({ stateDir, itemCount, eventCount: Number(values.events) });
  await using hub = await startHubProgram(stateDir);
  const lists = {
    items: `${vaultId}/replicationProtectedItems?${apiVersion}`,
    jobs: `${vaultId}/replicationJobs?${apiVersion}`,
    events: `${vaultId}/replicationEvents?${apiVersion}`,
  };
  process.stderr.write(`started in ${hub.startSeconds.toFixed(2)} s\n`);
  const [item] = (await hub.page(lists.items)).value;
  assert.ok(item !== undefined, "the hub lists what was filled in");
  const paths = [
    ...Array.from({ length: 6 }, () => `${item.id}?${apiVersion}`),
    `${item.id}/recoveryPoints?${apiVersion}`,
    lists.items,
    lists.jobs,
    lists.events,
  ];
  process.stderr.write("loading\n");
  const load = await loadHub(hub, paths);
  process.stderr.write("walking pages\n");
  const pages: Record<string, { readonly firstMs: number; readonly farMs: number }> = {};
  for (const [name, path] of Object.entries(lists)) pages[name] = await comparePages(hub, path);
  const result = { itemCount, eventCount: Number(values.events), startSeconds: hub.startSeconds, load, pages };
  process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result)}\n`);
  process.exitCode = load.errors === 0 && load.p99Ms < 50 && hub.startSeconds < 3 ? 0 : 1;
} finally {
  await rm(stateDir, { recursive: true, force: true });
}

interface HubProgram extends AsyncDisposable {
  readonly url: string;
  readonly caPem: string;
  readonly token: string;
  readonly startSeconds: number;
  page(path: string): Promise<Page>;
}

async function startHubProgram(folder: string): Promise<HubProgram> {
  const config = join(folder, "hub.yaml");
  const port = await findFreePort();
  await writeFile(
    config,
    JSON.stringify({
      domain: "watari.test",
      stateDir: folder,
      publicAddresses: ["127.0.0.1"],
      managementPort: port,
      localName: "localhost",
    }),
  );
  const startedMs = performance.now();
  const args = [
    "--disable-warning=ExperimentalWarning",
    "src/main.ts",
    "hub",
    "run",
    "--config",
    config,
    "--log-file",
    join(folder, "log"),
  ];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  for await (const line of createInterface({ input: child.stderr })) if (line.startsWith("hub ready")) break;
  const startSeconds = (performance.now() - startedMs) / 1000;
  const operatorFile = join(folder, "operator.json");
  const operator = parseJson(await readFile(operatorFile, "utf8"), operatorFileShape, operatorFile);
  const { caPem, tenantId, clientId, clientSecret } = operator;
  const url = `https://localhost:${port}`;
  const dispatcher = new Agent({ connect: { ca: caPem } });
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: clientId,
    client_secret: clientSecret,
    scope: `${url}/.default`,
  });
  const answer = await request(`${url}/${tenantId}/oauth2/v2.0/token`, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: form.toString(),
    dispatcher,
  });
  const { access_token: token } = z.object({ access_token: z.string() }).parse(await answer.body.json());
  return {
    url,
    caPem,
    token,
    startSeconds,
    page: async (path) => {
      const target = path.startsWith("https:") ? path : `${url}${path}`;
      const { statusCode, body } = await request(target, { headers: { authorization: `Bearer ${token}` }, dispatcher });
      const text = await body.text();
      assert.equal(statusCode, 200, text.slice(0, 500));
      return pageShape.parse(JSON.parse(text));
    },
    [Symbol.asyncDispose]: async () => {
      await dispatcher.close();
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
  };
}

/** Calls at a steady rate; times count from when a call was due, not from when it could be sent. */
async function loadHub({ url, caPem, token }: HubProgram, paths: readonly string[]) {
  const result = await autocannon({
    url,
    connections,
    overallRate: Number(values.rate),
    duration: Number(values.seconds),
    headers: { authorization: `Bearer ${token}` },
    requests: paths.map((path) => ({ method: "GET" as const, path })),
    tlsOptions: { ca: caPem, servername: "localhost" },
  });
  const { latency, requests, errors, non2xx, timeouts } = result;
  return {
    perSecond: requests.average,
    p50Ms: latency.p50,
    p99Ms: latency.p99,
    longestMs: latency.max,
    errors: errors + non2xx + timeouts,
  };
}

/** The first page of a list, and one far behind it: medians of the same number of calls. */
async function comparePages(hub: HubProgram, first: string): Promise<{ readonly firstMs: number; readonly farMs: number }> {
  let far = first;
  for (let page = 0; page < pagesWalked; page++) {
    const { nextLink } = await hub.page(far);
    if (nextLink === undefined) break;
    far = nextLink;
  }
  const medianMs = async (path: string): Promise<number> => {
    const times: number[] = [];
    for (let time = 0; time < timesEach; time++) {
      const startedMs = performance.now();
      await hub.page(path);
      times.push(performance.now() - startedMs);
    }
    return times.toSorted((left, right) => left - right)[Math.floor(timesEach / 2)] ?? Number.NaN;
  };
  return { firstMs: await medianMs(first), farMs: await medianMs(far) };
}
