// The site's certificate authority: issues the appliance's server certificate and the agents' client certificates.

import "reflect-metadata";
import { createHmac, randomBytes, timingSafeEqual, webcrypto, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";
import { toDate, type Clock } from "../../base/clock.ts";
import type { MachineId } from "../../contract/ids.ts";
import { Fault } from "../../contract/errors.ts";
import type { SealedFacts } from "../state/facts.ts";
import { agentCertificateDays, certificateEnd, serverCertificateDays } from "./site-certificates.ts";

x509.cryptoProvider.set(webcrypto);

/** The name that agents send to the server, whatever address they dial. */
export const applianceDnsName = "appliance.watari.internal";

const dayMs = 86_400_000;
const authorityDays = 3650;
/** Guest clocks are wrong now and then. */
const backdatedMs = dayMs;
const keyAlgorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

export interface IssuedIdentity {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface SiteAuthority {
  readonly caPem: string;
  /** Shown only on an operator's order. */
  readonly passphrase: string;
  issueServerIdentity(addresses: readonly string[]): Promise<IssuedIdentity>;
  /** Signs an agent's request after the proof; the machine is named by the certificate's common name. Throws PassphraseWrong. */
  signAgentRequest(request: { readonly csrPem: string; readonly proof: string }, machineId: MachineId): Promise<string>;
  checkProof(request: { readonly csrPem: string; readonly proof: string }): void;
  readonly endsAtMs: number;
  /** The next certificate of a machine that proved itself by the present one. */
  renewAgentCertificate(csrPem: string, machineId: MachineId): Promise<string>;
}

/** Opens the authority; the first call makes its key, certificate and passphrase, and stores them sealed. */
export async function openSiteAuthority(facts: SealedFacts, clock: Clock): Promise<SiteAuthority> {
  if (facts.read("siteAuthorityCertificate") === undefined) await createAuthority(facts, clock);
  if (facts.read("sitePassphrase") === undefined) facts.write("sitePassphrase", createPassphrase());
  const caPem = facts.read("siteAuthorityCertificate") ?? "";
  const passphrase = facts.read("sitePassphrase") ?? "";
  const signingKey = await importSigningKey(facts.read("siteAuthorityKey") ?? "");
  const { subject: issuer } = new x509.X509Certificate(caPem);
  const { validFromDate, validToDate } = new X509Certificate(caPem);
  const endsAtMs = validToDate.getTime();
  // All begin when the authority did, or this clock's yesterday: neither a clock that is set back nor a guest's wrong one finds them too new.
  const valid = (days: number): Validity => ({
    notBefore: toDate(Math.min(validFromDate.getTime(), clock.nowMs() - backdatedMs)),
    notAfter: toDate(certificateEnd(clock.nowMs(), { days, authorityEndsAtMs: endsAtMs })),
  });
  const checkProof: SiteAuthority["checkProof"] = ({ csrPem, proof }) => {
    const expected = createHmac("sha256", passphrase).update(csrPem, "utf8").digest();
    const given = Buffer.from(proof, "hex");
    if (given.length === expected.length && timingSafeEqual(given, expected)) return;
    throw new Fault("PassphraseWrong", "refused to register an agent: its proof of the site passphrase is wrong");
  };
  const certify = async (csrPem: string, machineId: MachineId): Promise<string> => {
    const publicKey = await readRequest(csrPem);
    const certificate = await x509.X509CertificateGenerator.create({
      ...valid(agentCertificateDays),
      serialNumber: createSerial(),
      subject: `CN=${machineId}`,
      issuer,
      publicKey,
      signingKey,
      signingAlgorithm: keyAlgorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
      ],
    });
    return certificate.toString("pem");
  };
  return {
    ...{ caPem, passphrase, checkProof, endsAtMs },
    issueServerIdentity: async (addresses) => {
      const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
      const names: x509.JsonGeneralNames = [
        { type: "dns", value: applianceDnsName },
        ...addresses.map((address) => ({ type: isIP(address) === 0 ? ("dns" as const) : ("ip" as const), value: address })),
      ];
      const certificate = await x509.X509CertificateGenerator.create({
        ...valid(serverCertificateDays),
        serialNumber: createSerial(),
        subject: "CN=Watari replication appliance",
        issuer,
        publicKey: keys.publicKey,
        signingKey,
        signingAlgorithm: keyAlgorithm,
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
          new x509.SubjectAlternativeNameExtension(names),
        ],
      });
      return { certPem: certificate.toString("pem"), keyPem: await exportKey(keys.privateKey) };
    },
    signAgentRequest: async (request, machineId) => {
      checkProof(request);
      return await certify(request.csrPem, machineId);
    },
    renewAgentCertificate: certify,
  };
}

/** SHA-256 of a certificate in lower-case hex: how the registry remembers the one certificate of a machine. */
export function certificateDigestOf(certPem: string): string {
  return new X509Certificate(certPem).fingerprint256.replaceAll(":", "").toLowerCase();
}

/** A new key pair and a signing request for it, as the appliance shows to its hub. */
export async function createSigningRequest(commonName: string): Promise<{ readonly csrPem: string; readonly keyPem: string }> {
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${commonName}`,
    keys,
    signingAlgorithm: keyAlgorithm,
  });
  return { csrPem: request.toString("pem"), keyPem: await exportKey(keys.privateKey) };
}

async function createAuthority(facts: SealedFacts, clock: Clock): Promise<void> {
  const keys = await webcrypto.subtle.generateKey(keyAlgorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    ...{ notBefore: toDate(clock.nowMs() - backdatedMs), notAfter: toDate(clock.nowMs() + authorityDays * dayMs) },
    serialNumber: createSerial(),
    name: "CN=Watari site authority",
    keys,
    signingAlgorithm: keyAlgorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  // The key first: a certificate without its key would be kept for ever.
  facts.write("siteAuthorityKey", await exportKey(keys.privateKey));
  facts.write("siteAuthorityCertificate", certificate.toString("pem"));
}

/** The public key of a request whose own signature holds and whose curve is P-256. */
async function readRequest(csrPem: string): Promise<x509.PublicKey> {
  try {
    const request = new x509.Pkcs10CertificateRequest(csrPem);
    if (!(await request.verify())) throw new Error("the request's signature is wrong");
    const algorithm = request.publicKey.algorithm as Partial<EcKeyAlgorithm>; // Checked on the next line.
    if (algorithm.name !== "ECDSA" || algorithm.namedCurve !== "P-256") throw new Error("the key is not on the curve P-256");
    return request.publicKey;
  } catch (error) {
    throw new Fault("InputInvalid", "could not read the certificate request", { cause: error });
  }
}

interface Validity {
  readonly notBefore: ReturnType<typeof toDate>;
  readonly notAfter: ReturnType<typeof toDate>;
}

interface EcKeyAlgorithm {
  readonly name: string;
  readonly namedCurve: string;
}

/** 16 random bytes with the top bit clear and not all zero in front (RFC 5280, serial number). */
function createSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString("hex");
}

/** 25 symbols without look-alikes: 125 bits that a person can read out. */
function createPassphrase(): string {
  const symbols = "abcdefghjkmnpqrstuvwxyz23456789x";
  return Array.from(randomBytes(25), (byte, index) => `${index > 0 && index % 5 === 0 ? "-" : ""}${symbols[byte & 31] ?? ""}`).join("");
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  return x509.PemConverter.encode(der, "PRIVATE KEY");
}

async function importSigningKey(keyPem: string): Promise<webcrypto.CryptoKey> {
  const der = x509.PemConverter.decodeFirst(keyPem);
  return await webcrypto.subtle.importKey("pkcs8", der, keyAlgorithm, false, ["sign"]);
}
