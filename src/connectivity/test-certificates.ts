// Certificates for tests: an authority, and leaves for any names and dates.

import "reflect-metadata";
import { webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
  cryptoProvider,
  type X509Certificate,
} from "@peculiar/x509";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const dayMs = 24 * 60 * 60 * 1000;

export interface Leaf {
  readonly cert: string;
  readonly key: string;
}

export interface Authority {
  readonly caPem: string;
  /** A certificate for these names; `validDays` may be negative for one that has expired. */
  issue(names: readonly string[], validDays?: number): Promise<Leaf>;
}

let serial = 0;

/** A fresh authority. Its own certificate is valid around now. */
export async function createAuthority(commonName = "test authority"): Promise<Authority> {
  cryptoProvider.set(webcrypto);
  const nowMs = performance.timeOrigin + performance.now();
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const ca = await X509CertificateGenerator.createSelfSigned({
    serialNumber: nextSerial(),
    name: `CN=${commonName}`,
    notBefore: fromMs(nowMs - 30 * dayMs),
    notAfter: fromMs(nowMs + 30 * dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  return {
    caPem: ca.toString("pem"),
    issue: async (names, validDays = 1) => await issueLeaf(ca, keys.privateKey, names, nowMs + validDays * dayMs),
  };
}

async function issueLeaf(ca: X509Certificate, signingKey: webcrypto.CryptoKey, names: readonly string[], endsAtMs: number): Promise<Leaf> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const leaf = await X509CertificateGenerator.create({
    serialNumber: nextSerial(),
    issuer: ca.subject,
    subject: `CN=${names[0] ?? "leaf"}`,
    notBefore: fromMs(endsAtMs - 10 * dayMs),
    notAfter: fromMs(endsAtMs),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [new SubjectAlternativeNameExtension(names.map((name) => ({ type: "dns" as const, value: name })))],
  });
  const der = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  const base64 = Buffer.from(der).toString("base64").replaceAll(/.{64}/g, "$&\n");
  return { cert: leaf.toString("pem"), key: `-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n` };
}

function nextSerial(): string {
  serial += 1;
  return serial.toString(16).padStart(4, "0");
}

function fromMs(timeMs: number): Date {
  // oxlint-disable-next-line no-restricted-globals -- the library wants a Date object; the time was given
  return new Date(timeMs);
}
