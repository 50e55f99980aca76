// Sign-in by certificate: a client assertion (RFC 7523, 2.2) signed with the key of a certificate that was registered before.

import { createHash } from "node:crypto";
import { decodeProtectedHeader, importX509, jwtVerify } from "jose";
import { z } from "zod";
import { toDate, toTimestamp, type Clock } from "../../base/clock.ts";
import type { Credentials } from "../db/credentials.ts";

const algorithms = ["PS256", "RS256"];
const lifeSecondsMax = 3600;
const clockSkewSeconds = 60;
const headerShape = z.looseObject({
  alg: z.enum(["PS256", "RS256"]),
  x5t: z.string().max(100).optional(),
  "x5t#S256": z.string().max(100).optional(),
});
const claimsShape = z.looseObject({ exp: z.number(), jti: z.string().min(1).max(200) });

/**
 * Whether the assertion proves the client. Clients use one assertion again while it lives, so it is bound to the address that showed it
 * first instead of being good for one use.
 */
export async function provesClient(
  dependencies: { readonly credentials: Credentials; readonly clock: Clock },
  shown: { readonly assertion: string; readonly clientId: string; readonly address: string; readonly audiences: readonly string[] },
): Promise<boolean> {
  const { credentials, clock } = dependencies;
  const { assertion, clientId, address, audiences } = shown;
  const key = clientId.toLowerCase();
  const header = readHeader(assertion);
  if (header === undefined) return false;
  const { x5t: sha1, "x5t#S256": sha256 } = header;
  const thumbprint = { ...(sha1 === undefined ? {} : { sha1 }), ...(sha256 === undefined ? {} : { sha256 }) };
  const credential = await credentials.findCertificate(key, thumbprint);
  if (credential?.certificatePem === undefined) return false;
  const payload = await verified(assertion, await importX509(credential.certificatePem, header.alg), {
    issuer: [clientId, key],
    audience: [...audiences],
    algorithms,
    clockTolerance: clockSkewSeconds,
    currentDate: toDate(clock.nowMs()),
    requiredClaims: ["exp", "jti", "sub"],
  });
  const claims = claimsShape.safeParse(payload);
  if (!claims.success || String(claims.data["sub"]).toLowerCase() !== key) return false;
  const { exp, jti } = claims.data;
  if (exp * 1000 > clock.nowMs() + (lifeSecondsMax + clockSkewSeconds) * 1000) return false;
  const digest = createHash("sha256").update(`${key}\n${jti}`, "utf8").digest("hex");
  return await credentials.bindAssertion({ digest, boundTo: address, expiresAt: toTimestamp((exp + clockSkewSeconds) * 1000) });
}

function readHeader(assertion: string): z.infer<typeof headerShape> | undefined {
  try {
    return headerShape.safeParse(decodeProtectedHeader(assertion)).data;
  } catch {
    return undefined; // No JWT at all.
  }
}

async function verified(assertion: string, key: CryptoKey, options: Parameters<typeof jwtVerify>[2]): Promise<unknown> {
  try {
    return (await jwtVerify(assertion, key, options)).payload;
  } catch {
    return undefined; // Another signature, audience or time: refused like a wrong secret, without telling which.
  }
}
