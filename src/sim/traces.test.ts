// Traces against a real OTLP/HTTP receiver: one trace from a client's request over the job and its steps to the orders of an appliance.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Agent, request } from "undici";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { silentLog } from "../base/log.ts";
import type { EphemeralHub } from "../hub/hub-command.ts";
import { startEphemeralHub } from "./ephemeral-hub.ts";

const attributeShape = z.object({ key: z.string(), value: z.record(z.string(), z.unknown()) });
const spanShape = z.object({
  traceId: z.string(),
  spanId: z.string(),
  parentSpanId: z.string().optional(),
  name: z.string(),
  attributes: z.array(attributeShape).default([]),
  status: z.object({ code: z.number().default(0) }).default({ code: 0 }),
});
const exportShape = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: z.array(attributeShape) }),
      scopeSpans: z.array(z.object({ spans: z.array(spanShape) })),
    }),
  ),
});
type Span = z.infer<typeof spanShape>;

interface Collector extends AsyncDisposable {
  readonly url: string;
  readonly spans: Span[];
  readonly texts: string[];
  readonly headers: IncomingHttpHeaders[];
}

async function startCollector(): Promise<Collector> {
  const [spans, texts, headers]: [Span[], string[], IncomingHttpHeaders[]] = [[], [], []];
  const server: Server = createServer((call, answer) => {
    const chunks: Buffer[] = [];
    call.on("data", (chunk: Buffer) => void chunks.push(chunk));
    call.on("end", () => {
      const text = Buffer.concat(chunks).toString("utf8");
      texts.push(text);
      headers.push(call.headers);
      for (const { scopeSpans } of exportShape.parse(JSON.parse(text)).resourceSpans)
        spans.push(...scopeSpans.flatMap((each) => each.spans));
      answer.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // A TCP server that listens has one.
  return {
    ...{ url: `http://127.0.0.1:${port}`, spans, texts, headers },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => void server.close(() => resolve()));
    },
  };
}

interface Desk extends AsyncDisposable {
  readonly secrets: readonly string[];
  call(
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<{ status: number; body: unknown }>;
}

async function openDesk({ facts }: EphemeralHub): Promise<Desk> {
  const dispatcher = new Agent({ connect: { ca: await readFile(facts.caFile, "utf8") } });
  const form = new URLSearchParams({
    ...{
      grant_type: "client_credentials",
      client_id: facts.clientId,
      client_secret: facts.clientSecret,
      scope: `${facts.endpoint}/.default`,
    },
  });
  const answer = await request(`${facts.authority}/${facts.tenantId}/oauth2/v2.0/token`, {
    ...{ method: "POST", dispatcher, headers: { "content-type": "application/x-www-form-urlencoded" }, body: form.toString() },
  });
  const { access_token: token } = z.object({ access_token: z.string() }).parse(await answer.body.json());
  return {
    secrets: [token, facts.clientSecret],
    call: async (method, path, body, headers = {}) => {
      const response = await request(`${facts.endpoint}${path}?api-version=2025-08-01`, {
        ...{
          method: method as "GET",
          dispatcher,
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.body.text();
      return { status: response.statusCode, body: text === "" ? undefined : JSON.parse(text) };
    },
    [Symbol.asyncDispose]: async () => await dispatcher.close(),
  };
}

const listShape = z.object({ value: z.array(z.object({ id: z.string() })) });
const valueOf = (span: Span | undefined, key: string): unknown =>
  Object.values(span?.attributes.find((each) => each.key === key)?.value ?? {})[0];

test("one trace leads from a client's request over the job and its steps to the orders; it holds ids and no secrets", async () => {
  await using collector = await startCollector();
  const [traceId, callerSpan] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
  let secrets: readonly string[] = [];
  let vaultPath = "";
  {
    const sections = { traces: { endpoint: `${collector.url}/v1/traces` } };
    await using hub = await startEphemeralHub({ machineCount: 1, paceSeconds: 0, log: silentLog, sections });
    await using desk = await openDesk(hub);
    secrets = desk.secrets;
    const { subscriptionId, resourceGroup, vault } = hub.facts;
    vaultPath = `/subscriptions/${subscriptionId}/resourceGroups/${resourceGroup}/providers/Microsoft.RecoveryServices/vaults/${vault}`;
    const list = async (path: string): Promise<z.infer<typeof listShape>["value"]> =>
      listShape.parse((await desk.call("GET", path)).body).value;
    const container = (await list(`${vaultPath}/replicationProtectionContainers`))[0]?.id ?? "";
    const machine = (await list(`${container}/replicationProtectableItems`))[0]?.id ?? "";
    const item = `${container}/replicationProtectedItems/web`;
    const details = { instanceType: "InMageAzureV2", runAsAccountId: "root" };
    const accepted = await desk.call(
      "PUT",
      item,
      {
        properties: { protectableItemId: machine, policyId: `${vaultPath}/replicationPolicies/default`, providerSpecificDetails: details },
      },
      {
        traceparent: `00-${traceId}-${callerSpan}-01`,
        "x-ms-client-request-id": "my-request",
        "x-ms-correlation-request-id": "my-correlation",
      },
    );
    assert.equal(accepted.status, 202, JSON.stringify(accepted.body));
    const endMs = systemClock.monotonicMs() + 60_000;
    for (;;) {
      const { body } = await desk.call("GET", item);
      if (z.object({ properties: z.object({ protectionState: z.string() }) }).parse(body).properties.protectionState === "Protected") break;
      assert.ok(systemClock.monotonicMs() < endMs);
      await systemClock.sleep(50);
    }
    assert.equal((await desk.call("GET", `${vaultPath}/madeUp/secret-name`)).status, 404);
  }
  const ours = collector.spans.filter((span) => span.traceId === traceId);
  const named = (name: string): Span | undefined => ours.find((span) => span.name === name);
  const put = named("PUT Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/replicationProtectedItems");
  const job = named("job EnableProtection");
  const order = named("order protect");
  const step = ours.find((span) => span.spanId === order?.parentSpanId);
  assert.ok(put && job && order && step, ours.map(({ name }) => name).join("\n"));
  assert.equal(put.parentSpanId, callerSpan);
  assert.equal(job.parentSpanId, put.spanId);
  assert.equal(step.parentSpanId, job.spanId);
  assert.match(step.name, /^step /);
  assert.equal(Number(valueOf(put, "http.response.status_code")), 202);
  assert.equal(valueOf(put, "watari.client_request_id"), "my-request");
  assert.equal(valueOf(put, "watari.correlation_id"), "my-correlation");
  assert.match(String(valueOf(put, "watari.principal_id")), /^[0-9a-f-]{36}$/);
  assert.match(String(valueOf(put, "watari.request_id")), /^[0-9a-f-]{36}$/);
  assert.equal(valueOf(job, "watari.job_id"), valueOf(step, "watari.job_id"));
  assert.ok(collector.spans.some(({ name }) => name === "GET Microsoft.RecoveryServices/vaults action"));
  assert.equal(collector.headers[0]?.["content-type"], "application/json");
  const told = collector.texts.join("\n");
  assert.ok(told.includes("watari-hub"));
  for (const secret of [...secrets, "secret-name", vaultPath, "Bearer"]) assert.ok(!told.includes(secret), secret.slice(0, 8));
});

test("nothing is traced without a section for it, whatever the environment says; with one, the environment says where to", async () => {
  await using collector = await startCollector();
  const before = process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url;
  try {
    for (const [sections, isTraced] of [
      [{}, false],
      [{ traces: {} }, true],
    ] as const) {
      const hub = await startEphemeralHub({ machineCount: 0, paceSeconds: 0, log: silentLog, sections });
      await hub[Symbol.asyncDispose]();
      assert.equal(collector.spans.length > 0, isTraced);
    }
  } finally {
    if (before === undefined) delete process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
    else process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = before;
  }
});
