// The lab's own certificate authority, made anew for each lab, and certificates from it.

import "reflect-metadata";
import { writeFile } from "node:fs/promises";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { systemClock } from "../src/base/clock.ts";

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const dayMs = 86_400_000;

export interface CertificateFiles {
  readonly certificateFile: string;
  readonly keyFile: string;
}

export interface LabAuthority {
  readonly caFile: string;
  /** Writes a server certificate and its key for these names and addresses. */
  issue(files: CertificateFiles, names: readonly string[], addresses: readonly string[]): Promise<void>;
}

/** Makes the authority; its key lives only in this process. */
export async function createAuthority(caFile: string): Promise<LabAuthority> {
  x509.cryptoProvider.set(webcrypto);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const validity = { notBefore: new Date(systemClock.nowMs() - dayMs), notAfter: new Date(systemClock.nowMs() + 30 * dayMs) };
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=Watari lab authority",
    ...validity,
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  await writeFile(caFile, `${authority.toString("pem")}\n`, { mode: 0o644 });
  return {
    caFile,
    issue: async (files, names, addresses) => {
      const leafKeys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
      const leaf = await x509.X509CertificateGenerator.create({
        subject: `CN=${names[0] ?? "lab"}`,
        issuer: authority.subject,
        ...validity,
        publicKey: leafKeys.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: algorithm,
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
          new x509.SubjectAlternativeNameExtension([
            ...names.map((value) => ({ type: "dns" as const, value })),
            ...addresses.map((value) => ({ type: "ip" as const, value })),
          ]),
          await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
        ],
      });
      const key = await webcrypto.subtle.exportKey("pkcs8", leafKeys.privateKey);
      await writeFile(files.certificateFile, `${leaf.toString("pem")}\n`, { mode: 0o644 });
      await writeFile(files.keyFile, `${x509.PemConverter.encode(key, "PRIVATE KEY")}\n`, { mode: 0o600 });
    },
  };
}
