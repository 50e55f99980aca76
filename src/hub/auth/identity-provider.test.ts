// The hub's way to the identity provider: directly or by a forward proxy, and never past one that is configured.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { freeTcpPort, skipUnless, startProxy } from "../../connectivity/test-network.ts";
import { openIdentityProvider } from "./identity-provider.ts";
import { signInConfigShape } from "./sign-in-config.ts";
import { startTestProvider } from "./test-provider.ts";

test("the provider is reached by the proxy of the configuration, with its password", { skip: skipUnless("squid") }, async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "watari-provider-"));
  context.after(async () => await rm(folder, { recursive: true, force: true }));
  await using provider = await startTestProvider(folder);
  provider.serve("https://login.watari.test/signin/callback");
  await using proxy = await startProxy({ allowed: { localhost: "127.0.0.1" }, credentials: { user: "hub", password: "ge:heim" } });
  const credentialsFile = join(folder, "proxy-credentials");
  const begin = async (settings: object): Promise<string> => {
    const { issuer, caFile, clientId } = provider;
    const { provider: config } = signInConfigShape.parse({ provider: { issuer, caFile, clientId, proxy: settings } });
    assert.ok(config !== undefined);
    await using opened = await openIdentityProvider(config, { clock: systemClock });
    const wanted = { redirectUri: "https://login.watari.test/signin/callback", state: "s", prompt: undefined, loginHint: undefined };
    return (await opened.begin(wanted)).url;
  };
  const url = `http://127.0.0.1:${proxy.port}`;
  await writeFile(credentialsFile, "hub:ge:heim\n", { mode: 0o600 });
  assert.match(await begin({ url, credentialsFile }), new RegExp(`^${provider.issuer}/`));
  await assert.rejects(begin({ url }), { code: "IdentityProviderFailed" });
  await assert.rejects(begin({ url: `http://127.0.0.1:${await freeTcpPort()}` }), { code: "IdentityProviderFailed" });
  assert.throws(() =>
    signInConfigShape.parse({ provider: { issuer: provider.issuer, clientId: "x", proxy: { url: "http://a:b@127.0.0.1" } } }),
  );
});
