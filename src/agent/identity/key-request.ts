// A new key pair and the request to have it certified.

import { webcrypto } from "node:crypto";

export async function createKeyAndRequest(name: string): Promise<{ readonly csrPem: string; readonly keyPem: string }> {
  // Loaded here only: the running agent has no need of it and of its memory.
  await import("reflect-metadata");
  const { Pkcs10CertificateRequestGenerator, PemConverter } = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const request = await Pkcs10CertificateRequestGenerator.create(
    { name: `CN=${name.replaceAll(/[^A-Za-z0-9.-]/g, "-")}`, keys, signingAlgorithm: algorithm },
    webcrypto,
  );
  const key = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  return { csrPem: request.toString("pem"), keyPem: PemConverter.encode(key, "PRIVATE KEY") };
}
