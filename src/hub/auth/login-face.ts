// login.<domain>: the token endpoint in Entra's paths for programs and people, and the documents that describe it.

import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { createHttpFace, type AnsweredRequest } from "../api/api-server.ts";
import type { Credentials } from "../db/credentials.ts";
import type { Principal, Principals } from "../db/principals.ts";
import type { PeopleParts } from "./admission.ts";
import { provesClient } from "./client-assertion.ts";
import { isFailure, isRefusal, refuse, type OAuthOutcome } from "./oauth.ts";
import { beginDevice, grantPerson, personGrantTypes, revokeSession } from "./person-grants.ts";
import { registerPersonRoutes } from "./person-face.ts";
import type { Tokens } from "./tokens.ts";

const formShape = z.object({
  grant_type: z.string().max(100),
  client_id: z.string().max(100).optional(),
  client_secret: z.string().max(400).optional(),
  client_assertion: z.string().max(12_000).optional(),
  client_assertion_type: z.literal("urn:ietf:params:oauth:client-assertion-type:jwt-bearer").optional(),
  scope: z.string().max(400).optional(),
  resource: z.string().max(400).optional(),
});
const formBytesMax = 16_384;
const paramsShape = z.object({ tenant: z.string().max(100) });

interface LoginDependencies {
  readonly principals: Principals;
  readonly credentials: Credentials;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly tenantId: string;
  /** "management.<domain>" first, and the names that clients say when they mean it; tokens are made for the first. */
  readonly audienceNames: readonly string[];
  readonly issuer: string;
  /** What people's sign-ins work with. */
  readonly parts: PeopleParts;
  readonly log: Log;
  readonly random: Random;
  readonly onAnswered?: (request: AnsweredRequest) => void;
  readonly onRoute?: (route: string) => void;
}

export function createLoginFace(dependencies: LoginDependencies): FastifyInstance {
  const { tokens, parts } = dependencies;
  const face = createHttpFace(dependencies);
  const parseForm = async (_request: FastifyRequest, body: string): Promise<unknown> => Object.fromEntries(new URLSearchParams(body));
  face.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string", bodyLimit: formBytesMax }, parseForm);
  const grant = createGrant(dependencies);
  for (const path of ["/:tenant/oauth2/v2.0/token", "/:tenant/oauth2/token"])
    face.post(path, async (request, reply) => await answerOAuth(dependencies, { request, reply }, grant));
  face.post(
    "/:tenant/oauth2/v2.0/devicecode",
    async (request, reply) =>
      await answerOAuth(dependencies, { request, reply }, async () => {
        const started = parts.starts.take(request.ip);
        if (started.kind === "taken") return await beginDevice(parts, request.body, request.ip);
        void reply.header("retry-after", String(started.waitSeconds));
        return refuse(429, "temporarily_unavailable", `too many sign-ins came from this address; try again in ${started.waitSeconds} s`);
      }),
  );
  face.post(
    "/:tenant/oauth2/v2.0/revoke",
    async (request, reply) =>
      await answerOAuth(dependencies, { request, reply }, async () => {
        await revokeSession(parts, request.body, request.id);
        return {};
      }),
  );
  registerPersonRoutes(face, parts);
  const described = createDocument(dependencies);
  face.get("/:tenant/v2.0/.well-known/openid-configuration", async (_request, reply) => await reply.send(described()));
  face.get("/:tenant/.well-known/openid-configuration", async (_request, reply) => await reply.send(described()));
  face.get("/:tenant/discovery/v2.0/keys", async (_request, reply) => await reply.send(tokens.keySet));
  return face;
}

function createDocument({ tenantId, parts, issuer }: LoginDependencies): () => Readonly<Record<string, unknown>> {
  return () => {
    const base = `${parts.loginUrl()}/${tenantId}`;
    return {
      issuer,
      token_endpoint: `${base}/oauth2/v2.0/token`,
      authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
      device_authorization_endpoint: `${base}/oauth2/v2.0/devicecode`,
      revocation_endpoint: `${base}/oauth2/v2.0/revoke`,
      jwks_uri: `${base}/discovery/v2.0/keys`,
      token_endpoint_auth_methods_supported: ["client_secret_post", "client_secret_basic", "private_key_jwt", "none"],
      response_types_supported: ["code"],
      response_modes_supported: ["query", "form_post"],
      scopes_supported: ["openid", "profile", "offline_access"],
      code_challenge_methods_supported: ["S256"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["ES256"],
      grant_types_supported: ["client_credentials", ...personGrantTypes],
    };
  };
}

type Grant = (request: FastifyRequest) => Promise<OAuthOutcome>;

/** Slows addresses whose sign-ins fail, checks the tenant, and gives outcomes their form. */
async function answerOAuth(
  { parts, tenantId }: LoginDependencies,
  { request, reply }: { readonly request: FastifyRequest; readonly reply: FastifyReply },
  work: Grant,
): Promise<unknown> {
  const allowed = parts.failures.peek(request.ip);
  if (allowed.kind === "refused") {
    await parts.audit.refused({ requestId: request.id }, "too many sign-ins from this address failed");
    const description = `too many sign-ins from this address failed; try again in ${allowed.waitSeconds} s`;
    const body = { error: "temporarily_unavailable", error_description: description, trace_id: request.id };
    return await reply.code(429).header("retry-after", String(allowed.waitSeconds)).send(body);
  }
  const isOurs = paramsShape.parse(request.params).tenant.toLowerCase() === tenantId;
  const outcome = isOurs ? await work(request) : refuse(400, "invalid_request", "the tenant does not exist");
  if (!isRefusal(outcome)) return await reply.send(outcome);
  if (isFailure(outcome)) {
    parts.failures.take(request.ip);
    parts.log.info("token refused", { reason: outcome.description, requestId: request.id });
  }
  const body = { error: outcome.error, error_description: outcome.description, trace_id: request.id };
  return await reply.code(outcome.status).send(body);
}

function createGrant(dependencies: LoginDependencies): Grant {
  const { principals, tokens, parts, audienceNames } = dependencies;
  return async (request) => {
    const form = formShape.safeParse(request.body);
    if (!form.success) return refuse(400, "invalid_request", "a parameter is missing or too long");
    const { grant_type: grantType } = form.data;
    if (personGrantTypes.includes(grantType)) return await grantPerson(parts, { grantType, body: request.body, requestId: request.id });
    if (grantType !== "client_credentials") return refuse(400, "unsupported_grant_type", "this grant type is not known here");
    if (!parts.isForManagement(form.data.scope ?? form.data.resource ?? ""))
      return refuse(400, "invalid_scope", `tokens are for https://${audienceNames[0]}/.default`);
    const basic = readBasic(request.headers.authorization);
    const clientId = (form.data.client_id ?? basic?.clientId ?? "").toLowerCase();
    const secret = form.data.client_secret ?? basic?.secret ?? "";
    const isId = z.uuid().safeParse(clientId).success;
    const assertion = form.data.client_assertion;
    if (assertion !== undefined && secret !== "") return refuse(400, "invalid_request", "a secret and an assertion are one too many");
    const bySecret = isId && secret !== "" ? await principals.signIn(clientId, secret) : undefined;
    const principal =
      isId && assertion !== undefined ? await signInByAssertion(dependencies, { clientId, assertion, address: request.ip }) : bySecret;
    if (principal === undefined) {
      const known = isId ? await principals.findClient(clientId) : undefined;
      const who = known === undefined ? {} : { principalId: known.principalId, name: known.name };
      await parts.audit.refused({ ...who, type: "servicePrincipals", requestId: request.id }, "the secret or the assertion is wrong");
      return refuse(401, "invalid_client", "the client id, its secret or its assertion is wrong");
    }
    const { principalId, name } = principal;
    const how = assertion === undefined ? "secret" : "certificate";
    await parts.audit.signedIn({ principalId, name, type: "servicePrincipals", requestId: request.id }, how);
    const { token, expiresInSeconds } = tokens.issue({ ...principal, sessionId: undefined });
    return { token_type: "Bearer", expires_in: expiresInSeconds, ext_expires_in: expiresInSeconds, access_token: token };
  };
}

/** Whoever holds the certificate's key; the assertion must be meant for this token endpoint. */
async function signInByAssertion(
  dependencies: LoginDependencies,
  { clientId, assertion, address }: { readonly clientId: string; readonly assertion: string; readonly address: string },
): Promise<Principal | undefined> {
  const { principals, parts, tenantId, issuer, credentials, clock } = dependencies;
  const audiences = ["oauth2/v2.0/token", "oauth2/token", "v2.0"].map((path) => `${parts.loginUrl()}/${tenantId}/${path}`);
  const isProved = await provesClient({ credentials, clock }, { assertion, clientId, address, audiences: [...audiences, issuer] });
  return isProved ? await principals.findClient(clientId) : undefined;
}

/** A scope names the audience and "/.default"; a port, as on single machines, does not matter. */
export function isForManagement(scope: string, audienceNames: readonly string[]): boolean {
  const audience = scope.split(" ").find((part) => part.startsWith("https://")) ?? "";
  return URL.canParse(audience) && audienceNames.includes(new URL(audience).hostname);
}

function readBasic(authorization: string | undefined): { readonly clientId: string; readonly secret: string } | undefined {
  const [scheme = "", value = ""] = (authorization ?? "").split(" ");
  if (scheme.toLowerCase() !== "basic") return undefined;
  const text = Buffer.from(value, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return colon === -1 ? undefined : { clientId: text.slice(0, colon), secret: text.slice(colon + 1) };
}
