// login.<domain>: the OAuth 2 client-credentials grant (RFC 6749, 4.4) in Entra's paths, and the documents that describe it.

import type { FastifyInstance, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Log } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { RateLimit } from "../api/rate-limits.ts";
import { createHttpFace, type AnsweredRequest } from "../api/api-server.ts";
import type { Principals } from "../db/principals.ts";
import type { Tokens } from "./tokens.ts";

const formShape = z.object({
  grant_type: z.string().max(100),
  client_id: z.string().max(100).optional(),
  client_secret: z.string().max(400).optional(),
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

export function createLoginFace(dependencies: {
  readonly principals: Principals;
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
}): FastifyInstance {
  const { principals, tokens, tenantId, audienceNames, loginUrl, issuer, failures, log } = dependencies;
  const face = createHttpFace(dependencies);
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
      const outcome = await grant(request.params, request.body, request.headers.authorization);
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
    token_endpoint_auth_methods_supported: ["client_secret_post", "client_secret_basic"],
    response_types_supported: ["token"],
    subject_types_supported: ["pairwise"],
    id_token_signing_alg_values_supported: ["ES256"],
    grant_types_supported: ["client_credentials"],
  });
  face.get("/:tenant/v2.0/.well-known/openid-configuration", async (_request, reply) => await reply.send(configuration()));
  face.get("/:tenant/.well-known/openid-configuration", async (_request, reply) => await reply.send(configuration()));
  face.get("/:tenant/discovery/v2.0/keys", async (_request, reply) => await reply.send(tokens.keySet));

  const grant = async (
    params: unknown,
    body: unknown,
    authorization: string | undefined,
  ): Promise<OAuthError | Readonly<Record<string, unknown>>> => {
    const form = formShape.safeParse(body);
    if (!form.success) return refuse(400, "invalid_request", "a parameter is missing or too long");
    if (form.data.grant_type !== "client_credentials") return refuse(400, "unsupported_grant_type", "only client_credentials is supported");
    if (paramsShape.parse(params).tenant.toLowerCase() !== tenantId) return refuse(400, "invalid_request", "the tenant does not exist");
    if (!isForManagement(form.data.scope ?? form.data.resource ?? "", audienceNames))
      return refuse(400, "invalid_scope", `tokens are for https://${audienceNames[0]}/.default`);
    const basic = readBasic(authorization);
    const clientId = form.data.client_id ?? basic?.clientId ?? "";
    const secret = form.data.client_secret ?? basic?.secret ?? "";
    const isId = z.uuid().safeParse(clientId).success;
    const principal = isId && secret !== "" ? await principals.signIn(clientId.toLowerCase(), secret) : undefined;
    if (principal === undefined) return refuse(401, "invalid_client", "the client id or the client secret is wrong");
    const { token, expiresInSeconds } = tokens.issue(principal);
    return { token_type: "Bearer", expires_in: expiresInSeconds, ext_expires_in: expiresInSeconds, access_token: token };
  };
  return face;
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
