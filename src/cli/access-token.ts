// Access tokens for a profile: by a client secret, by a certificate, or from the session of a person, renewed by one program at a time.

import { createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { open, readFile, rm, stat } from "node:fs/promises";
import { SignJWT } from "jose";
import { z } from "zod";
import { writeFileAtomic } from "../base/atomic-file.ts";
import type { Clock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import { commandLineClientId } from "../contract/sign-in.ts";
import type { HubConnection } from "./hub-connection.ts";
import { operatorFileShape, parseJson, type HubFacts, type Profile } from "./profile.ts";

export interface AccessToken {
  readonly text: string;
  readonly expiresAtMs: number;
}

const tokenShape = z.object({ access_token: z.string(), expires_in: z.coerce.number(), refresh_token: z.string().optional() });
export type GivenToken = z.infer<typeof tokenShape>;
const refusalShape = z.object({ error: z.string(), error_description: z.string().optional() });
const sessionShape = z.object({ accessToken: z.string(), expiresAtMs: z.number(), refreshToken: z.string().optional() });

/** A token that ends sooner is not used any more. */
const spareMs = 60_000;
const assertionSeconds = 300;
const lockWaitMsMax = 60_000;
const lockPollMs = 100;
/** A program that was killed with the lock in its hand. */
const lockStaleMs = 60_000;

interface Way {
  readonly profile: Profile;
  readonly connection: HubConnection;
  readonly clock: Clock;
}

export function scopeOf({ managementUrl }: HubFacts): string {
  return `${managementUrl.replace(/\/$/, "")}/.default`;
}

export function tokenUrl({ loginUrl, tenantId }: HubFacts, path = "token"): URL {
  return new URL(`/${tenantId}/oauth2/v2.0/${path}`, loginUrl);
}

export async function fetchAccessToken(way: Way): Promise<AccessToken> {
  const { profile, clock } = way;
  if (profile.sessionFile !== undefined) return await fromSession(way, profile.sessionFile);
  return toAccessToken(await askToken(way, { grant_type: "client_credentials", scope: scopeOf(profile), ...(await proofOf(way)) }), clock);
}

/** Asks the token endpoint; a refusal is a Fault that says what the hub said. */
export async function askToken(
  { profile, connection }: { readonly profile: HubFacts; readonly connection: HubConnection },
  form: Readonly<Record<string, string>>,
): Promise<GivenToken> {
  const response = await connection.post(tokenUrl(profile), form);
  const token = tokenShape.safeParse(response.body);
  if (response.status < 400 && token.success) return token.data;
  throw toRefusal(response, profile);
}

export function toRefusal(response: { readonly status: number; readonly body: unknown }, { loginUrl }: HubFacts): Fault {
  const refusal = refusalShape.safeParse(response.body);
  const said = refusal.success ? (refusal.data.error_description ?? refusal.data.error) : `the answer was ${response.status}`;
  const evidence = { loginUrl, status: response.status, ...(refusal.success ? { error: refusal.data.error } : {}) };
  if (response.status === 429) return new Fault("TooManyRequests", `could not sign in to the hub: ${said}`, { evidence });
  if (response.status >= 500) return new Fault("IdentityProviderFailed", `could not sign in to the hub: ${said}`, { evidence });
  return new Fault("SignInRefused", `could not sign in to the hub: ${said}`, { evidence });
}

/** Keeps a person's session for the commands that follow. */
export async function writeSession(file: string, given: GivenToken, clock: Clock): Promise<void> {
  const { text: accessToken, expiresAtMs } = toAccessToken(given, clock);
  const { refresh_token: refreshToken } = given;
  const session = { accessToken, expiresAtMs, ...(refreshToken === undefined ? {} : { refreshToken }) };
  await writeFileAtomic(file, `${JSON.stringify(session)}\n`, { mode: 0o600 });
}

export async function readRefreshToken(file: string): Promise<string | undefined> {
  return (await readSession(file)).refreshToken;
}

async function fromSession(way: Way, file: string): Promise<AccessToken> {
  const { clock, profile } = way;
  const known = await readSession(file);
  if (known.expiresAtMs > clock.nowMs() + spareMs) return { text: known.accessToken, expiresAtMs: known.expiresAtMs };
  // A refresh token works once: of two commands at a time one renews, and the other takes what it got.
  await using _lock = await takeLock(`${file}.lock`, clock);
  const present = await readSession(file);
  if (present.expiresAtMs > clock.nowMs() + spareMs) return { text: present.accessToken, expiresAtMs: present.expiresAtMs };
  const again = "sign in again: watari login";
  if (present.refreshToken === undefined)
    throw new Fault("SignInRefused", "could not sign in to the hub: the session has ended", { action: again });
  const form = {
    grant_type: "refresh_token",
    client_id: commandLineClientId,
    refresh_token: present.refreshToken,
    scope: scopeOf(profile),
  };
  const given = await askToken(way, form);
  await writeSession(file, given, clock);
  return toAccessToken(given, clock);
}

async function readSession(file: string): Promise<z.infer<typeof sessionShape>> {
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw new Fault("SignInRefused", "could not read the session: nobody is signed in here", {
      evidence: { file },
      action: "sign in: watari login",
      cause,
    });
  });
  return parseJson(text, sessionShape, file);
}

async function takeLock(file: string, clock: Clock): Promise<AsyncDisposable> {
  const endMs = clock.monotonicMs() + lockWaitMsMax;
  for (;;) {
    try {
      const handle = await open(file, "wx", 0o600);
      await handle.close();
      return { [Symbol.asyncDispose]: async () => await rm(file, { force: true }) };
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
      const madeMs = (await stat(file).catch(() => undefined))?.mtimeMs; // Gone by now: the next try gets it.
      if (madeMs !== undefined && clock.nowMs() - madeMs > lockStaleMs) await rm(file, { force: true });
      else if (clock.monotonicMs() > endMs)
        throw new Fault("StateConflict", "could not renew the session: another command holds it", { evidence: { file } });
      else await clock.sleep(lockPollMs);
    }
  }
}

async function proofOf({ profile, clock }: Way): Promise<Readonly<Record<string, string>>> {
  const { clientId, certificateFile } = profile;
  if (certificateFile === undefined) return { client_id: clientId, client_secret: await secretOf(profile) };
  const pem = await readFile(certificateFile, "utf8");
  const certificate = new X509Certificate(pem);
  const thumbprint = createHash("sha256").update(certificate.raw).digest("base64url");
  const nowSeconds = Math.floor(clock.nowMs() / 1000);
  const claims = {
    iss: clientId,
    sub: clientId,
    aud: tokenUrl(profile).href,
    jti: systemRandom.uuid(),
    nbf: nowSeconds,
    exp: nowSeconds + assertionSeconds,
  };
  const signed = new SignJWT(claims).setProtectedHeader({ alg: "PS256", "x5t#S256": thumbprint });
  return {
    client_id: clientId,
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: await signed.sign(createPrivateKey(pem)),
  };
}

/** What the file has now, where it can be read still: the hub renews the first operator's secret in it. */
async function secretOf({ clientId, clientSecret = "", credentialFile }: Profile): Promise<string> {
  const text = credentialFile === undefined ? undefined : await readFile(credentialFile, "utf8").catch(() => undefined); // It was carried away.
  if (text === undefined || credentialFile === undefined) return clientSecret;
  const present = parseJson(text, operatorFileShape, credentialFile);
  return present.clientId === clientId ? present.clientSecret : clientSecret;
}

function toAccessToken(given: GivenToken, clock: Clock): AccessToken {
  return { text: given.access_token, expiresAtMs: clock.nowMs() + given.expires_in * 1000 };
}
