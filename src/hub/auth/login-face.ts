// login.<domain>: the OAuth 2 client-credentials grant (RFC 6749, 4.4) in Entra's paths, and the documents that describe it.

import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { RateLimit } from "../api/rate-limits.ts";
import { createHttpFace, type AnsweredRequest } from "../api/api-server.ts";
import type { Credentials } from "../db/credentials.ts";
import type { Principal, Principals } from "../db/principals.ts";
import { provesClient } from "./client-assertion.ts";
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

interface OAuthError {
  readonly status: number;
  readonly error: "invalid_request" | "unauthorized_client" | "invalid_client" | "unsupported_grant_type" | "invalid_scope";
  readonly description: string;
}

interface LoginDependencies {
  readonly principals: Principals;
  readonly credentials: Credentials;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly tenantId: string;
  /** "management.<domain>" first, and the names that clients say when they mean it; tokens are made for the first. */
  readonly audienceNames: readonly string[];
  readonly loginUrl: () => string;
  readonly issuer: string;
  /** Counts sign-ins that failed, by address. */
  readonly failures: RateLimit;
  readonly log: Log;
  readonly random: Random;
  readonly onAnswered?: (request: AnsweredRequest) => void;
}

export function createLoginFace(dependencies: LoginDependencies): FastifyInstance {
  const { tokens, tenantId, loginUrl, issuer, failures, log } = dependencies;
  const face = createHttpFace(dependencies);
  const grant = createGrant(dependencies);
  const parseForm = async (_request: FastifyRequest, body: string): Promise<unknown> => Object.fromEntries(new URLSearchParams(body));
  face.addContentTypeParser("application/x-www-form-urlencoded", { parseAs: "string", bodyLimit: formBytesMax }, parseForm);
  for (const path of ["/:tenant/oauth2/v2.0/token", "/:tenant/oauth2/token"])
    face.post(path, async (request, reply) => {
      const allowed = failures.peek(request.ip);
      if (allowed.kind === "refused") {
        log.info("sign-in refused", { reason: "too many failed", requestId: request.id });
        const description = `too many sign-ins from this address failed; try again in ${allowed.waitSeconds} s`;
        const body = { error: "temporarily_unavailable", error_description: description, trace_id: request.id };
        return await reply.code(429).header("retry-after", String(allowed.waitSeconds)).send(body);
      }
      const outcome = await grant(request);
      if (isRefusal(outcome)) {
        failures.take(request.ip);
        log.info("sign-in refused", { reason: outcome.description, requestId: request.id });
        const body = { error: outcome.error, error_description: outcome.description, trace_id: request.id };
        return await reply.code(outcome.status).send(body);
      }
      return await reply.send(outcome);
    });
  const configuration = (): Readonly<Record<string, unknown>> => ({
    issuer,
    token_endpoint: `${loginUrl()}/${tenantId}/oauth2/v2.0/token`,
    authorization_endpoint: `${loginUrl()}/${tenantId}/oauth2/v2.0/authorize`,
    jwks_uri: `${loginUrl()}/${tenantId}/discovery/v2.0/keys`,
    token_endpoint_auth_methods_supported: ["client_secret_post", "client_secret_basic", "private_key_jwt"],
    response_types_supported: ["token"],
    subject_types_supported: ["pairwise"],
    id_token_signing_alg_values_supported: ["ES256"],
    grant_types_supported: ["client_credentials"],
  });
  face.get("/:tenant/v2.0/.well-known/openid-configuration", async (_request, reply) => await reply.send(configuration()));
  face.get("/:tenant/.well-known/openid-configuration", async (_request, reply) => await reply.send(configuration()));
  face.get("/:tenant/discovery/v2.0/keys", async (_request, reply) => await reply.send(tokens.keySet));

  return face;
}

type Grant = (request: FastifyRequest) => Promise<OAuthError | Readonly<Record<string, unknown>>>;

function createGrant(dependencies: LoginDependencies): Grant {
  const { principals, tokens, tenantId, audienceNames, loginUrl, issuer } = dependencies;
  /** Whoever holds the certificate's key; the assertion must be meant for this token endpoint. */
  const signInByAssertion = async (clientId: string, assertion: string, address: string): Promise<Principal | undefined> => {
    const audiences = ["oauth2/v2.0/token", "oauth2/token", "v2.0"].map((path) => `${loginUrl()}/${tenantId}/${path}`);
    const isProved = await provesClient(dependencies, { assertion, clientId, address, audiences: [...audiences, issuer] });
    return isProved ? await principals.findClient(clientId.toLowerCase()) : undefined;
  };
  return async (request) => {
    const { params, body, headers } = request;
    const form = formShape.safeParse(body);
    if (!form.success) return refuse(400, "invalid_request", "a parameter is missing or too long");
    if (form.data.grant_type !== "client_credentials") return refuse(400, "unsupported_grant_type", "only client_credentials is supported");
    if (paramsShape.parse(params).tenant.toLowerCase() !== tenantId) return refuse(400, "invalid_request", "the tenant does not exist");
    if (!isForManagement(form.data.scope ?? form.data.resource ?? "", audienceNames))
      return refuse(400, "invalid_scope", `tokens are for https://${audienceNames[0]}/.default`);
    const basic = readBasic(headers.authorization);
    const clientId = form.data.client_id ?? basic?.clientId ?? "";
    const secret = form.data.client_secret ?? basic?.secret ?? "";
    const isId = z.uuid().safeParse(clientId).success;
    const assertion = form.data.client_assertion;
    if (assertion !== undefined && secret !== "") return refuse(400, "invalid_request", "a secret and an assertion are one too many");
    const bySecret = isId && secret !== "" ? await principals.signIn(clientId.toLowerCase(), secret) : undefined;
    const principal = isId && assertion !== undefined ? await signInByAssertion(clientId, assertion, request.ip) : bySecret;
    if (principal === undefined) return refuse(401, "invalid_client", "the client id, its secret or its assertion is wrong");
    const { token, expiresInSeconds } = tokens.issue(principal);
    return { token_type: "Bearer", expires_in: expiresInSeconds, ext_expires_in: expiresInSeconds, access_token: token };
  };
}

function isRefusal(outcome: OAuthError | Readonly<Record<string, unknown>>): outcome is OAuthError {
  return "error" in outcome;
}

/** A scope names the audience and "/.default"; a port, as on single machines, does not matter. */
function isForManagement(scope: string, audienceNames: readonly string[]): boolean {
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

function refuse(status: number, error: OAuthError["error"], description: string): OAuthError {
  return { status, error, description };
}
