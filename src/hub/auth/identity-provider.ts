// The identity provider of people, by OpenID Connect: discovery, code flow with PKCE, signed ID tokens, and asking again at a refresh.

import { readFile } from "node:fs/promises";
import * as oidc from "openid-client";
import { Agent, ProxyAgent, request, type Dispatcher } from "undici";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ProviderConfig } from "./sign-in-config.ts";

export interface ProvenPerson {
  readonly issuer: string;
  readonly subject: string;
  readonly name: string;
  readonly userName: string;
  readonly groups: readonly string[];
  /** The provider's own, by which it is asked again; undefined when it gives none. */
  readonly refreshToken: string | undefined;
}

/** What the hub keeps, sealed, while the person is at the provider. */
export const providerSecretsShape = z.strictObject({ nonce: z.string(), verifier: z.string() });
type ProviderSecrets = z.infer<typeof providerSecretsShape>;

export interface IdentityProvider extends AsyncDisposable {
  readonly name: string;
  readonly issuer: string;
  /** Where to send the browser. `prompt` and `loginHint` are passed on. */
  begin(wanted: {
    readonly redirectUri: string;
    readonly state: string;
    readonly prompt: string | undefined;
    readonly loginHint: string | undefined;
  }): Promise<{ readonly url: string; readonly secrets: ProviderSecrets }>;
  /** Fault SignInRefused unless the provider proves a person; IdentityProviderFailed when it does not answer as it must. */
  finish(answer: { readonly url: URL; readonly state: string; readonly secrets: ProviderSecrets }): Promise<ProvenPerson>;
  /** Asks again; "refused" when the provider lets the person in no more. */
  renew(
    refreshToken: string,
    subject: string,
  ): Promise<{ readonly kind: "refused" } | { readonly kind: "renewed"; readonly person: ProvenPerson }>;
}

const answerBytesMax = 1 << 20;
const callSecondsMax = 15;
/** The document of endpoints changes rarely; keys are read anew at every sign-in, so a rotated key is known at once. */
const discoveryLifeMs = 10 * 60_000;
const groupsMax = 1000;
const claimCharactersMax = 256;

const claimsShape = z.looseObject({ sub: z.string().min(1).max(255), _claim_names: z.record(z.string(), z.unknown()).optional() });
const groupsShape = z.union([
  z
    .string()
    .max(claimCharactersMax)
    .transform((one) => [one]),
  z.array(z.string().max(claimCharactersMax)).max(groupsMax),
]);

export async function openIdentityProvider(config: ProviderConfig, { clock }: { readonly clock: Clock }): Promise<IdentityProvider> {
  const secret = config.clientSecretFile === undefined ? undefined : (await readFile(config.clientSecretFile, "utf8")).trim();
  const ca = config.caFile === undefined ? undefined : await readFile(config.caFile, "utf8");
  const agent = await openAgent(config, ca);
  const connect = createConnect(config, { secret, agent, clock });
  return {
    name: config.name,
    issuer: config.issuer,
    begin: async ({ redirectUri, state, prompt, loginHint }) => {
      const configuration = await connect();
      const secrets = { nonce: oidc.randomNonce(), verifier: oidc.randomPKCECodeVerifier() };
      const url = oidc.buildAuthorizationUrl(configuration, {
        redirect_uri: redirectUri,
        scope: config.scopes.join(" "),
        state,
        nonce: secrets.nonce,
        code_challenge: await oidc.calculatePKCECodeChallenge(secrets.verifier),
        code_challenge_method: "S256",
        ...promptOf(config, configuration.serverMetadata(), prompt),
        ...(loginHint === undefined ? {} : { login_hint: loginHint }),
      });
      return { url: url.href, secrets };
    },
    finish: async ({ url, state, secrets }) =>
      await told("sign in", async () => {
        const configuration = await connect();
        const checks = { expectedState: state, expectedNonce: secrets.nonce, pkceCodeVerifier: secrets.verifier, idTokenExpected: true };
        const tokens = await oidc.authorizationCodeGrant(configuration, url, checks);
        return await toPerson(config, { configuration, tokens, subject: undefined });
      }),
    renew: async (refreshToken, subject) => {
      try {
        return await told("renew the session", async () => {
          const configuration = await connect();
          const tokens = await oidc.refreshTokenGrant(configuration, refreshToken);
          const person = await toPerson(config, { configuration, tokens, subject });
          return { kind: "renewed", person: { ...person, refreshToken: person.refreshToken ?? refreshToken } };
        });
      } catch (error) {
        if (error instanceof Fault && error.code === "SignInRefused") return { kind: "refused" };
        throw error;
      }
    },
    [Symbol.asyncDispose]: async () => await agent.close(),
  };
}

/** The only way to the provider: directly, or by a tunnel of the proxy that the configuration names. */
async function openAgent({ proxy }: ProviderConfig, ca: string | undefined): Promise<Dispatcher> {
  const tls = ca === undefined ? {} : { ca };
  const connectTimeout = callSecondsMax * 1000;
  if (proxy === undefined) return new Agent({ connect: tls, connectTimeout });
  const credentials = proxy.credentialsFile === undefined ? undefined : (await readFile(proxy.credentialsFile, "utf8")).split("\n", 1)[0];
  const token = credentials === undefined ? {} : { token: `Basic ${Buffer.from(credentials.trim(), "utf8").toString("base64")}` };
  return new ProxyAgent({ uri: proxy.url, requestTls: tls, connectTimeout, ...token });
}

type Tokens = oidc.TokenEndpointResponse & oidc.TokenEndpointResponseHelpers;

/** A configuration with a fresh memory of keys, over endpoints that are read anew after a while. */
function createConnect(
  config: ProviderConfig,
  { secret, agent, clock }: { readonly secret: string | undefined; readonly agent: Dispatcher; readonly clock: Clock },
): () => Promise<oidc.Configuration> {
  const metadata = { [oidc.clockTolerance]: config.clockToleranceSeconds };
  const fetchBounded = createFetch(agent);
  let known: { readonly document: oidc.ServerMetadata; readonly atMs: number } | undefined;
  return async () =>
    await told("reach the identity provider", async () => {
      if (known === undefined || clock.monotonicMs() - known.atMs > discoveryLifeMs) {
        const found = await oidc.discovery(new URL(config.issuer), config.clientId, metadata, oidc.None(), {
          [oidc.customFetch]: fetchBounded,
          timeout: callSecondsMax,
        });
        known = { document: found.serverMetadata(), atMs: clock.monotonicMs() };
      }
      const document = { ...known.document };
      const made = new oidc.Configuration(document, config.clientId, metadata, authenticationOf(document, secret));
      made.timeout = callSecondsMax;
      made[oidc.customFetch] = fetchBounded;
      // The signature is checked although TLS brought the token: the provider's keys prove it, not the line.
      oidc.enableNonRepudiationChecks(made);
      return made;
    });
}

function authenticationOf(document: oidc.ServerMetadata, secret: string | undefined): oidc.ClientAuth {
  if (secret === undefined) return oidc.None();
  const methods = document.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
  return methods.includes("client_secret_basic") ? oidc.ClientSecretBasic(secret) : oidc.ClientSecretPost(secret);
}

const promptsShape = z.array(z.string());

/**
 * Providers give a refresh token for offline_access only with the person's consent (OpenID Connect Core, 11). Every provider knows login;
 * one that does not say that it knows select_account may refuse it, and it is no more than a wish.
 */
function promptOf(config: ProviderConfig, document: oidc.ServerMetadata, wish: string | undefined): Readonly<Record<string, string>> {
  const known = promptsShape.safeParse(document["prompt_values_supported"]).data ?? ["login"];
  const wanted = [
    ...(wish !== undefined && known.includes(wish) ? [wish] : []),
    ...(config.scopes.includes("offline_access") ? ["consent"] : []),
  ];
  return wanted.length === 0 ? {} : { prompt: wanted.join(" ") };
}

function createFetch(agent: Dispatcher): oidc.CustomFetch {
  return async (url, { method, headers, body, signal }) => {
    const sent = typeof body === "string" || body instanceof Uint8Array || body === undefined || body === null ? body : textOf(body);
    const answer = await request(url, { method: toMethod(method), headers, body: sent ?? null, signal: signal ?? null, dispatcher: agent });
    const chunks: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const chunk of answer.body) {
      const bytes = Buffer.from(chunk);
      sizeBytes += bytes.length;
      if (sizeBytes > answerBytesMax) throw new Error(`the answer is larger than ${answerBytesMax} bytes`);
      chunks.push(bytes);
    }
    const hasBody = answer.statusCode !== 204 && answer.statusCode !== 304;
    const pairs = Object.entries(answer.headers).map(([name, value]): [string, string] => [
      name,
      Array.isArray(value) ? value.join(", ") : (value ?? ""),
    ]);
    return new Response(hasBody ? Buffer.concat(chunks) : null, { status: answer.statusCode, headers: pairs });
  };
}

function textOf(body: unknown): string {
  if (body instanceof URLSearchParams) return body.toString();
  throw new Error("assertion failed: the library sends forms only");
}

function toMethod(method: string): "GET" | "POST" {
  return method === "POST" ? "POST" : "GET";
}

async function toPerson(
  config: ProviderConfig,
  {
    configuration,
    tokens,
    subject,
  }: { readonly configuration: oidc.Configuration; readonly tokens: Tokens; readonly subject: string | undefined },
): Promise<ProvenPerson> {
  const idClaims = tokens.claims();
  const known = idClaims?.sub ?? subject;
  if (known === undefined || (subject !== undefined && known !== subject)) throw refuse("the provider named another person");
  const { claims: names } = config;
  const isWhole = idClaims !== undefined && names.groups in idClaims && names.userName in idClaims && names.name in idClaims;
  const hasMore = !isWhole && configuration.serverMetadata().userinfo_endpoint !== undefined;
  const more = hasMore ? await oidc.fetchUserInfo(configuration, tokens.access_token, known) : {};
  const claims = claimsShape.parse({ ...more, ...idClaims, sub: known });
  const text = (claim: string): string | undefined => z.string().min(1).max(claimCharactersMax).safeParse(claims[claim]).data;
  const userName = text(names.userName) ?? text("email") ?? known;
  return {
    issuer: config.issuer,
    subject: known,
    name: text(names.name) ?? userName,
    userName,
    groups: groupsIn(claims, names.groups),
    refreshToken: tokens.refresh_token,
  };
}

/** No groups is an answer; too many, or a hint that they are elsewhere, is none: rights would be missing in silence. */
function groupsIn(claims: z.infer<typeof claimsShape>, claim: string): readonly string[] {
  if (claims._claim_names !== undefined && claim in claims._claim_names)
    throw refuse(
      "the person is in more groups than the provider writes into a token; let it send only groups assigned to this application",
    );
  const given = claims[claim];
  if (given === undefined || given === null) return [];
  const parsed = groupsShape.safeParse(given);
  if (!parsed.success) throw refuse(`the claim ${claim} is no list of at most ${groupsMax} group names`);
  return [...new Set(parsed.data)];
}

function refuse(reason: string, cause?: unknown): Fault {
  return new Fault("SignInRefused", `could not sign in: ${reason}`, { cause });
}

/** The library's errors as Faults; their texts may hold what a provider wrote, so only known words of them are told. */
async function told<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Fault) throw error;
    if (error instanceof oidc.AuthorizationResponseError) throw refuse(`the provider answered ${wordOf(error.error)}`, error);
    if (error instanceof oidc.ResponseBodyError && error.error === "invalid_grant")
      throw refuse("the provider takes the proof no more", error);
    if (error instanceof oidc.ClientError && isOfTheProof(error))
      throw refuse("what the provider answered does not prove the person", error);
    const reason = error instanceof oidc.ResponseBodyError ? wordOf(error.error) : codeOf(error);
    throw new Fault("IdentityProviderFailed", `could not ${doing}: the identity provider does not answer as it must`, {
      evidence: { reason },
      cause: error,
    });
  }
}

function wordOf(error: string): string {
  return /^[a-z_]{1,40}$/.test(error) ? error : "with an error";
}

/** Signature, audience, nonce, times: what the provider says of the person, not how its endpoints work. */
function isOfTheProof({ code = "" }: oidc.ClientError): boolean {
  const codes = [
    "INVALID_RESPONSE",
    "JWT_TIMESTAMP_CHECK_FAILED",
    "JWT_CLAIM_COMPARISON_FAILED",
    "KEY_SELECTION_FAILED",
    "UNSUPPORTED_OPERATION",
  ];
  return codes.includes(code.replace(/^OAUTH_/, ""));
}

function codeOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return inner instanceof Error && "code" in inner && typeof inner.code === "string" ? inner.code : "no answer";
}
