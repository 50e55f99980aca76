// Every route outside the table of rights, with what it asks of a caller: a new one must be entered here, and those that want a token refuse without.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { callTarget, findFreePort, loopbackNetwork, openTestHub, testDomain } from "../test-client.ts";

const token = "an access token, and rights by the table of types";
const proof = "a secret, an assertion, a code or a token; failures are limited by address";
const browser = "the browser that began the sign-in, by its cookie; failures are limited by address";
const anyone = "anyone: it tells no secret";

const asked: Readonly<Record<string, string>> = {
  "login POST /:tenant/oauth2/v2.0/token": proof,
  "login POST /:tenant/oauth2/token": proof,
  "login POST /:tenant/oauth2/v2.0/devicecode": "a known client; limited by address",
  "login POST /:tenant/oauth2/v2.0/revoke": proof,
  "login GET /:tenant/oauth2/v2.0/authorize": "a known client that listens on the person's machine; limited by address",
  "login GET /:tenant/signin/provider": browser,
  "login GET /:tenant/signin/callback": browser,
  "login POST /:tenant/signin/local": browser,
  "login POST /:tenant/signin/confirm": browser,
  "login GET /:tenant/device": anyone,
  "login POST /:tenant/device": "the code of a device that waits; failures are limited by address",
  "login GET /device": anyone,
  "login GET /:tenant/v2.0/.well-known/openid-configuration": anyone,
  "login GET /:tenant/.well-known/openid-configuration": anyone,
  "login GET /:tenant/discovery/v2.0/keys": anyone,
  "management GET /health": anyone,
  "management GET /openapi.json": anyone,
  "management GET /signed/*": "a signature in the address, with an end",
  "management GET /console": anyone,
  "management GET /console/console.js": anyone,
  "management GET /console/xterm.js": anyone,
  "management GET /console/xterm.css": anyone,
  "management GET /subscriptions": token,
  "management GET /tenants": token,
  "management GET /providers": token,
  "management GET /providers/:namespace": token,
  "management GET /providers/:namespace/operations": token,
  ...Object.fromEntries(
    ["GET", "TRACE", "DELETE", "OPTIONS", "PATCH", "PUT", "POST", "QUERY"].map((method) => [
      `management ${method} /subscriptions/*`,
      token,
    ]),
  ),
  "download GET /ca.pem": anyone,
  "download GET /hub.json": anyone,
};

test("every route of the faces is known with what it asks, and without a token those that want one refuse", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-open-routes-"));
  try {
    const hub = await openTestHub({ stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() });
    assert.deepEqual([...hub.hub.routes].toSorted(), Object.keys(asked).toSorted());
    const target = hub.target(`management.${testDomain}`);
    for (const [route, wanted] of Object.entries(asked)) {
      if (wanted !== token) continue;
      const [, method = "", path = ""] = route.split(" ");
      const real = path.replace("*", hub.operator.subscriptionId).replace(":namespace", "Microsoft.Storage");
      const body = ["PATCH", "PUT", "POST", "QUERY"].includes(method) ? {} : undefined;
      const answer = await callTarget(target, { method, path: `${real}?api-version=2025-08-01`, body });
      assert.deepEqual([route, answer.status], [route, 401]);
    }
    await hub.hub[Symbol.asyncDispose]();
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});
