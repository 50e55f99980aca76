// The hub's certificate authority: P-256, key in a 0600 file; issues server certificates for names and client certificates for appliances.

import "reflect-metadata";
import { createHash, webcrypto } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";

export interface KeyedCertificate {
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly notAfterMs: number;
}

export interface ClientCertificate {
  readonly certificatePem: string;
  /** SHA-256 of the certificate's DER, hex: how a peer's certificate is recognised. */
  readonly digest: string;
}

export interface Authority {
  /** Signs and recognises clients. */
  readonly caPem: string;
  /** What clients trust servers by: this authority, and the customer's where it signed some of the names. */
  readonly trustPem: string;
  /** A certificate with its key for one server name, kept and renewed before it ends. */
  serverCertificate(name: string): Promise<KeyedCertificate>;
  /** A certificate with its key for signing documents, and nothing else; made anew at each call. */
  signingCertificate(): Promise<KeyedCertificate>;
  /** Signs a request's public key for client authentication. The names in the request are not used; Fault InputInvalid when it is damaged. */
  clientCertificate(request: { readonly csrPem: string; readonly commonName: string; readonly uri: string }): Promise<ClientCertificate>;
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const dayMs = 24 * 3600_000;
const caDays = 3650;
const serverDays = 90;
const renewBeforeDays = 30;
/** Purpose of a certificate (RFC 9336, id-kp-documentSigning): keys of servers and appliances, which the authority signs too, sign no document. */
export const documentSigning = "1.3.6.1.5.5.7.3.36";
/** How long the certificate of an appliance is valid from its registration. */
export const applianceCertificateDays = 365;
/** Clocks of two machines may differ by this much. */
const clockSkewMs = 3600_000;
/** Server names that are kept; each is a resource's, so only very large hubs reach it. */
const namesKeptMax = 10_000;

const crypto = webcrypto;

export async function openAuthority(options: {
  readonly folder: string;
  readonly clock: Clock;
  readonly random: Random;
}): Promise<Authority> {
  x509.cryptoProvider.set(crypto);
  const { clock, random } = options;
  const { key, certificate, caPem } = await loadOrMake(options);
  const serial = (): string => Buffer.from([0x01, ...random.bytes(15)]).toString("hex");
  const validity = (days: number): { notBefore: Date; notAfter: Date } => toValidity(clock.nowMs(), days);
  const kept = new Map<string, Promise<KeyedCertificate>>();
  const issue = async (name: string, purposes: readonly x509.Extension[]): Promise<KeyedCertificate> => {
    const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const dates = validity(serverDays);
    const made = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      issuer: certificate.subject,
      subject: [{ CN: [name.slice(0, 64)] }],
      ...dates,
      signingKey: key,
      publicKey: keys.publicKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        ...purposes,
        await x509.AuthorityKeyIdentifierExtension.create(certificate, false, crypto),
      ],
    });
    return { certificatePem: made.toString("pem"), keyPem: await exportKey(keys.privateKey), notAfterMs: dates.notAfter.getTime() };
  };
  return {
    caPem,
    trustPem: caPem,
    serverCertificate: async (name) => {
      const present = await kept.get(name);
      if (present !== undefined && present.notAfterMs - clock.nowMs() > renewBeforeDays * dayMs) return present;
      if (kept.size >= namesKeptMax) kept.clear();
      const fresh = issue(name, [
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        new x509.SubjectAlternativeNameExtension([{ type: "dns", value: name }]),
      ]);
      kept.set(name, fresh);
      return await fresh;
    },
    signingCertificate: async () => await issue("Watari hub reports", [new x509.ExtendedKeyUsageExtension([documentSigning])]),
    clientCertificate: async ({ csrPem, commonName, uri }) => {
      const request = await readRequest(csrPem);
      const made = await x509.X509CertificateGenerator.create({
        serialNumber: serial(),
        issuer: certificate.subject,
        subject: [{ CN: [commonName] }],
        ...validity(applianceCertificateDays),
        signingKey: key,
        publicKey: request.publicKey,
        signingAlgorithm: algorithm,
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
          new x509.SubjectAlternativeNameExtension([{ type: "url", value: uri }]),
          await x509.AuthorityKeyIdentifierExtension.create(certificate, false, crypto),
        ],
      });
      return { certificatePem: made.toString("pem"), digest: digestOf(new Uint8Array(made.rawData)) };
    },
  };
}

/** The digest by which an appliance's certificate is known; `raw` is DER. */
export function digestOf(raw: Uint8Array): string {
  return createHash("sha256").update(raw).digest("hex");
}

interface Loaded {
  readonly key: CryptoKey;
  readonly certificate: x509.X509Certificate;
  readonly caPem: string;
}

/** Key and certificate are one file: a crash leaves both or neither. */
async function loadOrMake(options: { readonly folder: string; readonly clock: Clock; readonly random: Random }): Promise<Loaded> {
  const path = join(options.folder, "ca.pem");
  const present = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  const text = present ?? (await makeAuthority(options));
  if (present === undefined) await writeFileAtomic(path, text, { mode: 0o600 });
  const [keyDer, certificateDer] = [x509.PemConverter.decodeFirst(text), x509.PemConverter.decode(text)[1]];
  if (certificateDer === undefined)
    throw new Fault("DataDamaged", "could not read the hub's certificate authority", { evidence: { path } });
  const key = await crypto.subtle.importKey("pkcs8", keyDer, algorithm, false, ["sign"]);
  const certificate = new x509.X509Certificate(certificateDer);
  return { key, certificate, caPem: `${certificate.toString("pem")}\n` };
}

async function makeAuthority(options: { readonly clock: Clock; readonly random: Random }): Promise<string> {
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const identity = Buffer.from(options.random.bytes(4)).toString("hex");
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: Buffer.from([0x01, ...options.random.bytes(15)]).toString("hex"),
    name: [{ CN: [`Watari hub ${identity}`] }],
    ...toValidity(options.clock.nowMs(), caDays),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, crypto),
    ],
  });
  return `${await exportKey(keys.privateKey)}\n${certificate.toString("pem")}\n`;
}

async function exportKey(key: CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await crypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}

async function readRequest(csrPem: string): Promise<x509.Pkcs10CertificateRequest> {
  try {
    const request = new x509.Pkcs10CertificateRequest(csrPem);
    if (await request.verify(crypto)) return request;
  } catch (error) {
    throw new Fault("InputInvalid", "could not read the certificate request", { cause: error });
  }
  throw new Fault("InputInvalid", "could not accept the certificate request: its signature does not fit its key");
}

function toValidity(nowMs: number, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: toDate(nowMs - clockSkewMs), notAfter: toDate(nowMs + days * dayMs) };
}

/** The library wants Date objects; the instant comes from the clock that was given. */
function toDate(timeMs: number): Date {
  // oxlint-disable-next-line no-restricted-globals -- a conversion, not a reading of the system's clock
  return new Date(timeMs);
}
