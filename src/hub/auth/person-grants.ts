// The token endpoint's grants for people: a browser's code, a device's code, a refresh token, the local account's secret; and signing out.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { localAccountGrant } from "../../contract/sign-in.ts";
import type { Session } from "../db/sessions.ts";
import { admitLocal, type PeopleParts } from "./admission.ts";
import { findClient } from "./clients.ts";
import { awaitsLocalSecret, checkLocalAccount } from "./local-account.ts";
import { refuse, type OAuthOutcome } from "./oauth.ts";

const formShape = z.object({
  client_id: z.uuid().transform((id) => id.toLowerCase()),
  code: z.string().max(200).default(""),
  redirect_uri: z.string().max(2000).default(""),
  code_verifier: z.string().max(200).default(""),
  device_code: z.string().max(200).default(""),
  refresh_token: z.string().max(200).default(""),
  secret: z.string().max(200).default(""),
  scope: z.string().max(2000).default(""),
});
type Form = z.infer<typeof formShape>;

interface Shown {
  readonly form: Form;
  readonly requestId: string;
}

type PersonGrant = (parts: PeopleParts, shown: Shown) => Promise<OAuthOutcome>;

const grants: ReadonlyMap<string, PersonGrant> = new Map([
  ["authorization_code", byCode],
  ["refresh_token", byRefreshToken],
  ["urn:ietf:params:oauth:grant-type:device_code", byDevice],
  // What Microsoft's libraries send in its place.
  ["device_code", byDevice],
  [localAccountGrant, byLocalSecret],
]);

export const personGrantTypes: readonly string[] = [...grants.keys()];

export async function grantPerson(
  parts: PeopleParts,
  shown: { readonly grantType: string; readonly body: unknown; readonly requestId: string },
): Promise<OAuthOutcome> {
  const grant = grants.get(shown.grantType);
  const form = formShape.safeParse(shown.body);
  if (grant === undefined || !form.success) return refuse(400, "invalid_request", "a parameter is missing, too long or no id");
  if (findClient(parts.config, form.data.client_id) === undefined)
    return refuse(400, "unauthorized_client", "the client is not known here");
  return await grant(parts, { form: form.data, requestId: shown.requestId });
}

/** RFC 8628, 3.2, with the message that Microsoft's libraries show to people. */
export async function beginDevice(parts: PeopleParts, body: unknown, address: string): Promise<OAuthOutcome> {
  const form = formShape.safeParse(body);
  if (!form.success) return refuse(400, "invalid_request", "client_id and scope are needed");
  const { client_id: clientId, scope } = form.data;
  if (findClient(parts.config, clientId) === undefined) return refuse(400, "unauthorized_client", "the client is not known here");
  if (!parts.isForManagement(scope)) return refuse(400, "invalid_scope", "the scope names another audience than this hub");
  if (parts.provider === undefined && !(await awaitsLocalSecret(parts.localAccounts, parts.clock)))
    return refuse(400, "access_denied", "nobody can sign in here: the hub has no identity provider, and no local account waits");
  const { deviceCode, userCode, expiresInSeconds, intervalSeconds } = await parts.signIns.askDevice({
    clientId,
    scope,
    askedFrom: address,
  });
  const shownCode = `${userCode.slice(0, 4)}-${userCode.slice(4)}`;
  const uri = `${parts.loginUrl()}/device`;
  return {
    device_code: deviceCode,
    user_code: shownCode,
    verification_uri: uri,
    verification_uri_complete: `${parts.loginUrl()}/${parts.tenantId}/device?user_code=${shownCode}`,
    expires_in: expiresInSeconds,
    interval: intervalSeconds,
    message: `To sign in, open ${uri} in a browser on any machine and enter the code ${shownCode}.`,
  };
}

/** RFC 7009: ends the session of a refresh token; an unknown one is answered the same. */
export async function revokeSession(parts: PeopleParts, body: unknown, requestId: string): Promise<void> {
  const form = z.object({ token: z.string().max(200) }).safeParse(body);
  if (!form.success) return;
  const shown = await parts.sessions.look(form.data.token);
  if (shown.kind !== "good") return;
  await parts.sessions.end(shown.session.sessionId, "signed out");
  await parts.audit.signedOut({ ...eventOf(shown.session), requestId }, "signed out");
}

async function byCode(parts: PeopleParts, { form, requestId }: Shown): Promise<OAuthOutcome> {
  const { code, client_id: clientId, redirect_uri: redirectUri, code_verifier: verifier } = form;
  const redeemed = await parts.signIns.redeemCode({ code, clientId, redirectUri, verifier });
  if (redeemed.kind === "replayed") {
    const session = await parts.sessions.find(redeemed.sessionId);
    await parts.sessions.end(redeemed.sessionId, "its code was shown twice");
    await parts.audit.refused(
      { ...(session === undefined ? {} : eventOf(session)), requestId },
      "a code was shown twice; its session ended",
    );
  }
  if (redeemed.kind !== "good")
    return refuse(400, "invalid_grant", "the code is wrong, used or too old, or it was given to another client");
  return await answerSession(parts, { sessionId: redeemed.sessionId, scope: redeemed.signIn.scope, nonce: redeemed.signIn.nonce });
}

async function byDevice(parts: PeopleParts, { form }: Shown): Promise<OAuthOutcome> {
  const redeemed = await parts.signIns.redeemDevice(form.device_code, form.client_id);
  switch (redeemed.kind) {
    case "good":
      return await answerSession(parts, { sessionId: redeemed.sessionId, scope: redeemed.signIn.scope, nonce: undefined });
    case "pending":
      return refuse(400, "authorization_pending", "nobody has entered the code and agreed yet");
    case "slowDown":
      return refuse(400, "slow_down", "ask less often");
    case "refused":
      return refuse(400, "access_denied", "the person refused");
    case "replayed":
      await parts.sessions.end(redeemed.sessionId, "its device code was shown twice");
      return refuse(400, "expired_token", "the device code was used before");
    case "unknown":
      return refuse(400, "expired_token", "the device code is unknown or too old");
  }
}

async function byRefreshToken(parts: PeopleParts, { form, requestId }: Shown): Promise<OAuthOutcome> {
  const { sessions, audit } = parts;
  const shown = await sessions.look(form.refresh_token);
  const over = refuse(400, "invalid_grant", "the session has ended; sign in again");
  if (shown.kind === "shownTwice") {
    await audit.refused({ ...eventOf(shown.session), requestId }, "a refresh token was shown twice; its session ended");
    return over;
  }
  if (shown.kind !== "good" || shown.session.clientId !== form.client_id) return over;
  const renewed = await renew(parts, shown.session, shown.providerToken);
  if (renewed.kind === "ended") {
    await sessions.end(shown.session.sessionId, renewed.reason);
    await audit.refused({ ...eventOf(shown.session), requestId }, renewed.reason);
    return over;
  }
  if (renewed.kind === "unknown") return refuse(503, "temporarily_unavailable", "the identity provider does not answer; try again");
  const next = await sessions.rotate(form.refresh_token, renewed.kind === "renewed" ? renewed : undefined);
  if (next === undefined) return over;
  return await answerSession(parts, {
    sessionId: shown.session.sessionId,
    scope: "offline_access openid",
    nonce: undefined,
    refreshToken: next,
  });
}

type Renewal =
  | { readonly kind: "kept" | "unknown" }
  | { readonly kind: "ended"; readonly reason: string }
  | { readonly kind: "renewed"; readonly claimedGroups: readonly string[]; readonly providerToken: string | undefined };

/** The provider is asked again where it gave a token for that: who left, or left a group, is seen at the next refresh. */
async function renew(parts: PeopleParts, session: Session, providerToken: string | undefined): Promise<Renewal> {
  const { provider, people, localAccounts, sessions, clock, log } = parts;
  if (session.principalKind === "localAccount") {
    const isUsable = await checkLocalAccount({ accounts: localAccounts, sessions, clock });
    return isUsable ? { kind: "kept" } : { kind: "ended", reason: "the local account has ended" };
  }
  const person = await people.find(session.principalId);
  if (person === undefined || provider === undefined || provider.issuer !== person.issuer)
    return { kind: "ended", reason: "the hub has another identity provider now" };
  if (providerToken === undefined) return { kind: "kept" };
  try {
    const answer = await provider.renew(providerToken, person.subject);
    if (answer.kind === "refused") return { kind: "ended", reason: "the identity provider renews the session no more" };
    return { kind: "renewed", claimedGroups: answer.person.groups, providerToken: answer.person.refreshToken };
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "IdentityProviderFailed") throw error;
    log.warn("identity provider did not renew", { ...error.evidence, principalId: session.principalId });
    return { kind: "unknown" };
  }
}

async function byLocalSecret(parts: PeopleParts, { form, requestId }: Shown): Promise<OAuthOutcome> {
  if (!parts.isForManagement(form.scope)) return refuse(400, "invalid_scope", "the scope names another audience than this hub");
  const admitted = await admitLocal(parts, { secret: form.secret, clientId: form.client_id, requestId, signIn: undefined });
  if (admitted === undefined) return refuse(401, "invalid_grant", "the secret is wrong, it was used before, or the account has ended");
  return await answerSession(parts, { sessionId: admitted.sessionId, scope: form.scope, nonce: undefined });
}

interface Granted {
  readonly sessionId: string;
  readonly scope: string;
  readonly nonce: string | undefined;
  readonly refreshToken?: string;
}

async function answerSession(parts: PeopleParts, { sessionId, scope, nonce, refreshToken }: Granted): Promise<OAuthOutcome> {
  const { sessions, tokens, tenantId } = parts;
  const session = await sessions.find(sessionId);
  if (session === undefined) return refuse(400, "invalid_grant", "the session has ended; sign in again");
  const { principalId, clientId, name, userName } = session;
  const scopes = scope.split(" ");
  const next = refreshToken ?? (scopes.includes("offline_access") ? await sessions.begin(sessionId) : undefined);
  const { token, expiresInSeconds } = tokens.issue({ principalId, clientId, name, sessionId });
  return {
    token_type: "Bearer",
    expires_in: expiresInSeconds,
    ext_expires_in: expiresInSeconds,
    access_token: token,
    ...(refreshToken === undefined ? { scope } : {}),
    ...(next === undefined ? {} : { refresh_token: next }),
    ...(scopes.includes("openid") ? { id_token: tokens.issueIdToken({ principalId, clientId, name, userName, nonce }) } : {}),
    // By this Microsoft's libraries know whose tokens are in their cache.
    client_info: Buffer.from(JSON.stringify({ uid: principalId, utid: tenantId })).toString("base64url"),
  };
}

function eventOf(session: Session): { readonly principalId: string; readonly name: string; readonly type: "people" | "localAccount" } {
  const { principalId, name, principalKind } = session;
  return { principalId, name, type: principalKind === "person" ? "people" : "localAccount" };
}
