// For tests: a hub with a real identity provider, a client on the same machine, and browsers of people.

import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { systemRandom } from "../../base/random.ts";
import {
  callTarget,
  findFreePort,
  loopbackNetwork,
  openTestHub,
  testDomain,
  type Answer,
  type TestHub,
  type TestHubOptions,
} from "../test-client.ts";
import { openTestBrowser, type Seen, type TestBrowser } from "./test-browser.ts";
import { startTestProvider, type TestProvider } from "./test-provider.ts";

export const clientId = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
export const redirectUri = "http://127.0.0.1:47123/";
const tokensShape = z.object({
  access_token: z.string(),
  refresh_token: z.string(),
  id_token: z.string(),
  expires_in: z.number(),
});
export type GivenTokens = z.infer<typeof tokensShape>;

export interface SignInTrial extends AsyncDisposable {
  readonly hub: TestHub;
  readonly provider: TestProvider;
  readonly audience: string;
  openBrowser(): TestBrowser;
  /** A client's request for a code: the address that it opens, and what it keeps. */
  ask(changes?: Readonly<Record<string, string>>): { readonly url: string; readonly verifier: string; readonly state: string };
  /** The whole way of a person who is let in at once. */
  signIn(): Promise<GivenTokens>;
  post(path: string, form: Readonly<Record<string, string>>): Promise<Answer>;
  token(form: Readonly<Record<string, string>>): Promise<Answer>;
  /** A call on the management API with a token. */
  arm(accessToken: string, method: string, path: string, body?: unknown): Promise<Answer>;
  deviceUrl(): string;
}

export async function openSignInTrial(
  stateDir: string,
  options: Partial<TestHubOptions> & { readonly providerOptions?: Readonly<Record<string, unknown>> } = {},
): Promise<SignInTrial> {
  await using opening = new AsyncDisposableStack();
  const { provider, hub } = await openBoth(stateDir, options, opening);
  const { tenantId } = hub.operator;
  const base = `${hub.hub.loginUrl}/${tenantId}`;
  provider.serve(`${base}/signin/callback`);
  const hosts = new Map([
    [new URL(base).host, hub.hub.caPem],
    [new URL(provider.issuer).host, await provider.caPem()],
  ]);
  const post = async (path: string, form: Readonly<Record<string, string>>): Promise<Answer> =>
    await callTarget(hub.target(`login.${testDomain}`), {
      method: "POST",
      path: `/${tenantId}${path}`,
      body: new URLSearchParams(form).toString(),
      headers: { "content-type": "application/x-www-form-urlencoded" },
    });
  const audience = `https://management.${testDomain}/.default openid offline_access`;
  const trial: SignInTrial = {
    ...{ hub, provider, audience, post },
    openBrowser: () => openTestBrowser((host) => hosts.get(host)),
    ask: (changes = {}) => {
      const [verifier, state] = [randomText(), randomText()];
      const challenge = createHash("sha256").update(verifier).digest("base64url");
      const query = {
        ...{ client_id: clientId, redirect_uri: redirectUri, response_type: "code", scope: audience, state, nonce: "client-nonce" },
        ...{ code_challenge: challenge, code_challenge_method: "S256" },
        ...changes,
      };
      return { url: `${base}/oauth2/v2.0/authorize?${new URLSearchParams(query).toString()}`, verifier, state };
    },
    signIn: async () => {
      const { url, verifier } = trial.ask();
      const code = codeOfAnswer(await trial.openBrowser().open(url));
      const answer = await trial.token(codeForm(code, verifier));
      if (answer.status !== 200) throw new Error(`sign-in was answered with ${answer.status}: ${JSON.stringify(answer.body)}`);
      return tokensShape.parse(answer.body);
    },
    token: async (form) => await post("/oauth2/v2.0/token", { client_id: clientId, ...form }),
    arm: async (accessToken, method, path, body) =>
      await callTarget(hub.target(`management.${testDomain}`), {
        method,
        path: `${path}${path.includes("?") ? "&" : "?"}api-version=2025-08-01`,
        body,
        headers: { authorization: `Bearer ${accessToken}` },
      }),
    deviceUrl: () => `${hub.hub.loginUrl}/device`,
    [Symbol.asyncDispose]: async () => await closing.disposeAsync(),
  };
  const closing = opening.move();
  return trial;
}

export function codeForm(code: string, verifier: string): Readonly<Record<string, string>> {
  return { grant_type: "authorization_code", code, code_verifier: verifier, redirect_uri: redirectUri };
}

export function codeOfAnswer({ url }: Seen): string {
  const code = url.searchParams.get("code");
  if (code === null || !url.href.startsWith(redirectUri)) throw new Error(`no code at ${url.href}`);
  return code;
}

export function errorOf(answer: Answer): string {
  return z.object({ error: z.string() }).parse(answer.body).error;
}

function randomText(): string {
  return Buffer.from(systemRandom.bytes(32)).toString("base64url");
}

async function openBoth(
  stateDir: string,
  options: Partial<TestHubOptions> & { readonly providerOptions?: Readonly<Record<string, unknown>> },
  opening: AsyncDisposableStack,
): Promise<{ readonly provider: TestProvider; readonly hub: TestHub }> {
  const folder = join(stateDir, "test-provider");
  await mkdir(folder, { recursive: true });
  const provider = opening.use(await startTestProvider(folder));
  const secretFile = join(folder, "provider-secret");
  await writeFile(secretFile, `${provider.clientSecret}\n`, { mode: 0o600 });
  const { issuer, caFile } = provider;
  const scopes = ["openid", "profile", "offline_access"];
  const settings = {
    issuer,
    caFile,
    clientId: provider.clientId,
    clientSecretFile: secretFile,
    name: "Test",
    scopes,
    ...options.providerOptions,
  };
  const place = { stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort() };
  const hub = await openTestHub({ ...place, signIn: { provider: settings }, ...options });
  opening.use(hub.hub);
  return { provider, hub };
}
