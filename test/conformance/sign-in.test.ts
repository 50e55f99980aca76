// @azure/identity as it is: a service principal signs in by secret and by certificate, and by nothing else.

import assert from "node:assert/strict";
import { createHash, createPrivateKey } from "node:crypto";
import { test } from "node:test";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { ClientCertificateCredential, ClientSecretCredential, type TokenCredential } from "@azure/identity";
import { SignJWT } from "jose";
import { z } from "zod";
import { systemClock, toDate, toTimestamp } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { startRig } from "./rig.ts";

const dayMs = 86_400_000;
const principalShape = z.object({ properties: z.object({ clientId: z.uuid(), credentials: z.array(z.record(z.string(), z.unknown())) }) });
const credentialShape = z.object({ credentialId: z.uuid(), secret: z.string().optional() });

async function makeCertificate(): Promise<{ readonly certificatePem: string; readonly keyPem: string; readonly sha256: string }> {
  const algorithm = { name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const now = systemClock.nowMs();
  const validity = { notBefore: toDate(now - dayMs), notAfter: toDate(now + dayMs) };
  const certificate = await x509.X509CertificateGenerator.createSelfSigned(
    { name: "CN=program", keys, signingAlgorithm: algorithm, ...validity },
    crypto,
  );
  const keyPem = x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  const sha256 = createHash("sha256").update(Buffer.from(certificate.rawData)).digest("base64url");
  return { certificatePem: certificate.toString("pem"), keyPem, sha256 };
}

test("Azure's credentials sign a service principal in, until its credential is taken away", async () => {
  await using rig = await startRig();
  const { tenantId, authority } = rig.facts;
  const token = await rig.token();
  const principalId = systemRandom.uuid();
  const path = `/subscriptions/${rig.subscriptionId}/providers/Watari.Identity/servicePrincipals/${principalId}`;
  const call = async (method: string, tail: string, body?: unknown, bearer = token) => {
    const headers = { authorization: `Bearer ${bearer}`, "content-type": "application/json" };
    const text = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await fetch(`${rig.endpoint}${path}${tail}?api-version=2025-08-01`, { method, headers, ...text });
    const said = await answer.text();
    return { status: answer.status, text: said, body: said === "" ? undefined : (JSON.parse(said) as unknown) };
  };
  const made = await call("PUT", "", { properties: { displayName: "deploy" } });
  assert.equal(made.status, 201, made.text);
  const { clientId } = principalShape.parse(made.body).properties;
  const expiresAt = toTimestamp(systemClock.nowMs() + dayMs);
  const bySecret = credentialShape.parse((await call("POST", "/addCredential", { secret: "generate", expiresAt })).body);
  const { certificatePem, keyPem, sha256 } = await makeCertificate();
  const byCertificate = credentialShape.parse((await call("POST", "/addCredential", { certificatePem, expiresAt })).body);
  const past = toTimestamp(systemClock.nowMs() - dayMs);
  assert.equal((await call("POST", "/addCredential", { secret: "generate", expiresAt: past })).status, 400);
  const seen = await call("GET", "");
  assert.equal(principalShape.parse(seen.body).properties.credentials.length, 2);
  assert.equal(seen.text.includes(bySecret.secret ?? ""), false, "a secret is shown once");

  const options = { authorityHost: authority, disableInstanceDiscovery: true };
  const signIn = async (credential: TokenCredential): Promise<string> =>
    (await credential.getToken(`${rig.endpoint}/.default`))?.token ?? "";
  const secret = (): TokenCredential => new ClientSecretCredential(tenantId, clientId, bySecret.secret ?? "", options);
  const certificate = (pem: string): TokenCredential => new ClientCertificateCredential(tenantId, clientId, { certificate: pem }, options);
  for (const credential of [secret(), certificate(`${certificatePem}\n${keyPem}\n`)]) {
    const theirs = await signIn(credential);
    assert.equal((await call("GET", "", undefined, theirs)).status, 403, "known, and without a role");
  }
  const other = await makeCertificate();
  await assert.rejects(signIn(certificate(`${other.certificatePem}\n${other.keyPem}\n`)), /invalid_client|401/);

  const endpoint = `${authority}/${tenantId}/oauth2/v2.0/token`;
  const now = Math.floor(systemClock.nowMs() / 1000);
  const status = async (change: Readonly<Record<string, unknown>>, header: Readonly<Record<string, string>> = {}): Promise<number> => {
    const claims = { iss: clientId, sub: clientId, aud: endpoint, exp: now + 600, nbf: now, jti: systemRandom.uuid(), ...change };
    const signed = new SignJWT(claims).setProtectedHeader({ alg: "PS256", "x5t#S256": sha256, ...header });
    const form = new URLSearchParams({
      grant_type: "client_credentials",
      client_id: clientId,
      client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
      client_assertion: await signed.sign(createPrivateKey(keyPem)),
      scope: `${rig.endpoint}/.default`,
    });
    return (await fetch(endpoint, { method: "POST", body: form })).status;
  };
  const jti = systemRandom.uuid();
  assert.deepEqual([await status({ jti }), await status({ jti })], [200, 200], "the same address may show it again");
  for (const wrong of [
    { aud: "https://elsewhere.test/token" },
    { exp: now - 300 },
    { exp: now + 86_400 },
    { nbf: now + 600 },
    { iss: "x" },
    { sub: principalId },
  ])
    assert.equal(await status(wrong), 401, JSON.stringify(wrong));
  assert.equal(await status({}, { "x5t#S256": other.sha256 }), 401);

  for (const { credentialId } of [bySecret, byCertificate])
    assert.equal((await call("POST", "/removeCredential", { credentialId })).status, 204);
  await assert.rejects(signIn(secret()), /invalid_client|401/);
  await assert.rejects(signIn(certificate(`${certificatePem}\n${keyPem}\n`)), /invalid_client|401/);
  assert.equal((await call("DELETE", "")).status, 200);
  assert.equal((await call("GET", "")).status, 404);
});
