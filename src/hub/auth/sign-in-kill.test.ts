// The hub is killed (SIGKILL) in the midst of sign-ins: they go on where they were, and nothing that was used up works again.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { systemRandom } from "../../base/random.ts";
import { tryCommand } from "../../base/run-command.ts";
import { localAccountGrant } from "../../contract/sign-in.ts";
import { callTarget, findFreePort, testDomain, type Answer } from "../test-client.ts";
import { openTestBrowser } from "./test-browser.ts";
import { startTestProvider } from "./test-provider.ts";
import { clientId, errorOf, redirectUri } from "./test-sign-in.ts";

const mainFile = join(import.meta.dirname, "../../main.ts");
const accountShape = z.object({ secret: z.string(), caPem: z.string(), tenantId: z.string(), loginUrl: z.string() });
const tokensShape = z.object({ access_token: z.string(), refresh_token: z.string() });

/** Ready on return; `kill` returns when the process is gone. */
async function startHub(configFile: string): Promise<{ kill(signal: NodeJS.Signals): Promise<void> }> {
  const args = ["--disable-warning=ExperimentalWarning", mainFile, "hub", "run", "--config", configFile, "--log-file", `${configFile}.log`];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  let said = "";
  await new Promise<void>((resolve, reject) => {
    child.once("exit", () => reject(new Error(said)));
    child.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString("utf8");
      if (said.includes("hub ready")) resolve();
    });
  });
  return {
    kill: async (signal) => {
      child.kill(signal);
      await exited;
    },
  };
}

test("a sign-in goes on after the hub was killed, and what was used up stays used up", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-sign-in-kill-"));
  await chmod(stateDir, 0o711);
  await mkdir(join(stateDir, "test"));
  await using provider = await startTestProvider(join(stateDir, "test"));
  const [port, secretFile, configFile] = [await findFreePort(), join(stateDir, "test/secret"), join(stateDir, "hub.yaml")];
  await writeFile(secretFile, provider.clientSecret, { mode: 0o600 });
  const scopes = ["openid", "profile", "offline_access"];
  const settings = { issuer: provider.issuer, caFile: provider.caFile, clientId: provider.clientId, clientSecretFile: secretFile, scopes };
  const place = { domain: testDomain, stateDir, publicAddresses: ["127.0.0.1"], managementPort: port, localName: "localhost" };
  await writeFile(configFile, JSON.stringify({ ...place, signIn: { provider: settings } }));
  let hub = await startHub(configFile);
  const restart = async (): Promise<void> => {
    await hub.kill("SIGKILL");
    hub = await startHub(configFile);
  };
  try {
    const account = ["hub", "account", "create", "--config", configFile];
    const made = await tryCommand(process.execPath, ["--disable-warning=ExperimentalWarning", mainFile, ...account], { timeoutMs: 60_000 });
    assert.equal(made.exitCode, 0, made.stderr);
    const { secret, caPem, tenantId, loginUrl } = accountShape.parse(
      JSON.parse(await readFile(join(stateDir, "local-account.json"), "utf8")),
    );
    const ask = async (form: Readonly<Record<string, string>>): Promise<Answer> =>
      await callTarget(
        { name: "localhost", address: "127.0.0.1", port, ca: caPem },
        {
          method: "POST",
          path: `/${tenantId}/oauth2/v2.0/token`,
          body: new URLSearchParams({ client_id: clientId, ...form }).toString(),
          headers: { "content-type": "application/x-www-form-urlencoded" },
        },
      );
    const renew = async (token: string): Promise<Answer> => await ask({ grant_type: "refresh_token", refresh_token: token });
    const scope = `https://management.${testDomain}/.default openid offline_access`;
    const local = tokensShape.parse((await ask({ grant_type: localAccountGrant, secret, scope })).body);
    await restart();
    assert.equal(errorOf(await ask({ grant_type: localAccountGrant, secret, scope })), "invalid_grant", "the secret is used up");
    assert.equal((await renew(local.refresh_token)).status, 200, "the session goes on");

    provider.serve(`${loginUrl}/${tenantId}/signin/callback`);
    provider.person = { id: "hugo", name: "Hugo", groups: ["movers"] };
    const hosts = new Map([
      [new URL(loginUrl).host, caPem],
      [new URL(provider.issuer).host, await provider.caPem()],
    ]);
    const browser = openTestBrowser((host) => hosts.get(host));
    const [verifier, base] = [Buffer.from(systemRandom.bytes(32)).toString("base64url"), `${loginUrl}/${tenantId}`];
    const code_challenge = createHash("sha256").update(verifier).digest("base64url");
    const query = {
      client_id: clientId,
      redirect_uri: redirectUri,
      response_type: "code",
      scope,
      code_challenge,
      code_challenge_method: "S256",
    };
    let at = `${base}/oauth2/v2.0/authorize?${new URLSearchParams(query).toString()}`;
    while (!at.startsWith(`${base}/signin/callback`)) at = (await browser.step(at)).next ?? "";
    await restart(); // The person is at the provider.
    const code = new URL((await browser.step(at)).next ?? "").searchParams.get("code") ?? "";
    await restart(); // The code is at the client.
    assert.equal((await browser.open(at)).status, 401, "the provider's answer is used up");
    const redeem = { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
    const given = tokensShape.parse((await ask(redeem)).body);
    const next = tokensShape.parse((await renew(given.refresh_token)).body);
    await restart(); // The refresh token is used up.
    assert.equal(errorOf(await renew(given.refresh_token)), "invalid_grant");
    assert.equal(errorOf(await renew(next.refresh_token)), "invalid_grant", "shown twice over a kill, too, it ends the session");
    assert.equal(errorOf(await ask(redeem)), "invalid_grant");
  } finally {
    await hub.kill("SIGTERM"); // In order: the database's cluster outlives a killed hub by design.
    await rm(stateDir, { recursive: true, force: true });
  }
});
