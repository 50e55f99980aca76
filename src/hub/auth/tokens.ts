// Access tokens: JWTs signed with ES256 (RFC 7515, RFC 7519) by a key in a 0600 file; made for one audience, checked in full.

import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, hash, sign, verify, type KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";

export interface TokenSubject {
  readonly principalId: string;
  readonly clientId: string;
  readonly name: string;
  /** Of a person: the session that the token belongs to. Programs have none. */
  readonly sessionId: string | undefined;
}

export interface IdTokenSubject {
  readonly principalId: string;
  readonly clientId: string;
  readonly name: string;
  readonly userName: string;
  readonly nonce: string | undefined;
}

export interface Tokens {
  issue(subject: TokenSubject): { readonly token: string; readonly expiresInSeconds: number };
  /** Tells a client who signed in (OpenID Connect Core, 2). The hub itself never takes it. */
  issueIdToken(person: IdTokenSubject): string;
  /** Fault Unauthorized unless the token is whole, of this issuer and audience, and in its time. */
  check(token: string): TokenSubject;
  /** The public key as a JSON Web Key Set. */
  readonly keySet: { readonly keys: readonly Readonly<Record<string, unknown>>[] };
}

const programSeconds = 3600;
/** Short: a person's session has a refresh token. */
const personSeconds = 900;
const clockSkewSeconds = 60;
const tokenCharactersMax = 4096;
/** Tokens whose signature is remembered; of more callers than that, those that were silent longest are checked anew. */
const provedMax = 1000;

const headerShape = z.object({ alg: z.literal("ES256"), typ: z.literal("JWT"), kid: z.string() });
const claimsShape = z.object({
  iss: z.string(),
  aud: z.string(),
  oid: z.uuid(),
  appid: z.uuid(),
  app_displayname: z.string(),
  sid: z.uuid().optional(),
  iat: z.number(),
  nbf: z.number(),
  exp: z.number(),
});

export async function openTokens(options: {
  readonly keyFile: string;
  readonly issuer: string;
  readonly audience: string;
  readonly tenantId: string;
  readonly clock: Clock;
  readonly random: Random;
}): Promise<Tokens> {
  const { issuer, audience, tenantId, clock, random } = options;
  const privateKey = await loadOrMakeKey(options.keyFile);
  const publicKey = createPublicKey(privateKey);
  const { x, y } = publicKey.export({ format: "jwk" });
  const kid = createHash("sha256").update(`${x}.${y}`).digest("base64url").slice(0, 22);
  const nowSeconds = (): number => Math.floor(clock.nowMs() / 1000);
  const signed = (claims: object): string => {
    const text = `${encode({ alg: "ES256", typ: "JWT", kid })}.${encode(claims)}`;
    const signature = sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" });
    return `${text}.${signature.toString("base64url")}`;
  };
  return {
    keySet: { keys: [{ kty: "EC", crv: "P-256", use: "sig", alg: "ES256", kid, x, y }] },
    issue: (subject) => {
      const now = nowSeconds();
      const lifeSeconds = subject.sessionId === undefined ? programSeconds : personSeconds;
      const claims = {
        iss: issuer,
        aud: audience,
        sub: subject.principalId,
        oid: subject.principalId,
        appid: subject.clientId,
        app_displayname: subject.name,
        ...(subject.sessionId === undefined ? { idtyp: "app" } : { idtyp: "user", sid: subject.sessionId, name: subject.name }),
        tid: tenantId,
        iat: now,
        nbf: now,
        exp: now + lifeSeconds,
        uti: random.uuid(),
        ver: "1.0",
      };
      return { token: signed(claims), expiresInSeconds: lifeSeconds };
    },
    issueIdToken: ({ principalId, clientId, name, userName, nonce }) => {
      const now = nowSeconds();
      const who = { sub: principalId, oid: principalId, tid: tenantId, name, preferred_username: userName };
      const times = { iat: now, nbf: now, exp: now + personSeconds };
      return signed({ iss: issuer, aud: clientId, ...who, ...times, ...(nonce === undefined ? {} : { nonce }), ver: "2.0" });
    },
    check: createCheck({ issuer, audience, publicKey, nowSeconds }),
  };
}

interface Proved {
  readonly subject: TokenSubject;
  readonly startsAt: number;
  readonly endsAt: number;
}

/** A signature is checked once: what was proved of a token is kept by its digest. Its times are held against the clock at every call. */
function createCheck(wanted: {
  readonly issuer: string;
  readonly audience: string;
  readonly publicKey: KeyObject;
  readonly nowSeconds: () => number;
}): Tokens["check"] {
  const proved = new Map<string, Proved>();
  return (token) => {
    const digest = hash("sha256", token.slice(0, tokenCharactersMax + 1), "base64");
    const found = proved.get(digest) ?? prove(token, wanted);
    const now = wanted.nowSeconds();
    proved.delete(digest);
    if (found.endsAt < now - clockSkewSeconds) throw refuse("it has expired");
    if (found.startsAt > now + clockSkewSeconds) throw refuse("it is not valid yet");
    const [longestUnused] = proved.keys();
    if (longestUnused !== undefined && proved.size >= provedMax) proved.delete(longestUnused);
    proved.set(digest, found);
    return found.subject;
  };
}

function prove(
  token: string,
  { issuer, audience, publicKey }: { readonly issuer: string; readonly audience: string; readonly publicKey: KeyObject },
): Proved {
  const [header, body, signature, ...rest] = token.slice(0, tokenCharactersMax + 1).split(".");
  if (header === undefined || body === undefined || signature === undefined || rest.length > 0 || token.length > tokenCharactersMax)
    throw refuse("it is not a token");
  const isSigned = verify(
    "sha256",
    Buffer.from(`${header}.${body}`),
    { key: publicKey, dsaEncoding: "ieee-p1363" },
    Buffer.from(signature, "base64url"),
  );
  if (!isSigned || !headerShape.safeParse(decode(header)).success) throw refuse("it was not signed by this hub");
  const claims = claimsShape.safeParse(decode(body));
  if (!claims.success || claims.data.iss !== issuer || claims.data.aud !== audience) throw refuse("it is for another audience");
  const { oid: principalId, appid: clientId, app_displayname: name, sid: sessionId, nbf: startsAt, exp: endsAt } = claims.data;
  return { subject: { principalId, clientId, name, sessionId }, startsAt, endsAt };
}

/** Makes the key file unless it is there. */
export async function makeTokenKey(path: string): Promise<void> {
  await loadOrMakeKey(path);
}

async function loadOrMakeKey(path: string): Promise<KeyObject> {
  const present = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (present !== undefined) return createPrivateKey(present);
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  await writeFileAtomic(path, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  return privateKey;
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** undefined when it is not JSON; the schema then refuses it. */
function decode(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
}

function refuse(reason: string): Fault {
  return new Fault("Unauthorized", `could not accept the access token: ${reason}`);
}
