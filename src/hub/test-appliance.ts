// For tests: the registration call of an appliance that has a key of its own.

import { createHmac } from "node:crypto";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import type { RegistrationKey } from "../contract/appliance-protocol.ts";

/** The name in the request is of no account: the hub writes its own. */
export async function makeRegistration(key: RegistrationKey, name = "site"): Promise<{ readonly body: object; readonly keyPem: string }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({ name: "CN=someone else", keys, signingAlgorithm: algorithm }, crypto);
  const csrPem = csr.toString("pem");
  const proof = createHmac("sha256", Buffer.from(key.secret, "base64url")).update(csrPem).digest("hex");
  const keyPem = x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY");
  return { body: { protocolVersion: 1, applianceVersion: "0.1.0", name, keyId: key.keyId, csrPem, proof }, keyPem };
}
